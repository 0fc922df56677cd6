"""Real behaviour replayed week by week, with a shift injected.

The world is ml-100k. Its users mostly come once and no two of its months are alike, so it is
replayed in a time of its own:

- A life is one user's real sequence of events. Breaks longer than `BREAK` are shortened to it, so
  that a life fits into a week, and before some events the user searches for words of the title that
  follows. The searches are the only events that are made up.
- Lives are split in three by a hash of what they hold. The first part is the champion's data: each
  life once, in one of the reference weeks. From the second, visitors are drawn for every replayed
  week, with replacement, each under a new pseudonym. The third is never replayed: on it a quality
  is measured before a shift, under it, and after a retraining.
- Films released from `NEW` on do not exist until the shift `new-catalogue` brings them.

So two weeks without a shift differ by chance alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tasteloop.behaviour.events import EVENTS_SCHEMA, ITEM, KIND, TIME, USER, Event
from tasteloop.behaviour.items import LABELS, RELEASED, TITLE
from tasteloop.behaviour.times import SECOND
from tasteloop.errors import TasteloopError
from validation.monitor.windows import HOUR, WEEK

if TYPE_CHECKING:
    import polars as pl

Life = tuple[Event, ...]  # times from its beginning, µs

DAY = 24 * HOUR
BREAK = 3 * HOUR
NEW = date(1997, 1, 1)
LEAST = 5  # events of a life
# on the grid of weekly windows
FIRST = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * SECOND) // WEEK * WEEK
# the first and the last are never whole for the monitor: no event lies on their edges
REFERENCE_WEEKS = 10
PARTS = {"champion": 0.5, "visitors": 0.38, "judges": 0.12}
LATE = 2 * DAY  # that an event or a click comes late where labels are delayed
_SEASON = 4  # weeks of the seasonal swing
_BANDS = 3  # of popularity, within which tastes change places
_SEARCHES = 0.05  # of events that follow a search
_SCRIPT = str.maketrans("abcdefghijklmnopqrstuvwxyz", "абкдефгхижклмнопярстувшьыз")


@dataclass(frozen=True)
class Shift:
    """What changes, what the monitor is expected to do, and what a severity is."""

    about: str
    expected: str  # nothing, retrain, alert-human
    unit: str = "not used"
    severity: float = 1.0


SHIFTS: dict[str, Shift] = {
    "stationary": Shift("nothing", "nothing"),
    "seasonal": Shift(
        f"who comes and how many, in a swing of {_SEASON} weeks that the reference has seen",
        "nothing",
        "swing of the number of visitors and of who they are",
        0.3,
    ),
    "new-catalogue": Shift(
        f"films from {NEW.year} on appear", "retrain", "share of their real events that happen"
    ),
    "taste-change": Shift(
        "visitors turn to other films of like popularity, with rarer labels",
        "retrain",
        "share of visitors",
    ),
    "bots": Shift(
        "two users flood the log", "alert-human", "events of each, in the busiest user's", 4.0
    ),
    "broken-field": Shift(
        "a field comes empty: values, or items where the seed is odd",
        "alert-human",
        "share of rows",
        0.5,
    ),
    "language": Shift("searches in Cyrillic letters", "alert-human", "share of visitors"),
    "delayed-labels": Shift(
        "events and feedback arrive late, out of order and twice",
        "nothing",
        "share that is up to two days late",
        0.3,
    ),
}


@dataclass(frozen=True)
class Options:
    """One simulation.

    Attributes:
        start: the first week with the shift; the weeks before are as the reference.
        visitors: a week.
        severity: in the shift's unit; None: its default.
        serve: ask a real server over HTTP; False: the same session and journal in this process.
        retrain: carry a retraining out; False: the replay ends with the decision.
    """

    shift: str = "stationary"
    seed: int = 0
    weeks: int = 6
    start: int = 2
    visitors: int = 100
    severity: float | None = None
    serve: bool = True
    retrain: bool = True

    def __post_init__(self) -> None:
        if self.shift not in SHIFTS:
            raise TasteloopError(f"no shift {self.shift!r}; known: {', '.join(SHIFTS)}")
        if not (0 <= self.start < self.weeks and self.visitors >= 1 and self.seed >= 0):
            raise TasteloopError(
                "weeks count from 0: the shift starts before the last; visitors are 1 or more"
            )
        if not 0 < self.size < float("inf"):
            raise TasteloopError(
                f"a severity is above 0 (here: {SHIFTS[self.shift].unit}), not {self.severity}"
            )

    @property
    def size(self) -> float:
        return SHIFTS[self.shift].severity if self.severity is None else self.severity


# The world


@dataclass(frozen=True)
class World:
    """Lives by part, and the films."""

    lives: Mapping[str, Sequence[Life]]
    items: pl.DataFrame

    @classmethod
    def of(cls, events: pl.DataFrame, items: pl.DataFrame) -> World:
        """From a data set as ingest writes it. Which part a life is in depends on what it holds,
        not on a pseudonym.
        """
        new = set(items.filter(items[RELEASED] >= NEW)[ITEM])
        parts: dict[str, list[tuple[str, Life]]] = {part: [] for part in PARTS}
        for rows in events.sort(USER, TIME, ITEM).partition_by(USER, maintain_order=True):
            written = [Event(*row) for row in rows.select(KIND, ITEM, TIME, "value", "text").rows()]
            if sum(event.item not in new for event in written) < LEAST:
                continue
            name = hashlib.blake2b(repr(written).encode(), digest_size=8).hexdigest()
            parts[_part(int(name, 16) / 16**16)].append((name, _life(written)))
        return cls(
            {part: [life for _, life in sorted(found)] for part, found in parts.items()}, items
        )

    @cached_property
    def new(self) -> frozenset[str]:
        return frozenset(self.items.filter(self.items[RELEASED] >= NEW)[ITEM])

    @cached_property
    def titles(self) -> dict[str, str]:
        return dict(self.items.select(ITEM, TITLE).rows())

    @cached_property
    def labels(self) -> dict[str, list[str]]:
        return dict(self.items.select(ITEM, LABELS).rows())

    def before(self, life: Life) -> Life:
        """Without the films that do not exist yet."""
        return tuple(event for event in life if event.item not in self.new)

    @cached_property
    def busiest(self) -> int:
        return max(len(life) for life in self.lives["champion"])

    @cached_property
    def tastes(self) -> dict[str, str]:
        """Which film takes whose place when tastes change: within a band of popularity, the most
        watched one's goes to the one whose labels are the rarest, and so on. One to one, so that
        what is liked together stays together.
        """
        counts: dict[str, int] = dict.fromkeys(sorted(set(self.items[ITEM]) - self.new), 0)
        mass: dict[str, float] = {}
        for event in (e for life in self.lives["champion"] for e in self.before(life) if e.item):
            counts[event.item or ""] += 1
            for label in (known := self.labels[event.item or ""]):
                mass[label] = mass.get(label, 0.0) + 1 / len(known)

        def common(item: str) -> float:
            known = self.labels[item]
            return sum(mass.get(label, 0.0) for label in known) / max(1, len(known))

        order = sorted(counts, key=lambda item: (-counts[item], item))
        bands = [[str(item) for item in band] for band in np.array_split(np.array(order), _BANDS)]
        return {a: b for band in bands for a, b in zip(band, sorted(band, key=common), strict=True)}

    def leaning(self, life: Life) -> float:
        """Share of a life's films that are dramas or romances: what the seasonal swing goes by."""
        films = [self.labels[event.item] for event in self.before(life) if event.item]
        return float(np.mean([bool({"Drama", "Romance"} & set(labels)) for labels in films]))


def _part(u: float) -> str:
    for part, share in PARTS.items():
        if u < share:
            return part
        u -= share
    return part


def _life(events: Sequence[Event]) -> Life:
    out: list[Event] = []
    now, before = 0, events[0].time
    for event in events:
        assert event.time is not None and before is not None
        now, before = now + min(event.time - before, BREAK), event.time
        out.append(replace(event, time=now))
    if now >= WEEK - HOUR:
        out = [replace(event, time=int((event.time or 0) * (WEEK - HOUR) / now)) for event in out]
    return tuple(out)


def searching(life: Life, titles: Mapping[str, str], chance: np.random.Generator) -> Life:
    """With searches a little before some of the events, one at least, for words of the title that
    follows.
    """
    before = chance.random(len(life)) < _SEARCHES
    before[int(chance.integers(len(life)))] = True
    out: list[Event] = []
    for event, searched in zip(life, before, strict=True):
        words = titles.get(event.item or "", "").lower().split()
        if searched and words:
            first = int(chance.random() * len(words))
            text = " ".join(words[first : first + 3])
            out.append(
                Event(
                    "search",
                    None,
                    max(0, (event.time or 0) - int(chance.integers(1, SECOND))),
                    None,
                    text,
                )
            )
        out.append(event)
    return tuple(sorted(out, key=lambda event: event.time or 0))


@dataclass(frozen=True)
class Visit:
    """One life in a week: the raw user id, and the events in the replay's time."""

    user: str
    events: Life


@dataclass(frozen=True)
class Replay:
    """What happens, week by week: deterministic in the world and the options."""

    world: World
    options: Options

    @property
    def begin(self) -> int:
        """Of the first replayed week, µs."""
        return FIRST + REFERENCE_WEEKS * WEEK

    def shifted(self, week: int) -> bool:
        return week >= self.options.start and self.options.shift not in ("stationary", "seasonal")

    def week(self, week: int) -> list[Visit]:
        """The visits of a replayed week, without machines and before anything is broken on the
        way.
        """
        n, lean = self.swing(REFERENCE_WEEKS + week)
        lives = self._drawn(
            round(n * self.options.visitors), lean, np.random.default_rng([self.options.seed, week])
        )
        out = []
        for k, life in enumerate(lives):
            # one's own: a shift moves no one else
            chance = np.random.default_rng([self.options.seed, week, k])
            lived = self.lived(life, chance, self.shifted(week))
            name = f"{self.options.shift}-{self.options.seed}-{week}-{k}"
            out.append(placed(name, lived, self.begin + week * WEEK, chance))
        return out

    def lived(self, life: Life, chance: np.random.Generator, shifted: bool) -> Life:
        """A life as it is lived under the shift, with its searches."""
        shift, size = self.options.shift, self.options.size
        hit = (chance.random() < size) and shifted  # where the severity is a share of visitors
        if shifted and shift == "new-catalogue":
            kept = chance.random(len(life)) < size
            lived = tuple(
                e for e, k in zip(life, kept, strict=True) if k or e.item not in self.world.new
            )
        else:
            lived = self.world.before(life)
        if hit and shift == "taste-change":
            lived = tuple(
                replace(e, item=self.world.tastes[e.item]) if e.item else e for e in lived
            )
        lived = searching(lived, self.world.titles, chance)
        if hit and shift == "language":
            lived = tuple(
                replace(e, text=e.text.translate(_SCRIPT)) if e.text else e for e in lived
            )
        return lived

    def swing(self, week: int) -> tuple[float, float]:
        """How many come, in usual weeks', and the chance that a visitor is of those who lean to
        dramas.
        """
        if self.options.shift != "seasonal":
            return 1.0, 0.5
        wave = self.options.size * float(np.sin(2 * np.pi * week / _SEASON))
        return 1 + wave, 0.5 + wave

    def _drawn(self, n: int, lean: float, chance: np.random.Generator) -> list[Life]:
        lives = self.world.lives["visitors"]
        if lean == 0.5:
            return [lives[k] for k in chance.integers(len(lives), size=n)]
        half = self._halves
        return [lives[int(chance.choice(half[chance.random() < lean]))] for _ in range(n)]

    @cached_property
    def _halves(self) -> dict[bool, list[int]]:
        leaning = [self.world.leaning(life) for life in self.world.lives["visitors"]]
        middle = float(np.median(leaning))
        return {
            side: [k for k, x in enumerate(leaning) if (x > middle) == side]
            for side in (True, False)
        }

    def arrivals(self, visits: Sequence[Visit], week: int, key: bytes) -> pl.DataFrame:
        """What the log gets of a week: the events contract, and `arrives`, when (µs)."""
        import polars as pl

        from tasteloop.privacy.pseudonyms import pseudonymise

        chance = np.random.default_rng([self.options.seed, week, 0, 1])
        rows = [(v.user, e.item, e.kind, e.time, e.value, e.text) for v in visits for e in v.events]
        if self.shifted(week) and self.options.shift == "bots":
            rows += self._bots(week, chance)
        frame = pl.DataFrame(rows, schema=dict(EVENTS_SCHEMA.to_polars()), orient="row")
        frame = frame.with_columns(
            pseudonymise(frame[USER], key).alias(USER), pl.col(TIME).alias("arrives")
        )
        if not self.shifted(week):
            return frame
        hit = pl.Series(chance.random(frame.height) < self.options.size)
        if self.options.shift == "broken-field":
            broken = ITEM if self.options.seed % 2 else "value"
            return frame.with_columns(
                pl.when(hit).then(None).otherwise(pl.col(broken)).alias(broken)
            )
        if self.options.shift == "delayed-labels":
            late = pl.Series(chance.integers(0, LATE, frame.height))
            later = pl.when(hit).then(pl.col("arrives") + late).otherwise("arrives")
            frame = frame.with_columns(later.alias("arrives"))
            again = frame.filter(hit).with_columns(pl.col("arrives") + HOUR)
            return pl.concat([frame, again]).sample(fraction=1, shuffle=True, seed=week)
        return frame

    def _bots(self, week: int, chance: np.random.Generator) -> list[tuple[Any, ...]]:
        items = sorted(self.world.tastes)
        n = round(self.options.size * self.world.busiest)
        times = self.begin + week * WEEK + chance.integers(0, WEEK, (2, n))
        return [
            (f"machine-{bot}", items[int(chance.integers(len(items)))], "view", int(t), None, None)
            for bot, row in enumerate(times)
            for t in row
        ]

    def catalogue(self, week: int) -> pl.DataFrame | None:
        """Today's, where it is newer than the champion's."""
        return (
            self.world.items
            if self.options.shift == "new-catalogue" and self.shifted(week)
            else None
        )


def placed(user: str, life: Life, begin: int, chance: np.random.Generator) -> Visit:
    """A life moved as a whole to a start at which it lies within the week."""
    start = begin + int(chance.integers(1, WEEK - (life[-1].time or 0)))
    return Visit(user, tuple(replace(event, time=start + (event.time or 0)) for event in life))
