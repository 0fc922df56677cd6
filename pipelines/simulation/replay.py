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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.simulation.shifts import SEASON, Options
from pipelines.simulation.world import Life, World
from tasteloop.behaviour.events import EVENTS_SCHEMA, ITEM, TIME, USER, Event
from tasteloop.behaviour.times import SECOND
from validation.monitor.windows import HOUR, WEEK

if TYPE_CHECKING:
    import polars as pl

DAY = 24 * HOUR
# on the grid of weekly windows
FIRST = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * SECOND) // WEEK * WEEK
# the first and the last are never whole for the monitor: no event lies on their edges
REFERENCE_WEEKS = 10
LATE = 2 * DAY  # that an event or a click comes late where labels are delayed
_SEARCHES = 0.05  # of events that follow a search
_SCRIPT = str.maketrans("abcdefghijklmnopqrstuvwxyz", "абкдефгхижклмнопярстувшьыз")


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
    """What happens, week by week: the same for the same world and options.

    A week of a world with one life, which ten visitors live:

    >>> import polars as pl
    >>> life = tuple(Event("rate", f"film {n}", n * HOUR, 1.0) for n in range(6))
    >>> films = {ITEM: [f"film {n}" for n in range(6)], "title": ["Some Film"] * 6}
    >>> items = pl.DataFrame(films).with_columns(released=pl.lit(None, pl.Date))
    >>> world = World({"champion": [life], "visitors": [life], "judges": []}, items)
    >>> visits = Replay(world, Options("stationary", visitors=10)).week(0)
    >>> len(visits), [event.item for event in visits[0].events if event.kind == "rate"][:2]
    (10, ['film 0', 'film 1'])
    """

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
        wave = self.options.size * float(np.sin(2 * np.pi * week / SEASON))
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
