"""The history: each decision and each rollback of the ledger, with what came of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from validation.monitor.entries import (
    DecidedEntry,
    FinishedEntry,
    Record,
    RolledBackEntry,
    RollingBackEntry,
    WindowEntry,
)

ROLLBACK = "rollback"  # the outcome of an entry that is no decision


@dataclass(frozen=True)
class HistoryEntry:
    """A decision or a rollback, and what came of it.

    Attributes:
        number, time: of the record that began it; µs since 1970 UTC.
        window, champion: what was decided on, `start/end` and a digest; None where the ledger does
            not hold that window.
        cause: what was decided, or why the champion is taken back.
        alerted: whether the alert has reached its receiver.
        attempts: how often its retraining was begun.
        ended: what came of its retraining or rollback; None before that, and where there is none.
    """

    number: int
    time: int
    key: str
    window: str | None
    champion: str | None
    cause: DecidedEntry | RollingBackEntry
    alerted: bool = False
    attempts: int = 0
    ended: FinishedEntry | RolledBackEntry | None = None

    @property
    def outcome(self) -> str:
        """healthy, watch, retrain, alert-human or rollback."""
        return self.cause.outcome if isinstance(self.cause, DecidedEntry) else ROLLBACK

    @property
    def reasons(self) -> tuple[str, ...]:
        return self.cause.reasons

    @property
    def evidence(self) -> tuple[str, ...]:
        """Ids of the evidence that it rests on."""
        return self.cause.evidence

    @property
    def to(self) -> str | None:
        """The digest that a rollback makes live again."""
        return self.cause.to if isinstance(self.cause, RollingBackEntry) else None

    @property
    def result(self) -> str | None:
        return None if self.ended is None else self.ended.result

    @property
    def reason(self) -> str | None:
        """Why it ended so."""
        return None if self.ended is None else self.ended.reason

    @property
    def version(self) -> str | None:
        """The version that came of it."""
        return None if self.ended is None else self.ended.version

    @property
    def run(self) -> str | None:
        """The id of its retraining, once that has ended."""
        return self.ended.run if isinstance(self.ended, FinishedEntry) else None

    @property
    def training_run(self) -> str | None:
        """The run of the training pipeline."""
        return self.ended.training_run if isinstance(self.ended, FinishedEntry) else None

    def json(self) -> dict[str, Any]:
        """As `tasteloop history --json` prints it: the fields of what came of it stand beside those
        of the decision.
        """
        facts: dict[str, Any] = {"number": self.number, "time": self.time}
        if isinstance(self.cause, DecidedEntry):
            facts |= {"window": self.window, "champion": self.champion}
        else:
            facts |= {"outcome": ROLLBACK, "key": self.key}
        facts |= self.cause.json_facts()
        facts |= {"alerted": self.alerted, "attempts": self.attempts, "result": None}
        if self.ended is not None:
            facts |= self.ended.json_facts()
        return facts


def collect_history(records: Iterable[Record]) -> list[HistoryEntry]:
    """One entry a decision and a rollback, oldest first.

    Raises:
        TasteloopError: a record is not one of its kind.
    """
    entries: dict[str, HistoryEntry] = {}
    windows: dict[str, WindowEntry] = {}
    for record in records:
        if record.kind == "pruned":
            continue
        entry, key = record.entry, record.key
        begun = entries.get(key)
        if isinstance(entry, WindowEntry):
            windows[key] = entry
        elif isinstance(entry, DecidedEntry):
            looked_at = windows.get(key)
            entries[key] = HistoryEntry(
                record.number,
                record.time,
                key,
                looked_at.window if looked_at else None,
                looked_at.champion if looked_at else None,
                entry,
            )
        elif isinstance(entry, RollingBackEntry):
            entries[key] = HistoryEntry(
                record.number, record.time, key, entry.window, entry.champion, entry
            )
        elif begun is None:
            continue
        elif record.kind == "alerted":
            entries[key] = replace(begun, alerted=True)
        elif record.kind == "started":
            entries[key] = replace(begun, attempts=begun.attempts + 1)
        elif isinstance(entry, FinishedEntry | RolledBackEntry):
            entries[key] = replace(begun, ended=entry)
    return list(entries.values())
