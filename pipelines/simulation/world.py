"""The world of a replay: the lives of ml-100k's users in three parts, and the films."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from tasteloop.behaviour.events import ITEM, KIND, TEXT, TIME, USER, VALUE, Event
from tasteloop.behaviour.items import LABELS, RELEASED, TITLE
from validation.monitor.windows import HOUR, WEEK

if TYPE_CHECKING:
    import polars as pl

Life = tuple[Event, ...]
"""The events of one user in order; times are counted from the first of them, µs."""

LONGEST_BREAK = 3 * HOUR  # longer breaks are shortened to it, so that lives fit into a week
NEW_FROM = date(1997, 1, 1)  # films released from then on do not exist at first
MIN_EVENTS = 5  # of a life, not counting those on films that do not exist at first
PARTS = {"champion": 0.5, "visitors": 0.38, "judges": 0.12}  # shares of the lives
_POPULARITY_BANDS = 3  # within a band films exchange their places when tastes change
_SEASONAL_LABELS = frozenset({"Drama", "Romance"})  # who watches these comes in other weeks


@dataclass(frozen=True)
class World:
    """Lives by part, and the films."""

    lives: Mapping[str, Sequence[Life]]
    items: pl.DataFrame

    @classmethod
    def of(cls, events: pl.DataFrame, items: pl.DataFrame) -> World:
        """The world of a data set as ingest writes it.

        Which part a life is in depends on its events, not on its pseudonym.
        """
        new = set(items.filter(items[RELEASED] >= NEW_FROM)[ITEM])
        columns = (KIND, ITEM, TIME, VALUE, TEXT)
        parts: dict[str, list[tuple[str, Life]]] = {part: [] for part in PARTS}
        for rows in events.sort(USER, TIME, ITEM).partition_by(USER, maintain_order=True):
            acts = [Event(*row) for row in rows.select(columns).rows()]
            if sum(event.item not in new for event in acts) < MIN_EVENTS:
                continue
            name = hashlib.blake2b(repr(acts).encode(), digest_size=8).hexdigest()
            part = _part_at(int(name, 16) / 16**16)
            parts[part].append((name, _compress(acts)))
        lives = {part: [life for _, life in sorted(named)] for part, named in parts.items()}
        return cls(lives, items)

    @cached_property
    def new(self) -> frozenset[str]:
        """The films that do not exist at first."""
        return frozenset(self.items.filter(self.items[RELEASED] >= NEW_FROM)[ITEM])

    @cached_property
    def titles(self) -> dict[str, str]:
        return dict(self.items.select(ITEM, TITLE).rows())

    @cached_property
    def labels(self) -> dict[str, list[str]]:
        return dict(self.items.select(ITEM, LABELS).rows())

    def without_new_films(self, life: Life) -> Life:
        """The events of a life but those on films that do not exist at first."""
        return tuple(event for event in life if event.item not in self.new)

    @cached_property
    def busiest(self) -> int:
        """How many events the longest of the champion's lives has."""
        return max(len(life) for life in self.lives["champion"])

    @cached_property
    def tastes(self) -> dict[str, str]:
        """Which film is watched in the place of which when tastes change.

        Films are divided into bands of popularity. Within a band the most watched film is exchanged
        for the one whose labels are the rarest, the second for the second rarest, and so on. The
        exchange is one to one, so that what is liked together stays together.
        """
        # 1. how often each film is watched, and how much each label weighs in what is watched
        views: dict[str, int] = dict.fromkeys(sorted(set(self.items[ITEM]) - self.new), 0)
        weights: dict[str, float] = {}
        for life in self.lives["champion"]:
            for event in self.without_new_films(life):
                if not event.item:
                    continue
                views[event.item] += 1
                labels = self.labels[event.item]
                for label in labels:
                    weights[label] = weights.get(label, 0.0) + 1 / len(labels)

        def commonness(item: str) -> float:
            labels = self.labels[item]
            return sum(weights.get(label, 0.0) for label in labels) / max(1, len(labels))

        # 2. films by popularity, and in each band beside them the same films by rarity
        by_popularity = sorted(views, key=lambda item: (-views[item], item))
        exchange: dict[str, str] = {}
        for band in np.array_split(np.array(by_popularity), _POPULARITY_BANDS):
            films = [str(film) for film in band]
            exchange.update(zip(films, sorted(films, key=commonness), strict=True))
        return exchange

    def leaning(self, life: Life) -> float:
        """Share of a life's films that are dramas or romances: what the seasonal swing goes by."""
        films = [event.item for event in self.without_new_films(life) if event.item]
        return float(np.mean([bool(_SEASONAL_LABELS & set(self.labels[film])) for film in films]))


def _part_at(u: float) -> str:
    """The part that a number in [0, 1) falls into."""
    for part, share in PARTS.items():
        if u < share:
            return part
        u -= share
    return part


def _compress(events: Sequence[Event]) -> Life:
    """The events with breaks shortened, and all times if need be, so that they fit into a week."""
    life: list[Event] = []
    now, before = 0, events[0].time
    for event in events:
        assert event.time is not None and before is not None
        now, before = now + min(event.time - before, LONGEST_BREAK), event.time
        life.append(replace(event, time=now))
    longest = WEEK - HOUR
    if now >= longest:
        life = [replace(event, time=int((event.time or 0) * longest / now)) for event in life]
    return tuple(life)
