"""The ledger as metrics, in a file that Prometheus' textfile collector reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from serving.journal.segments import damaged
from tasteloop.home import Home
from validation.monitor.decision import Evidence, Outcome, Result
from validation.monitor.history import ROLLBACK, HistoryEntry
from validation.monitor.ledger import Ledger


def write_metrics() -> Path:
    """Write what the ledger and the journal of this home say, in place of the last metrics; where
    they are.
    """
    home = Home.current()
    ledger = Ledger(home.monitor)
    registry = CollectorRegistry()
    last_pass = _gauge(
        registry, "last_pass_timestamp_seconds", "When the monitor last came through"
    )
    last_pass.set_to_current_time()
    _add_decisions(registry, ledger.history())
    if home.journal.is_dir():
        _add_journal(registry, home.journal)
    evidence = ledger.evidence()
    if evidence:
        _add_window(registry, max(evidence, key=lambda e: e.end))
    write_to_textfile(str(home.monitor_metrics), registry)  # writes another file and renames it
    return home.monitor_metrics


def _gauge(registry: CollectorRegistry, name: str, about: str, *labels: str) -> Gauge:
    return Gauge(f"tasteloop_monitor_{name}", about, labels, registry=registry)


def _add_decisions(registry: CollectorRegistry, history: Sequence[HistoryEntry]) -> None:
    """The newest decision, and counts of what came of all of them."""
    decisions = [entry for entry in history if entry.outcome != ROLLBACK]
    rollbacks = [entry for entry in history if entry.outcome == ROLLBACK]

    newest = _gauge(registry, "decision", "1 for the newest decision's outcome", "outcome")
    for outcome in get_args(Outcome):
        newest.labels(outcome).set(bool(decisions) and decisions[-1].outcome == outcome)

    retrainings = _gauge(
        registry, "retrainings", "Retrainings so far, by what came of them", "result"
    )
    results = [entry.result for entry in decisions if entry.outcome == "retrain"]
    for result in get_args(Result):
        retrainings.labels(result).set(results.count(result))

    waiting = [e for e in decisions if e.outcome == "alert-human" and not e.alerted]
    _gauge(registry, "alerts_waiting", "Alerts that no webhook has taken yet").set(len(waiting))

    finished = [entry for entry in rollbacks if entry.result == "rolled back"]
    _gauge(registry, "rollbacks", "Automatic rollbacks so far").set(len(finished))


def _add_journal(registry: CollectorRegistry, journal: Path) -> None:
    """What could not be read of the journal."""
    segments = damaged(journal)
    _gauge(
        registry,
        "journal_damaged_segments",
        "Segments of the journal that could not be read and were set aside",
    ).set(len(segments))
    rows = sum(segment["rows"] or 0 for segment in segments)
    _gauge(registry, "journal_lost_rows", "Rows of those segments, as far as they still tell").set(
        rows
    )


def _add_window(registry: CollectorRegistry, window: Evidence) -> None:
    """What the newest closed window says."""
    _gauge(registry, "window_end_timestamp_seconds", "Where the newest closed window ends").set(
        window.end / 1e6
    )
    _gauge(registry, "window_problems", "Checks that the newest window's data failed").set(
        len(window.problems)
    )
    effect = _gauge(
        registry, "effect", "How far the newest window lies from the reference", "measure"
    )
    quality = _gauge(registry, "quality", "Mature quality in the newest window", "measure", "bound")
    for finding in window.findings:
        if finding.effect is not None:
            effect.labels(finding.measure).set(finding.effect)
        for bound in ("value", "low", "high"):
            number = getattr(finding, bound)
            if number is not None:
                quality.labels(finding.measure, bound).set(number)
