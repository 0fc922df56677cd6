"""The page of a validation: what was found in a data set. It shows what there is, whatever is
missing, since the page of a failed run is the one that is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasteloop.files import as_mapping, as_rows, atomic_write, read_json
from tasteloop.intervals import finite
from validation.markup.environment import render

RECORD_FILE, PAGE_FILE = "validation.json", "validation.html"


@dataclass(frozen=True)
class _Rule:
    """A check as the page shows it."""

    table: str
    about: str
    found: str
    passed: bool
    word: str
    tone: str


def write_page_beside(directory: Path) -> Path:
    """Write validation.html beside the validation.json of `validate`."""
    return write_data_report(read_json(directory / RECORD_FILE), directory / PAGE_FILE)


def write_data_report(validation: Mapping[str, Any], out: Path) -> Path:
    """Write the page of a validation.json to the HTML file `out`, and return it."""
    record = as_mapping(validation)
    rules = [_rule(check) for check in as_rows(record.get("checks"))]
    stats, passed = as_mapping(record.get("stats")), bool(record.get("passed"))
    errors, warnings = (finite(record.get(key)) or 0 for key in ("errors", "warnings"))
    failed = [rule for rule in rules if not rule.passed]
    names = list(dict.fromkeys(rule.table for rule in rules))
    tables = []
    for name in names:
        mine = [rule for rule in rules if rule.table == name]
        held = sum(rule.passed for rule in mine)
        tables.append({"name": name, "note": f"{held} of {len(mine)} hold", "checks": mine})
    text = render(
        "dataset.html",
        headline="The data is accepted" if passed else "The data is refused",
        tone="bad" if not passed else "warn" if warnings else "good",
        passed=passed,
        count=len(rules),
        names=names,
        errors=f"{errors:.0f}",
        warnings=f"{warnings:.0f}",
        counts=[(key, stats.get(key)) for key in ("events", "users", "items", "reviews")],
        failed=sorted(failed, key=lambda rule: rule.word != "error"),
        tables=tables,
    )
    atomic_write(out, text)
    return out


def _rule(check: Mapping[str, Any]) -> _Rule:
    passed = bool(check.get("passed"))
    word, tone = ("holds", "good") if passed else ("warning", "warn")
    if not passed and check.get("severity") == "error":
        word, tone = "error", "bad"
    found = str(check.get("found") or "–")
    return _Rule(str(check.get("table")), str(check.get("about")), found, passed, word, tone)
