"""The record of a validation: one check a rule, and the result of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tasteloop.files import as_mapping, as_rows, read_json
from tasteloop.intervals import whole

VALIDATION_FILE = "validation.json"

Severity = Literal["error", "warning"]
LEVELS: tuple[Severity, ...] = ("error", "warning")


@dataclass(frozen=True)
class DataCheck:
    """One rule on one table.

    Attributes:
        rule: its name within the table.
        about: what should hold, as a sentence.
        observed: what came instead, or in place of rows a mean, a count or a type.
        unexpected: how many rows break the rule; None for a rule on a column as one.
        rows: how many rows the rule looks at.
        samples: up to five values that break it, shortened; users are pseudonyms, free text is
            never shown.
        expectation: the type of the expectation in Great Expectations.
    """

    table: str
    rule: str
    about: str
    severity: Severity
    passed: bool
    observed: str | None = None
    unexpected: int | None = None
    rows: int | None = None
    samples: tuple[str, ...] = ()
    expectation: str | None = None

    def __str__(self) -> str:
        observation = self.observation
        return f"{self.table}: {self.about}" + (f"; {observation}" if observation else "")

    @property
    def observation(self) -> str:
        """What the check saw, in words; validation.json has it as `found`."""
        if self.unexpected is not None and self.rows:
            if not self.unexpected:
                return f"all {self.rows:,} rows"
            share = self.unexpected / self.rows
            text = f"{self.unexpected:,} of {self.rows:,} rows ({share:.2%}) break it"
            return text + (f", such as {', '.join(self.samples)}" if self.samples else "")
        return f"found {self.observed}" if self.observed is not None else ""


@dataclass(frozen=True)
class ValidationResult:
    """Whether the data may be trained on, why, and how many checks failed at each severity."""

    passed: bool
    reason: str
    errors: int
    warnings: int


@dataclass(frozen=True)
class RecordedCheck:
    """A check as validation.json holds it; `found` is what was observed, in words."""

    table: str
    about: str
    severity: Severity
    passed: bool
    found: str

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> RecordedCheck:
        return cls(
            table=str(raw.get("table")),
            about=str(raw.get("about")),
            severity="error" if raw.get("severity") == "error" else "warning",
            passed=bool(raw.get("passed")),
            found=str(raw.get("found") or "–"),
        )


@dataclass(frozen=True)
class JoinedTexts:
    """What became of a file of texts about items, as ingest recorded it (`ingest.item_text`).

    Attributes:
        file: its name.
        counts: by the names of `tasteloop.datasets.item_text.JoinCounts`, without those that cannot
            be read.
    """

    file: str
    counts: Mapping[str, int]

    @classmethod
    def parse(cls, raw: object) -> JoinedTexts | None:
        """None where there was no such file."""
        value = as_mapping(raw)
        counts = {str(name): whole(count) for name, count in value.items()}
        known = {name: count for name, count in counts.items() if count is not None}
        return cls(str(value.get("file") or ""), known) if known else None


@dataclass(frozen=True)
class ValidationRecord:
    """What pages read of validation.json; what is missing or of another shape becomes empty.

    Attributes:
        errors, warnings: how many checks failed, by their severity.
        counts: rows by table, and how many users there are.
        item_text: what became of the texts about items; None where there were none.
    """

    passed: bool = False
    errors: int = 0
    warnings: int = 0
    checks: tuple[RecordedCheck, ...] = ()
    counts: Mapping[str, int | None] = field(default_factory=dict)
    item_text: JoinedTexts | None = None

    @classmethod
    def read(cls, path: Path) -> ValidationRecord:
        """Read validation.json.

        Raises:
            TasteloopError: no such file, or one that is not JSON.
        """
        return cls.parse(read_json(path))

    @classmethod
    def parse(cls, raw: object) -> ValidationRecord:
        """Read what validation.json holds; it never raises, whatever comes."""
        value = as_mapping(raw)
        stats = as_mapping(value.get("stats"))
        return cls(
            passed=bool(value.get("passed")),
            errors=whole(value.get("errors")) or 0,
            warnings=whole(value.get("warnings")) or 0,
            checks=tuple(RecordedCheck.parse(row) for row in as_rows(value.get("checks"))),
            counts={
                name: whole(stats.get(name)) for name in ("events", "users", "items", "reviews")
            },
            item_text=JoinedTexts.parse(value.get("item_text")),
        )
