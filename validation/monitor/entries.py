"""What the records of the ledger say, by their kind.

A record's body is parsed once, into the entry of its kind. Entries of what came of something may
hold more than is named here: whoever trained or rolled back adds what people want to know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel

from validation.monitor.decision import Decision, Evidence

Kind = Literal[
    "window", "decided", "alerted", "started", "finished", "rolling-back", "rolled-back", "pruned"
]


WindowEntry = Evidence  # a window was looked at


class DecidedEntry(Decision, frozen=True, extra="forbid"):
    """Something was decided; `now`: the time on which it rests, µs since 1970 UTC."""

    now: int


class AlertedEntry(BaseModel, frozen=True, extra="allow"):
    """A human was told."""


class StartedEntry(BaseModel, frozen=True, extra="allow"):
    """A retraining was begun, for the `attempt`th time."""

    run: str
    attempt: int


class FinishedEntry(BaseModel, frozen=True, extra="allow"):
    """A retraining ended."""

    result: str
    reason: str = ""


class RollingBackEntry(BaseModel, frozen=True, extra="allow"):
    """The champion is worse than the one before it, `to`; both are digests."""

    window: str
    champion: str
    to: str
    reasons: tuple[str, ...]
    evidence: tuple[str, ...]


class RolledBackEntry(BaseModel, frozen=True, extra="allow"):
    """The champion before it was made live again, or not."""

    result: str
    reason: str = ""


class PrunedEntry(BaseModel, frozen=True, extra="allow"):
    """What the retention removed."""

    removed: tuple[str, ...] = ()


Entry = (
    WindowEntry
    | DecidedEntry
    | AlertedEntry
    | StartedEntry
    | FinishedEntry
    | RollingBackEntry
    | RolledBackEntry
    | PrunedEntry
)

_BY_KIND: dict[Kind, type[Entry]] = {
    "window": WindowEntry,
    "decided": DecidedEntry,
    "alerted": AlertedEntry,
    "started": StartedEntry,
    "finished": FinishedEntry,
    "rolling-back": RollingBackEntry,
    "rolled-back": RolledBackEntry,
    "pruned": PrunedEntry,
}


def parse_entry(kind: Kind, body: Mapping[str, Any]) -> Entry:
    """The entry of a record.

    Raises:
        pydantic.ValidationError: the body is not one of its kind.

    >>> parse_entry("finished", {"run": "retrain-1", "result": "promoted"}).result
    'promoted'
    """
    return _BY_KIND[kind].model_validate(body)
