"""Doing what was decided, once, whatever happens in between.

The first decision on a key stands, and its retraining is one run, named after the key, which is
carried on until it ends. A monitor that was killed leaves in the ledger what it had begun, and the
next one carries that on.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from validation.monitor.decision import Decision, Evidence, key_of
from validation.monitor.ledger import Lease, LeaseLost, Ledger

log = logging.getLogger(__name__)

ATTEMPTS = 3  # a retraining that ends so often without a word is given up


def run_of(key: str) -> str:
    """The id of the one retraining that a key can have."""
    return f"retrain-{key[:16]}"


def carry_out(
    lease: Lease,
    decision: Decision,
    now: int,
    train: Callable[[str, Decision], dict[str, Any]],
    alert: Callable[[Decision], None],
) -> dict[str, Any]:
    """Record a decision and do what it says, once, whatever happens in between.

    Args:
        now: the time on which the decision rests, µs.
        train: from the run's id and the decision to {"result", ...}. It may be called again with
            the same id after a kill, and then carries on or answers what it answered before.
        alert: may be called again with the same decision after a kill, so receivers tell
            repetitions by the key. One that fails holds nothing up: it is left to the next
            `resume`.

    Returns:
        the decision's entry of `Ledger.history`: where this evidence was decided on before, that
        decision's.

    Raises:
        LeaseLost: another monitor has taken over, and carries on.
    """
    lease.ledger.append(
        lease, "decided", decision.key, {**decision.model_dump(mode="json"), "now": now}
    )
    return _complete(lease, decision.key, train, alert)


def resume(
    lease: Lease,
    train: Callable[[str, Decision], dict[str, Any]],
    alert: Callable[[Decision], None],
) -> list[dict[str, Any]]:
    """Carry on what a monitor that was killed had begun."""
    return [
        _complete(lease, entry["key"], train, alert)
        for entry in lease.ledger.history()
        if (entry["outcome"] == "retrain" and entry["result"] is None)
        or (entry["outcome"] == "alert-human" and not entry["alerted"])
    ]


def _complete(
    lease: Lease,
    key: str,
    train: Callable[[str, Decision], dict[str, Any]],
    alert: Callable[[Decision], None],
) -> dict[str, Any]:
    entry = _entry(lease.ledger, key)
    decision = Decision.model_validate({name: entry[name] for name in Decision.model_fields})
    if decision.outcome == "alert-human" and not entry["alerted"]:
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
    if decision.outcome == "retrain" and entry["result"] is None:
        run = run_of(key)
        if entry["attempts"] >= ATTEMPTS:
            reason = f"{entry['attempts']} attempts ended without a word (out of memory?); see the run's log"
            result: dict[str, Any] = {"result": "failed", "reason": reason}
        else:
            lease.ledger.append(
                lease, "started", key, {"run": run, "attempt": entry["attempts"] + 1}, once=False
            )
            try:
                result = train(run, decision)
            except LeaseLost:
                raise
            # a retraining that fails is an outcome; one that is interrupted is carried on
            except Exception as error:
                log.exception("the retraining %s failed", run)
                result = {"result": "failed", "reason": f"{type(error).__name__}: {error}"}
        lease.ledger.append(lease, "finished", key, {"run": run, **result})
    return _entry(lease.ledger, key)


def roll_back(
    lease: Lease,
    newest: Evidence,
    to: str,
    reasons: Sequence[str],
    act: Callable[[dict[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """Record that the champion of the newest evidence is worse than the one before it (`to`, a
    digest), and act.

    Args:
        act: from the entry, with `champion` and `to`, to {"result", ...}; called again after a
            kill.

    Returns:
        the entry of `Ledger.history`.
    """
    key = hashlib.sha256(
        f"rollback\0{key_of(newest.reference, newest.window, newest.champion)}".encode()
    ).hexdigest()
    body = {
        "window": newest.window,
        "champion": newest.champion,
        "to": to,
        "reasons": list(reasons),
    }
    lease.ledger.append(lease, "rolling-back", key, {**body, "evidence": [newest.id]})
    return _rolled_back(lease, key, act)


def resume_rollbacks(
    lease: Lease, act: Callable[[dict[str, Any]], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Carry on what a monitor that was killed had begun."""
    return [
        _rolled_back(lease, entry["key"], act)
        for entry in lease.ledger.history()
        if entry["outcome"] == "rollback" and entry["result"] is None
    ]


def _rolled_back(
    lease: Lease, key: str, act: Callable[[dict[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    entry = _entry(lease.ledger, key)
    if entry["result"] is None:
        lease.ledger.append(lease, "rolled-back", key, act(entry))
    return _entry(lease.ledger, key)


def _entry(ledger: Ledger, key: str) -> dict[str, Any]:
    return next(entry for entry in ledger.history() if entry["key"] == key)
