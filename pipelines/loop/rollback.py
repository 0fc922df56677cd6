"""The automatic rollback: where the live champion is worse than the one before it, the one before
is made live again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelines.loop.answers import error_share
from serving.release import promotion, registry
from validation.monitor.decision import Evidence
from validation.monitor.entries import RolledBackEntry, RollingBackEntry
from validation.monitor.execution import roll_back
from validation.monitor.history import HistoryEntry
from validation.monitor.ledger import Lease
from validation.monitor.rollback import ERRORS, RollbackSettings, Window, windows_of, worse


def roll_back_if_worse(
    lease: Lease, rules: RollbackSettings, evidence: Sequence[Evidence], newest: Evidence
) -> HistoryEntry | None:
    """Compare the live champion with the one before it, and go back where it is worse.

    Args:
        evidence: all that the ledger has, of both.
        newest: the newest evidence of the live champion.

    Returns:
        the rollback's entry of the history; None where there is nothing to go back to, or no
        reason.
    """
    before = registry.previous() if rules.automatic else None
    if before is None or before[1] == newest.champion:
        return None
    live = registry.pointer()
    live_version = live[0] if live else ""
    previous_version, previous_digest = before
    reasons = worse(
        _add_errors(windows_of(evidence, newest.champion), live_version),
        _add_errors(windows_of(evidence, previous_digest), previous_version),
        rules,
    )
    if not reasons:
        return None
    return roll_back(lease, newest, previous_digest, reasons, restore_previous_champion)


def restore_previous_champion(entry: RollingBackEntry) -> RolledBackEntry:
    """Make the champion before live again; what came of it, for the ledger. A monitor that was
    killed may have done it already.
    """
    try:
        live = promotion.rollback(expected=entry.champion)
    except promotion.ChampionMoved as moved:
        pointer = registry.pointer()
        if pointer is None or pointer[1] != entry.to:
            return RolledBackEntry(result="moved", reason=str(moved))
        return RolledBackEntry(result="rolled back", version=pointer[0])
    return RolledBackEntry(result="rolled back", version=live.version)


def _add_errors(windows: Mapping[str, Window], version: str) -> list[Window]:
    """The windows, each with the share of the version's requests that failed, where the journal
    tells it.
    """
    measured: list[Window] = []
    for name, measures in windows.items():
        start, end = map(int, name.split("/"))
        errors = error_share(start, end, version)
        measured.append(measures if errors is None else {**measures, ERRORS: errors})
    return measured
