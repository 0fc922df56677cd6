"""The record of a validation: one check a rule, and the result of all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]
LEVELS: tuple[Severity, ...] = ("error", "warning")


@dataclass(frozen=True)
class DataCheck:
    """One rule on one table.

    Attributes:
        rule: its name within the table; about: what should hold, as a sentence.
        observed: what was found instead, or instead of rows (a mean, a count, a type).
        unexpected, rows: how many rows break the rule, of how many that it looks at; None for a
            rule on a whole column.
        samples: up to five values that break it, shortened; users are pseudonyms, free text is
            never shown.
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
        found = self.found
        return f"{self.table}: {self.about}" + (f"; {found}" if found else "")

    @property
    def found(self) -> str:
        if self.unexpected is not None and self.rows:
            if not self.unexpected:
                return f"all {self.rows:,} rows"
            share = self.unexpected / self.rows
            text = f"{self.unexpected:,} of {self.rows:,} rows ({share:.2%}) break it"
            return text + (f", such as {', '.join(self.samples)}" if self.samples else "")
        return f"found {self.observed}" if self.observed is not None else ""


@dataclass(frozen=True)
class ValidationResult:
    passed: bool
    reason: str
    errors: int
    warnings: int
