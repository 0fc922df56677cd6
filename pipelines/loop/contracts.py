"""What a pass of the monitor takes and gives: events and answers in, a retraining out, a report.

A simulation puts its own functions of these types in place of the files, the journal and the
training pipeline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.settings import Settings
from validation.monitor.decision import Decision
from validation.monitor.entries import RetrainingResult
from validation.monitor.history import HistoryEntry

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Incoming:
    """The behaviour that has come so far.

    Attributes:
        events: of the events contract, in any order, repetitions and late ones included.
        items: today's catalogue (the items contract); None: the champion's is still valid.
    """

    events: pl.DataFrame
    items: pl.DataFrame | None = None


Source = Callable[[int], Incoming]
"""From a time (µs) to the behaviour of that time or later. It may give more."""

Answers = Callable[[int, int, str], "pl.DataFrame"]
"""From a span (µs, the end excluded) and a version to its rows of the journal, as
`serving.journal.reader.read_journal` gives them."""


@dataclass(frozen=True)
class Retraining:
    """A retraining that was decided.

    Attributes:
        run: its id; after a kill the same one comes again, and is carried on.
        champion: digest of the champion whose drift it answers.
        until: end of the newest window, µs: no event from then on is read.
    """

    run: str
    decision: Decision
    champion: str
    until: int
    source: Source
    settings: Settings


Retrain = Callable[[Retraining], RetrainingResult]
"""Trains, gates and promotes; what came of it is for the ledger. After a kill it is called again
with the same `run`, and must promote once."""


@dataclass(frozen=True)
class PassReport:
    """What one pass of the monitor looked at and did.

    Attributes:
        champion: version that was live when the pass began; None where there is none.
        windows: names of the windows that it looked at for the first time.
        decision: the ledger's entry on the newest window; None where no window has closed since
            the reference.
        resumed: entries of what another pass had begun and this one carried on.
        rollback: the ledger's entry of an automatic rollback.
        note: why there is no decision, in words.
    """

    champion: str | None
    windows: tuple[str, ...] = ()
    decision: HistoryEntry | None = None
    resumed: tuple[HistoryEntry, ...] = ()
    rollback: HistoryEntry | None = None
    note: str = ""

    @property
    def outcome(self) -> str | None:
        """healthy, watch, retrain, alert-human; None without a decision."""
        return None if self.decision is None else self.decision.outcome

    def json(self) -> dict[str, Any]:
        """As `tasteloop monitor --json` prints it."""
        return {
            "outcome": self.outcome,
            "champion": self.champion,
            "windows": list(self.windows),
            "decision": self.decision.json() if self.decision else None,
            "resumed": [entry.json() for entry in self.resumed],
            "rollback": self.rollback.json() if self.rollback else None,
            "note": self.note,
        }
