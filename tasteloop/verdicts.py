"""The gate's verdict on a candidate and the outcome of its rehearsal, as they are written and read
back.

The gate decides by an evaluation, the rehearsal by the answers of a real server. The registry keeps
both beside the evaluation, and pages show them. `parse` reads leniently, but in doubt the answer is
no: only what says that it passed has passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from tasteloop.files import as_list, as_mapping, as_rows, read_json
from tasteloop.intervals import finite, whole

VERDICT_FILE, REHEARSAL_FILE = "verdict.json", "rehearsal.json"

Outcome = Literal["pass", "warn", "fail", "skip"]
"""Of a check; `warn` is a bound that is not met and only reported."""


@dataclass(frozen=True)
class GateCheck:
    """One rule applied: its name, its outcome and the sentence that says why."""

    name: str
    outcome: Outcome
    reason: str

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> GateCheck:
        """Read a check; an outcome that is not known counts as a failure."""
        known: dict[object, Outcome] = {outcome: outcome for outcome in get_args(Outcome)}
        outcome = raw.get("outcome")
        return cls(
            name=str(raw.get("name", "")),
            outcome=known.get(outcome, "fail") if isinstance(outcome, str) else "fail",
            reason=str(raw.get("reason", "")),
        )


@dataclass(frozen=True)
class Verdict:
    """The gate's answer: verdict.json.

    Attributes:
        passed: at least one rule was applied and none failed.
        reasons: the sentence of every check, failures first.
        checks: every rule in the settings' order.
        unchanged: the candidate is the champion, or answers exactly like it: there is nothing to
            promote.

    >>> Verdict.parse({"passed": True, "reasons": ["accuracy is 0.8"]}).promote
    True
    >>> Verdict.parse({"passed": "yes"}).passed
    False
    """

    passed: bool
    reasons: tuple[str, ...] = ()
    checks: tuple[GateCheck, ...] = ()
    unchanged: bool = False

    @classmethod
    def read(cls, path: Path) -> Verdict:
        """Read verdict.json.

        Raises:
            TasteloopError: no such file, or one that is not JSON.
        """
        return cls.parse(read_json(path))

    @classmethod
    def parse(cls, raw: object) -> Verdict:
        """Read what verdict.json holds; it never raises, whatever comes."""
        value = as_mapping(raw)
        return cls(
            passed=value.get("passed") is True,
            reasons=tuple(map(str, as_list(value.get("reasons")))),
            checks=tuple(GateCheck.parse(row) for row in as_rows(value.get("checks"))),
            unchanged=bool(value.get("unchanged")),
        )

    def json(self) -> dict[str, Any]:
        """What verdict.json holds."""
        return {
            "passed": self.passed,
            "reasons": list(self.reasons),
            "checks": [asdict(check) for check in self.checks],
            "unchanged": self.unchanged,
        }

    @property
    def promote(self) -> bool:
        """Whether the candidate may take the champion's place, and is another model."""
        return self.passed and not self.unchanged

    def count(self, outcome: Outcome) -> int:
        """How many checks have an outcome."""
        return sum(check.outcome == outcome for check in self.checks)

    @property
    def failures(self) -> tuple[str, ...]:
        """The sentences of the checks that failed."""
        return tuple(check.reason for check in self.checks if check.outcome == "fail")


@dataclass(frozen=True)
class Rehearsal:
    """The outcome of a rehearsal: rehearsal.json.

    Attributes:
        digest: of the bundle that was served; empty where it was damaged.
        questions: how many were asked.
        seconds: the server's time from start to ready.
    """

    passed: bool
    reason: str
    digest: str = ""
    questions: int = 0
    seconds: float = 0.0

    @classmethod
    def read(cls, path: Path) -> Rehearsal:
        """Read rehearsal.json.

        Raises:
            TasteloopError: no such file, or one that is not JSON.
        """
        return cls.parse(read_json(path))

    @classmethod
    def parse(cls, raw: object) -> Rehearsal:
        """Read what rehearsal.json holds; it never raises, whatever comes."""
        value = as_mapping(raw)
        return cls(
            passed=value.get("passed") is True,
            reason=str(value.get("reason", "")),
            digest=str(value.get("digest") or ""),
            questions=whole(value.get("questions")) or 0,
            seconds=finite(value.get("seconds")) or 0.0,
        )

    def json(self) -> dict[str, Any]:
        """What rehearsal.json holds."""
        return asdict(self)
