"""Real behaviour replayed week by week, with a shift injected.

The world is ml-100k. Its users mostly come once and no two of its months are alike, so it is
replayed in a time of its own:

- A life is one user's real sequence of events. Breaks longer than `LONGEST_BREAK` are shortened to
  it, so that a life fits into a week, and before some events the user searches for words of the
  title that follows. The searches are the only events that are made up, and, where visitors talk,
  the words of searches and reviews (`pipelines.simulation.words`).
- Lives are split in three by a hash of their events. The first part is the champion's data: each
  life once, in one of the reference weeks. From the second, visitors are drawn for every replayed
  week, with replacement, each under a new pseudonym. The third is never replayed: on it a quality
  is measured before a shift, under it, and after a retraining.
- Films released from `NEW_FROM` on do not exist until the shift `new-catalogue` brings them.

So two weeks without a shift differ by chance alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.simulation.shifts import SEASON, Options
from pipelines.simulation.words import review_in_words, search_in_words
from pipelines.simulation.world import Life, World
from tasteloop.behaviour.events import EVENTS_SCHEMA, ITEM, TIME, USER, VALUE, Event
from tasteloop.behaviour.times import SECOND
from validation.monitor.windows import HOUR, WEEK

if TYPE_CHECKING:
    import polars as pl

DAY = 24 * HOUR
# the first replayed or reference week that there is, on the grid of weekly windows
FIRST_WEEK = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * SECOND) // WEEK * WEEK
# the monitor never sees all of the first and the last: no event lies on their edges
REFERENCE_WEEKS = 10
MOST_DELAY = 2 * DAY  # of an event or a click, where labels are delayed
_SEARCHES = 0.05  # of events that follow a search
_BOTS = 2  # that flood the log
_CYRILLIC = str.maketrans("abcdefghijklmnopqrstuvwxyz", "абкдефгхижклмнопярстувшьыз")


def add_searches(life: Life, titles: Mapping[str, str], chance: np.random.Generator) -> Life:
    """The life with searches shortly before some of its events, at least before one of them.

    A search is for up to three words of the title that follows.
    """
    follows_search = chance.random(len(life)) < _SEARCHES
    follows_search[int(chance.integers(len(life)))] = True
    acts: list[Event] = []
    for event, searched in zip(life, follows_search, strict=True):
        words = titles.get(event.item or "", "").lower().split()
        if searched and words:
            first = int(chance.random() * len(words))
            text = " ".join(words[first : first + 3])
            time = max(0, (event.time or 0) - int(chance.integers(1, SECOND)))
            acts.append(Event("search", None, time, None, text))
        acts.append(event)
    return tuple(sorted(acts, key=lambda event: event.time or 0))


@dataclass(frozen=True)
class Visit:
    """One life in a week: the raw user id, and the events in the replay's time."""

    user: str
    events: Life


def event_rows(visits: Iterable[Visit]) -> list[tuple[Any, ...]]:
    """The events of visits as rows of the events contract, under raw user ids."""
    rows: list[tuple[Any, ...]] = []
    for visit in visits:
        user = visit.user
        rows += [(user, e.item, e.kind, e.time, e.value, e.text) for e in visit.events]
    return rows


@dataclass(frozen=True)
class Replay:
    """What happens, week by week: the same for the same world and options.

    A week of a world with one life, which ten visitors live:

    >>> import polars as pl
    >>> life = tuple(Event("rate", f"film {n}", n * HOUR, 1.0) for n in range(6))
    >>> films = {ITEM: [f"film {n}" for n in range(6)], "title": ["Some Film"] * 6}
    >>> items = pl.DataFrame(films).with_columns(released=pl.lit(None, pl.Date))
    >>> world = World({"champion": [life], "visitors": [life], "judges": []}, items)
    >>> visits = Replay(world, Options("stationary", visitors=10)).visits(0)
    >>> len(visits), [event.item for event in visits[0].events if event.kind == "rate"][:2]
    (10, ['film 0', 'film 1'])
    """

    world: World
    options: Options

    @property
    def begin(self) -> int:
        """The begin of the first replayed week, µs."""
        return FIRST_WEEK + REFERENCE_WEEKS * WEEK

    def is_shifted(self, week: int) -> bool:
        is_always_alike = self.options.shift in ("stationary", "seasonal", "words")
        return week >= self.options.start and not is_always_alike

    def visits(self, week: int) -> list[Visit]:
        """The visits of a replayed week; bots, broken fields and delays come with `arrivals`."""
        size, lean = self.swing(REFERENCE_WEEKS + week)
        count = round(size * self.options.visitors)
        lives = self._draw_lives(count, lean, np.random.default_rng([self.options.seed, week]))
        visits = []
        for number, life in enumerate(lives):
            # chance of the visitor's own, so that a shift changes nobody else's visit
            chance = np.random.default_rng([self.options.seed, week, number])
            changed = self.apply_shift(life, chance, self.is_shifted(week))
            name = f"{self.options.shift}-{self.options.seed}-{week}-{number}"
            visits.append(place_in_week(name, changed, self.begin + week * WEEK, chance))
        return visits

    def apply_shift(self, life: Life, chance: np.random.Generator, shifted: bool) -> Life:
        """A life as the shift changes it, if `shifted`, with its searches."""
        shift, size, world = self.options.shift, self.options.size, self.world
        is_hit = (chance.random() < size) and shifted  # where the severity is a share of visitors

        # 1. the films
        if shifted and shift == "new-catalogue":
            happens = chance.random(len(life)) < size
            events = tuple(
                event
                for event, happened in zip(life, happens, strict=True)
                if happened or event.item not in world.new
            )
        else:
            events = world.without_new_films(life)
        if is_hit and shift == "taste-change":
            events = tuple(
                replace(event, item=world.tastes[event.item]) if event.item else event
                for event in events
            )

        # 2. the searches for them, and what is written about them
        events = add_searches(events, world.titles, chance)
        if self.options.talks:
            events = search_in_words(
                events, world.labels, chance, lacking=is_hit and shift == "new-wishes"
            )
            events = review_in_words(events, chance, ironic=is_hit and shift == "irony")
        if is_hit and shift == "language":
            events = tuple(
                replace(event, text=event.text.translate(_CYRILLIC)) if event.text else event
                for event in events
            )
        return events

    def swing(self, week: int) -> tuple[float, float]:
        """How many visitors come, as a share of a usual week's, and the probability that one of
        them leans to dramas.
        """
        if self.options.shift != "seasonal":
            return 1.0, 0.5
        wave = self.options.size * float(np.sin(2 * np.pi * week / SEASON))
        return 1 + wave, 0.5 + wave

    def _draw_lives(self, count: int, lean: float, chance: np.random.Generator) -> list[Life]:
        lives = self.world.lives["visitors"]
        if lean == 0.5:
            return [lives[k] for k in chance.integers(len(lives), size=count)]
        drawn = []
        for _ in range(count):
            half = self._halves[bool(chance.random() < lean)]
            drawn.append(lives[int(chance.choice(half))])
        return drawn

    @cached_property
    def _halves(self) -> dict[bool, list[int]]:
        """Positions of the visitors' lives that lean to dramas (True), and of the others."""
        leaning = [self.world.leaning(life) for life in self.world.lives["visitors"]]
        middle = float(np.median(leaning))
        halves: dict[bool, list[int]] = {True: [], False: []}
        for position, share in enumerate(leaning):
            halves[share > middle].append(position)
        return halves

    def arrivals(self, visits: Sequence[Visit], week: int, key: bytes) -> pl.DataFrame:
        """What the log gets of a week: the events contract, and `arrives`, when (µs)."""
        import polars as pl

        from tasteloop.privacy.pseudonyms import pseudonymise

        # 1. the visits, and the bots among them
        chance = np.random.default_rng([self.options.seed, week, 0, 1])
        rows = event_rows(visits)
        if self.is_shifted(week) and self.options.shift == "bots":
            rows += self._bot_rows(week, chance)
        frame = pl.DataFrame(rows, schema=dict(EVENTS_SCHEMA.to_polars()), orient="row")
        frame = frame.with_columns(
            pseudonymise(frame[USER], key).alias(USER), pl.col(TIME).alias("arrives")
        )
        if not self.is_shifted(week):
            return frame

        # 2. what goes wrong on the way
        is_hit = pl.Series(chance.random(frame.height) < self.options.size)
        if self.options.shift == "broken-field":
            broken = ITEM if self.options.seed % 2 else VALUE
            emptied = pl.when(is_hit).then(None).otherwise(pl.col(broken))
            return frame.with_columns(emptied.alias(broken))
        if self.options.shift == "delayed-labels":
            delay = pl.Series(chance.integers(0, MOST_DELAY, frame.height))
            later = pl.when(is_hit).then(pl.col("arrives") + delay).otherwise("arrives")
            frame = frame.with_columns(later.alias("arrives"))
            repeated = frame.filter(is_hit).with_columns(pl.col("arrives") + HOUR)
            return pl.concat([frame, repeated]).sample(fraction=1, shuffle=True, seed=week)
        return frame

    def _bot_rows(self, week: int, chance: np.random.Generator) -> list[tuple[Any, ...]]:
        items = sorted(self.world.tastes)
        each = round(self.options.size * self.world.busiest)
        times = self.begin + week * WEEK + chance.integers(0, WEEK, (_BOTS, each))
        rows: list[tuple[Any, ...]] = []
        for bot, times_of_bot in enumerate(times):
            for time in times_of_bot:
                item = items[int(chance.integers(len(items)))]
                rows.append((f"machine-{bot}", item, "view", int(time), None, None))
        return rows

    def catalogue(self, week: int) -> pl.DataFrame | None:
        """The catalogue of a week; None while it is the champion's."""
        is_newer = self.options.shift == "new-catalogue" and self.is_shifted(week)
        return self.world.items if is_newer else None


def place_in_week(user: str, life: Life, begin: int, chance: np.random.Generator) -> Visit:
    """The life as a visit, begun at a random time from which it ends within the week at `begin`."""
    start = begin + int(chance.integers(1, WEEK - (life[-1].time or 0)))
    return Visit(user, tuple(replace(event, time=start + (event.time or 0)) for event in life))
