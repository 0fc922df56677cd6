"""A model whose language is dead is refused where the profiles' reported bounds are floors."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.settings import load_settings
from tasteloop import metrics
from tasteloop.evaluation.record import Evaluation
from tasteloop.evaluation.understanding.cases import Material
from tasteloop.evaluation.understanding.measure import make_cases, understand, units_of
from tasteloop.evaluation.understanding.settings import UnderstandingSettings
from tasteloop.verdicts import Verdict
from tests.support import readers, samples
from validation.gate import gates
from validation.gate.gates import Bounds, GateSettings


def decide(evaluation: dict[str, Any], rules: GateSettings) -> Verdict:
    """The verdict on what evaluation.json holds."""
    return gates.decide(Evaluation.parse(evaluation), rules)


def evaluation_of(**fault: bool) -> dict[str, Any]:
    """The sample's evaluation with what a model of rules shows, which has no sentiment."""
    catalogue = readers.make_catalogue()
    histories = readers.make_histories(catalogue)
    material = Material.of(catalogue, readers.LABELS, histories, [], 0)
    cases = make_cases(material, UnderstandingSettings(cases=600))
    shown = understand(readers.RuleReader(catalogue, **fault), material, cases)
    evaluation = samples.evaluation()
    for name, measure in shown.measures().items():
        interval = metrics.interval(measure, units_of(cases, name))
        evaluation["metrics"][name] = interval.json()
    return evaluation


def profile_bounds(profile: str) -> Bounds:
    """The profile's reported bounds of what the model of rules can be asked."""
    floors = dict(load_settings(profile).gate.reported.floors)
    del floors["understanding.statement_sure"]
    return Bounds(floors=floors)


@pytest.mark.parametrize("profile", ["local", "cluster"])
def test_dead_language_is_refused_by_the_profiles_bounds_as_floors(profile: str) -> None:
    floors = profile_bounds(profile).floors
    rules = GateSettings(floors=floors)

    assert decide(evaluation_of(), rules).passed
    verdict = decide(evaluation_of(reads=False), rules)

    assert not verdict.passed
    assert any("understanding.wish is" in reason for reason in verdict.reasons)


@pytest.mark.parametrize("profile", ["local", "cluster"])
def test_dead_language_is_reported_and_does_not_refuse_by_the_profile_as_it_is(
    profile: str,
) -> None:
    rules = GateSettings(**{**dict(samples.RULES), "reported": profile_bounds(profile)})

    verdict = decide(evaluation_of(reads=False), rules)

    assert verdict.passed
    unmet = [check.name for check in verdict.checks if check.outcome == "warn"]
    assert "floor understanding.wish, reported" in unmet


def test_reported_bounds_alone_let_nothing_pass() -> None:
    rules = GateSettings(reported=Bounds(floors={"understanding.title": 0.0}), not_worse=())

    verdict = decide(evaluation_of(), rules)

    assert not verdict.passed
    assert "nothing was checked" in verdict.reasons[0]


def test_a_kind_of_question_can_be_held_against_the_champions() -> None:
    rules = GateSettings(not_worse=("understanding.wish",))
    worse = samples.worsened(samples.evaluation(), "understanding.wish", 0.6)

    assert decide(samples.evaluation(), rules).passed
    assert not decide(worse, rules).passed


def test_a_question_that_the_data_do_not_allow_is_skipped_and_an_unknown_one_is_missing() -> None:
    evaluation = evaluation_of()
    evaluation["understanding"] = [
        {"kind": "statement_sure", "question": "?", "failures": [], "asked": False}
    ]
    skipped = GateSettings(
        floors={"understanding.wish": 0.9, "understanding.statement_sure": 0.9}, not_worse=()
    )
    missing = GateSettings(floors={"understanding.wish": 0.9, "understanding.whish": 0.9})

    assert decide(evaluation, skipped).passed
    assert not decide(evaluation, missing).passed
