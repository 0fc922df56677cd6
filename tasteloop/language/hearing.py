"""What was understood of the words that an answer rests on, in counts and labels: the journal keeps
it, so that what people ask for is watched without their texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from tasteloop.behaviour.events import Event
from tasteloop.journal import (
    ASKS,
    FAVOURABLE,
    NEUTRAL,
    REFUSALS,
    REFUSED,
    SEARCHES,
    SURE,
    UNDERSTOOD,
    UNFAVOURABLE,
    UNMET,
    WANTED,
)
from tasteloop.language.reader import Reading
from tasteloop.language.wishes import is_saying


@dataclass(frozen=True)
class Gist:
    """The gist of one text about no item.

    Attributes:
        wanted, refused: labels that are meant.
        names_title: whether a title is wanted; refuses: whether a label or a title is refused.
        asks, unmet: as `Reading` has them.
    """

    wanted: tuple[str, ...]
    refused: tuple[str, ...]
    names_title: bool
    refuses: bool
    asks: int
    unmet: float

    @classmethod
    def of(cls, reading: Reading, labels: Sequence[str]) -> Gist:
        """A reading over K labels."""
        wanted, refused = (
            tuple(label for label, p in zip(labels, found, strict=True) if p >= SURE)
            for found in (reading.wanted, reading.refused)
        )
        names_title, refuses_title = (
            max(found.values(), default=0.0) >= SURE
            for found in (reading.titles, reading.refused_titles)
        )
        refuses = bool(refused) or refuses_title
        return cls(wanted, refused, names_title, refuses, reading.asks, reading.unmet)

    @property
    def is_understood(self) -> bool:
        """Whether a label or a title was understood, as wanted or as refused."""
        return bool(self.wanted) or self.names_title or self.refuses


@dataclass
class Hearing:
    """What a computation understood, by text.

    Attributes:
        readings: of texts about no item, with the labels that they are read over. Their gists are
            made when they are asked for, which is after the answer.
        stance: of texts about items whether they are favourable (None: neither for nor against).
    """

    readings: dict[str, tuple[Reading, Sequence[str]]] = field(default_factory=dict)
    stance: dict[str, float | None] = field(default_factory=dict)

    def of(self, history: Sequence[Event]) -> dict[str, int | float | list[str]]:
        """What the words of one history came to: the fields of `tasteloop.journal.HEARD`."""
        gists = [
            Gist.of(*self.readings[event.text])
            for event in history
            if is_saying(event) and event.text in self.readings
        ]
        stances = [
            self.stance[event.text]
            for event in history
            if event.item and event.value is None and event.text in self.stance
        ]
        return {
            SEARCHES: len(gists),
            UNDERSTOOD: sum(each.is_understood for each in gists),
            ASKS: sum(each.asks for each in gists),
            UNMET: sum(each.unmet for each in gists),
            REFUSALS: sum(each.refuses for each in gists),
            WANTED: sorted({label for each in gists for label in each.wanted}),
            REFUSED: sorted({label for each in gists for label in each.refused}),
            FAVOURABLE: sum(value is not None and value >= SURE for value in stances),
            NEUTRAL: sum(value is None for value in stances),
            UNFAVOURABLE: sum(value is not None and value < SURE for value in stances),
        }


_hearing: ContextVar[Hearing | None] = ContextVar("hearing", default=None)


@contextmanager
def listening() -> Iterator[Hearing]:
    """Collects what the block's computations understand; nothing is read again for it."""
    hearing = Hearing()
    token = _hearing.set(hearing)
    try:
        yield hearing
    finally:
        _hearing.reset(token)


def note_readings(readings: Mapping[str, Reading], labels: Sequence[str]) -> None:
    """Tell whoever listens what texts say, over K labels."""
    hearing = _hearing.get()
    if hearing is not None:
        hearing.readings |= {text: (reading, labels) for text, reading in readings.items()}


def note_stances(stances: Mapping[str, float | None]) -> None:
    """Tell whoever listens how texts about items are meant."""
    hearing = _hearing.get()
    if hearing is not None:
        hearing.stance |= stances
