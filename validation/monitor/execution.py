"""Doing what was decided, once, whatever happens in between.

The first decision on a key stands, and its retraining is one run, named after the key, which is
carried on until it ends. A monitor that was killed leaves in the ledger what it had begun, and the
next one carries that on.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence

from validation.monitor.decision import Decision, Evidence, key_of
from validation.monitor.entries import (
    DecidedEntry,
    RetrainingResult,
    RolledBackEntry,
    RollingBackEntry,
)
from validation.monitor.history import ROLLBACK, HistoryEntry
from validation.monitor.ledger import Lease, LeaseLost, Ledger

log = logging.getLogger(__name__)

ATTEMPTS = 3  # a retraining that ends so often without a word is given up

Train = Callable[[str, Decision], RetrainingResult]
"""From a run's id and the decision to what came of it. It may be called again with the same id
after a kill, and then carries on or answers what it answered before."""

Alert = Callable[[Decision], None]
"""Calls a human. It may be called again with the same decision after a kill, so receivers tell
repetitions by the key. One that fails holds nothing up: it is left to the next `resume`."""

Restore = Callable[[RollingBackEntry], RolledBackEntry]
"""Makes the champion before live again; called again after a kill."""


def run_of(key: str) -> str:
    """The id of the one retraining that a key can have."""
    return f"retrain-{key[:16]}"


def carry_out(
    lease: Lease, decision: Decision, now: int, train: Train, alert: Alert
) -> HistoryEntry:
    """Record a decision and do what it says, once, whatever happens in between.

    Args:
        now: the time on which the decision rests, µs.

    Returns:
        the decision's entry of the history: where this evidence was decided on before, that
        decision's.

    Raises:
        LeaseLost: another monitor has taken over, and carries on.
    """
    lease.ledger.append(
        lease, "decided", decision.key, {**decision.model_dump(mode="json"), "now": now}
    )
    return _complete(lease, decision.key, train, alert)


def resume(lease: Lease, train: Train, alert: Alert) -> list[HistoryEntry]:
    """Carry on what a monitor that was killed had begun."""
    open_keys = [
        entry.key
        for entry in lease.ledger.history()
        if (entry.outcome == "retrain" and entry.ended is None)
        or (entry.outcome == "alert-human" and not entry.alerted)
    ]
    return [_complete(lease, key, train, alert) for key in open_keys]


def _complete(lease: Lease, key: str, train: Train, alert: Alert) -> HistoryEntry:
    entry = _entry(lease.ledger, key)
    assert isinstance(entry.cause, DecidedEntry), "a rollback is carried on by resume_rollbacks"
    decision = entry.cause.decision
    if decision.outcome == "alert-human" and not entry.alerted:
        try:
            alert(decision)
        except Exception:
            log.warning(
                "the alert on %s did not get through; the next pass sends it again",
                key[:12],
                exc_info=True,
            )
        else:
            lease.ledger.append(lease, "alerted", key, {})
    if decision.outcome == "retrain" and entry.ended is None:
        result = _retrain(lease, decision, entry.attempts, train)
        body = {"run": run_of(key), **result.json_facts()}
        lease.ledger.append(lease, "finished", key, body)
    return _entry(lease.ledger, key)


def _retrain(lease: Lease, decision: Decision, attempts: int, train: Train) -> RetrainingResult:
    """Begin the retraining of a decision once more, unless it was begun too often."""
    run = run_of(decision.key)
    if attempts >= ATTEMPTS:
        reason = f"{attempts} attempts ended without a word (out of memory?); see the run's log"
        return RetrainingResult(result="failed", reason=reason)
    started = {"run": run, "attempt": attempts + 1}
    lease.ledger.append(lease, "started", decision.key, started, once=False)
    try:
        return train(run, decision)
    except LeaseLost:
        raise
    # a retraining that fails is an outcome; one that is interrupted is carried on
    except Exception as error:
        log.exception("the retraining %s failed", run)
        return RetrainingResult(result="failed", reason=f"{type(error).__name__}: {error}")


def roll_back(
    lease: Lease, newest: Evidence, to: str, reasons: Sequence[str], restore: Restore
) -> HistoryEntry:
    """Record that the champion of the newest evidence is worse than the one before it (`to`, a
    digest), and restore that one.

    Returns:
        the rollback's entry of the history.
    """
    key = hashlib.sha256(
        f"rollback\0{key_of(newest.reference, newest.window, newest.champion)}".encode()
    ).hexdigest()
    begun = RollingBackEntry(
        window=newest.window,
        champion=newest.champion,
        to=to,
        reasons=tuple(reasons),
        evidence=(newest.id,),
    )
    lease.ledger.append(lease, "rolling-back", key, begun.json_facts())
    return _complete_rollback(lease, key, restore)


def resume_rollbacks(lease: Lease, restore: Restore) -> list[HistoryEntry]:
    """Carry on what a monitor that was killed had begun."""
    open_keys = [
        entry.key
        for entry in lease.ledger.history()
        if entry.outcome == ROLLBACK and entry.ended is None
    ]
    return [_complete_rollback(lease, key, restore) for key in open_keys]


def _complete_rollback(lease: Lease, key: str, restore: Restore) -> HistoryEntry:
    entry = _entry(lease.ledger, key)
    if entry.ended is None:
        assert isinstance(entry.cause, RollingBackEntry), "a decision is carried on by resume"
        lease.ledger.append(lease, "rolled-back", key, restore(entry.cause).json_facts())
    return _entry(lease.ledger, key)


def _entry(ledger: Ledger, key: str) -> HistoryEntry:
    return next(entry for entry in ledger.history() if entry.key == key)
