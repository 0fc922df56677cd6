"""Verdicts are read as they were written, and in doubt they say no."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasteloop.files import write_json
from tasteloop.verdicts import GateCheck, Rehearsal, Verdict

VERDICT = Verdict(
    passed=False,
    reasons=("accuracy is 0.7, below its floor of 0.75 (n = 900)", "no sentiment"),
    checks=(
        GateCheck("skipped rule", "skip", "no sentiment"),
        GateCheck("floor accuracy", "fail", "accuracy is 0.7, below its floor of 0.75 (n = 900)"),
    ),
    unchanged=True,
)
REHEARSAL = Rehearsal(True, "19 golden answers served as recorded", "f00d", 19, 4.25)


@pytest.mark.parametrize("record", [VERDICT, Verdict(passed=True), REHEARSAL], ids=repr)
def test_what_is_written_is_read_back(tmp_path: Path, record: Verdict | Rehearsal) -> None:
    write_json(tmp_path / "record.json", record.json())

    assert type(record).read(tmp_path / "record.json") == record


def test_files_hold_what_they_always_held() -> None:
    assert list(VERDICT.json()) == ["passed", "reasons", "checks", "unchanged"]
    assert VERDICT.json()["checks"][0] == {
        "name": "skipped rule",
        "outcome": "skip",
        "reason": "no sentiment",
    }
    assert REHEARSAL.json() == {
        "passed": True,
        "reason": "19 golden answers served as recorded",
        "digest": "f00d",
        "questions": 19,
        "seconds": 4.25,
    }


@pytest.mark.parametrize("raw", [None, [], "yes", {}, {"passed": "true"}, {"passed": 1}])
def test_only_what_says_that_it_passed_has_passed(raw: Any) -> None:
    assert not Verdict.parse(raw).passed
    assert not Verdict.parse(raw).promote
    assert not Rehearsal.parse(raw).passed


def test_an_outcome_that_is_not_known_counts_as_a_failure() -> None:
    verdict = Verdict.parse(
        {"passed": True, "checks": [{"outcome": "maybe", "reason": "who knows"}, 7]}
    )

    assert verdict.failures == ("who knows",)
    assert (verdict.count("pass"), verdict.count("fail"), verdict.count("skip")) == (0, 1, 0)


def test_what_is_unchanged_is_not_promoted() -> None:
    assert Verdict(passed=True).promote
    assert not Verdict(passed=True, unchanged=True).promote
