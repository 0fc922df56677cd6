"""The world of a replay: the lives of ml-100k's users in three parts, and the films."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from tasteloop.behaviour.events import ITEM, KIND, TIME, USER, Event
from tasteloop.behaviour.items import LABELS, RELEASED, TITLE
from validation.monitor.windows import HOUR, WEEK

if TYPE_CHECKING:
    import polars as pl

Life = tuple[Event, ...]  # times from its beginning, µs

BREAK = 3 * HOUR  # longer ones are shortened to it
NEW = date(1997, 1, 1)  # films released from then on do not exist at first
LEAST = 5  # events of a life
PARTS = {"champion": 0.5, "visitors": 0.38, "judges": 0.12}  # shares of the lives
_BANDS = 3  # of popularity, within which tastes change places


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
