"""docs/extending.md, "A gate rule": what one field and one function in gates.py bring about."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tasteloop.evaluation.record import Evaluation
from tasteloop.intervals import UnsoundInterval
from tests.support import samples
from tests.support.pages import Reader
from validation.gate import gates
from validation.gate.gates import Gate, GateSettings, decide
from validation.pages.evaluation import write_report


class WiderSettings(GateSettings, frozen=True):
    """The toy rule's field: how wide an interval may be."""

    widest: dict[str, float] = {}


def narrow_intervals(gate: Gate) -> None:
    """An interval that is wider than this says too little."""
    assert isinstance(gate.settings, WiderSettings)
    for metric, widest in gate.settings.widest.items():
        name = f"width {metric}"
        try:
            measure = gate.evaluation.metric(metric).require(metric)
        except UnsoundInterval as unsound:
            gate.add(name, False, str(unsound))
            continue
        width = measure.high - measure.low
        gate.add(name, width <= widest, f"{metric} is known to {width:.4f}, allowed {widest:g}")


@pytest.mark.parametrize(("widest", "passed"), [(0.05, True), (0.01, False)])
def test_a_rule_is_in_the_verdict_and_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, widest: float, passed: bool
) -> None:
    monkeypatch.setattr(gates, "RULES", (*gates.RULES, narrow_intervals))
    settings = WiderSettings(**dict(samples.RULES), widest={"interests.micro_f1": widest})

    evaluation = Evaluation.parse(samples.evaluation())

    verdict = decide(evaluation, settings)

    assert verdict.passed is passed
    sentence = f"interests.micro_f1 is known to 0.0240, allowed {widest:g}"
    assert sentence in verdict.reasons
    page = write_report(evaluation, verdict, tmp_path / "report.html")
    assert sentence in "".join(Reader(page.read_text()).texts)


def test_a_rule_never_passes_what_it_cannot_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "RULES", (*gates.RULES, narrow_intervals))
    settings = WiderSettings(**dict(samples.RULES), widest={"interests.micro_f1": 1.0})
    raw = samples.evaluation()
    raw["metrics"]["interests.micro_f1"]["low"] = math.nan

    verdict = decide(Evaluation.parse(raw), settings)

    failed = [check.name for check in verdict.checks if check.outcome == "fail"]
    assert "width interests.micro_f1" in failed
