"""A pass of the monitor, and an entry of its ledger, in a few lines for a console."""

from __future__ import annotations

from pipelines.loop.contracts import PassReport
from validation.markup.formats import minute
from validation.monitor.history import HistoryEntry


def summarise_pass(report: PassReport) -> str:
    """One pass in one line."""
    count = len(report.windows)
    parts = [
        f"version {report.champion or 'none'}",
        "1 new window" if count == 1 else f"{count} new windows",
    ]
    parts += [
        f"carried on: {entry.outcome} {entry.result or ''}".rstrip() for entry in report.resumed
    ]
    if report.rollback is not None:
        reasons = "; ".join(report.rollback.reasons)
        parts.append(f"rollback: {report.rollback.result}: {reasons}")
    elif report.decision is not None:
        result = f" ({report.decision.result})" if report.decision.result else ""
        parts.append(f"{report.outcome}{result}: {'; '.join(report.decision.reasons)}")
    else:
        parts.append(report.note)
    return ", ".join(parts)


def summarise_entry(entry: HistoryEntry) -> str:
    """An entry of the ledger's history in a few lines."""
    start, _, end = (entry.window or "/").partition("/")
    span = f"{minute(int(start))} to {minute(int(end))}" if start and end else "unknown window"
    lines = [f"{entry.number:>5}  {entry.outcome:<12} {span}  {entry.key[:12]}"]
    lines += [f"       {reason}" for reason in entry.reasons]
    if entry.to is not None:
        lines.append(f"       to {entry.to[:12]}: {entry.result or 'under way'}")
    elif entry.attempts or entry.result:
        result = entry.result or f"under way, attempt {entry.attempts}"
        reason = "" if entry.reason is None else f" ({entry.reason})"
        lines.append(f"       run {entry.run or '?'}: {result}{reason}")
    if entry.alerted:
        lines.append("       a human was told")
    return "\n".join(lines)
