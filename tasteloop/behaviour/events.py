"""The behaviour table: its columns, one event, and what counts as a positive one.

| column | type | meaning |
|---|---|---|
| user | str | pseudonym |
| item | str or null | null for a search |
| kind | str | one of `tasteloop.behaviour.kinds.KINDS` |
| time | int64 | microseconds since 1970, UTC: engines differ in timestamps, not in integers |
| value | float32 or null | in [0, 1]: the source's declared scale, normalised |
| text | str or null | query, review |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as _shown
from typing import Any

import narwhals as nw

from tasteloop.behaviour.kinds import KINDS, ROUNDING
from tasteloop.behaviour.times import parse_time
from tasteloop.errors import TasteloopError

USER = "user"
ITEM = "item"
KIND = "kind"
TIME = "time"
VALUE = "value"
TEXT = "text"

EVENTS_SCHEMA = nw.Schema(
    {
        USER: nw.String(),
        ITEM: nw.String(),
        KIND: nw.String(),
        TIME: nw.Int64(),
        VALUE: nw.Float32(),
        TEXT: nw.String(),
    }
)


def positive(threshold: float = 0.7) -> nw.Expr:
    """True where an event says that its user wants its item; never null.

    The declaration of its kind says whether it does (`Kind.is_positive`). An event without an item
    never does. On a scale of 1 to 5, a threshold of 0.7 means 4 and 5.
    """
    kind, value = nw.col(KIND), nw.col(VALUE)
    words: dict[str, list[str]] = {"ignored": [], "corrects": [], "decides": []}
    for declared in KINDS.values():
        if declared.strength > 0:
            words[declared.value].append(declared.word)

    is_high = (value >= threshold - ROUNDING).fill_null(False)
    says_so = (
        kind.is_in(words["ignored"])
        | (kind.is_in(words["decides"]) & is_high)
        | (kind.is_in(words["corrects"]) & (value.is_null() | is_high))
    )
    return ~nw.col(ITEM).is_null() & says_so.fill_null(False)


@dataclass(frozen=True)
class Event:
    """One act of one user; `time` in µs since 1970 UTC, `value` in [0, 1]."""

    kind: str
    item: str | None = None
    time: int | None = None
    value: float | None = None
    text: str | None = None

    def positive(self, threshold: float = 0.7) -> bool:
        """The same rule as the module's `positive`, for one event.

        >>> Event("rate", "50", value=0.75).positive()
        True
        """
        kind = KINDS.get(self.kind)
        if self.item is None or kind is None:
            return False
        return kind.is_positive(self.value, threshold)

    def opinion(self, positive: float = 0.7, negative: float = 0.4) -> float:
        """What the event says of its item, from -1 to 1 (`Kind.opinion`); 0 of an unknown kind."""
        kind = KINDS.get(self.kind)
        if self.item is None or kind is None:
            return 0.0
        return kind.opinion(self.value, positive, negative)

    @property
    def is_act(self) -> bool:
        """Whether the user did something; False for what was merely shown."""
        kind = KINDS.get(self.kind)
        return kind is None or kind.is_act

    @property
    def consumes(self) -> bool:
        """Whether the item is then known to the user, and not recommended again."""
        kind = KINDS.get(self.kind)
        return kind is None or kind.consumes

    def json(self) -> dict[str, Any]:
        """The event as `parse` reads it, without the keys that are None."""
        return {key: value for key, value in vars(self).items() if value is not None}

    @classmethod
    def parse(cls, event: Any, where: str) -> Event:
        """Check one JSON event.

        Args:
            event: {"kind", "item", "time", "value", "text"}; all but `kind` may be absent or null.
                `time` is an ISO 8601 string (UTC where it names no zone) or an integer in µs.
            where: what the error calls this event, such as `instances[0].events[3]`.

        Raises:
            TasteloopError: a key, kind, type or value that is not allowed.
        """
        if not isinstance(event, Mapping):
            raise TasteloopError(
                f'{where}: an event is an object, not {_shown(event)}; example: {{"kind": "click"}}'
            )
        if unknown := [key for key in event if key not in cls.__dataclass_fields__]:
            raise TasteloopError(
                f"{where}: unknown key {_shown(unknown[0])}; known: {', '.join(cls.__dataclass_fields__)}"
            )
        kind = event.get(KIND)
        if not isinstance(kind, str) or kind not in KINDS:
            raise TasteloopError(
                f"{where}: unknown event kind {_shown(kind)}; known: {', '.join(KINDS)}"
            )
        item, text, value = event.get(ITEM), event.get(TEXT), event.get(VALUE)
        for name, words in ((ITEM, item), (TEXT, text)):
            if not (words is None or (isinstance(words, str) and words.strip())):
                raise TasteloopError(
                    f"{where}: {name} is a string that is not blank, or null, not {_shown(words)}"
                )
        if value is not None:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and 0 <= value <= 1):  # NaN is not in [0, 1] either
                raise TasteloopError(
                    f"{where}: value is a number from 0 to 1 (normalise it by your scale), not {_shown(value)}"
                )
        return cls(
            kind,
            item,
            parse_time(event.get(TIME), where),
            None if value is None else float(value),
            text,
        )
