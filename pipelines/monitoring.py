"""The monitoring loop on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

LEDGER = "monitor"  # a directory below the home


def tell(entry: Mapping[str, Any]) -> str:
    """An entry of the ledger's history in a few lines."""
    start, _, end = (entry["window"] or "/").partition("/")
    span = f"{_moment(start)} to {_moment(end)}" if start and end else "unknown window"
    lines = [f"{entry['number']:>5}  {entry['outcome']:<12} {span}  {entry['key'][:12]}"]
    lines += [f"       {reason}" for reason in entry["reasons"]]
    if entry["attempts"] or entry["result"]:
        came = entry["result"] or f"under way, attempt {entry['attempts']}"
        lines.append(
            f"       run {entry.get('run', '?')}: {came}" + (f" ({entry['reason']})" if "reason" in entry else "")
        )
    if entry["alerted"]:
        lines.append("       a human was told")
    return "\n".join(lines)


def _moment(micros: str) -> str:
    return datetime.fromtimestamp(int(micros) / 1e6, UTC).strftime("%Y-%m-%d %H:%M")
