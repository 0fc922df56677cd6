"""The page of a validation: what was found in a data set. It shows what there is, whatever is
missing, since the page of a failed run is the one that is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasteloop.files import atomic_write
from validation.data.checks import VALIDATION_FILE, JoinedTexts, RecordedCheck, ValidationRecord
from validation.markup.environment import render

PAGE_FILE = "validation.html"

_OF_TEXTS = {
    "rows": "Rows of the file with a text",
    "by_id": "joined by an item's id",
    "by_title": "joined by title and year",
    "repeated": "of an item that an earlier row gave a text",
    "ambiguous": "of a title and year that several items have",
    "unmatched": "of no item",
    "items": "Items",
    "items_with_text": "with a text",
}
"""What the page calls the counts of `tasteloop.datasets.item_text.JoinCounts`."""


@dataclass(frozen=True)
class _Rule:
    """A check as the page shows it: with a word for its outcome, and a tone."""

    table: str
    about: str
    found: str
    passed: bool
    word: str
    tone: str

    @classmethod
    def of(cls, check: RecordedCheck) -> _Rule:
        if check.passed:
            word, tone = "holds", "good"
        elif check.severity == "error":
            word, tone = "error", "bad"
        else:
            word, tone = "warning", "warn"
        return cls(check.table, check.about, check.found, check.passed, word, tone)


def _texts(joined: JoinedTexts | None) -> dict[str, Any] | None:
    """The section on texts about items."""
    if joined is None:
        return None
    rows = [(name, joined.counts[key]) for key, name in _OF_TEXTS.items() if key in joined.counts]
    return {"file": joined.file, "rows": rows}


def write_page_beside(directory: Path) -> Path:
    """Write validation.html beside the validation.json of `validate`."""
    record = ValidationRecord.read(directory / VALIDATION_FILE)
    return write_data_report(record, directory / PAGE_FILE)


def write_data_report(record: ValidationRecord, out: Path) -> Path:
    """Write the page of a validation to the HTML file `out`, and return it."""
    rules = [_Rule.of(check) for check in record.checks]

    # 1. the rules by table
    names = list(dict.fromkeys(rule.table for rule in rules))
    tables = []
    for name in names:
        of_table = [rule for rule in rules if rule.table == name]
        held = sum(rule.passed for rule in of_table)
        tables.append({"name": name, "note": f"{held} of {len(of_table)} hold", "checks": of_table})

    # 2. those that do not hold, errors first
    failed = [rule for rule in rules if not rule.passed]
    failed.sort(key=lambda rule: rule.word != "error")

    text = render(
        "dataset.html",
        headline="The data is accepted" if record.passed else "The data is refused",
        tone="bad" if not record.passed else "warn" if record.warnings else "good",
        passed=record.passed,
        count=len(rules),
        names=names,
        errors=f"{record.errors:.0f}",
        warnings=f"{record.warnings:.0f}",
        counts=list(record.counts.items()),
        failed=failed,
        texts=_texts(record.item_text),
        tables=tables,
    )
    atomic_write(out, text)
    return out
