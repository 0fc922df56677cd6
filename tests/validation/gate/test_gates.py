"""The gate never says yes to what it cannot judge."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tasteloop.evaluation.record import Evaluation
from tasteloop.verdicts import Verdict
from tests.support import samples
from tests.support.samples import RULES
from validation.gate import gates
from validation.gate.gates import AtLeast, Beat, Bounds, GateSettings


def decide(evaluation: dict[str, Any], rules: GateSettings) -> Verdict:
    """The verdict on what evaluation.json holds."""
    return gates.decide(Evaluation.parse(evaluation), rules)


def failures(verdict: Verdict) -> list[str]:
    return [check.name for check in verdict.checks if check.outcome == "fail"]


def without_sentiment() -> dict[str, Any]:
    found = samples.evaluation()
    found["tasks"].remove("sentiment")
    places = [found["metrics"], found["champion"]["metrics"]]
    places += [*found["baselines"].values(), *found["differences"].values()]
    for place in places:
        for metric in [m for m in place if m.startswith("sentiment.")]:
            del place[metric]
    return found


def test_a_better_candidate_passes_with_a_reason_for_every_check() -> None:
    verdict = decide(samples.evaluation(), RULES)
    assert verdict.passed and verdict.promote and not verdict.unchanged
    assert len(verdict.reasons) == len(verdict.checks) == 13
    assert "sentiment.accuracy is 0.8551, above its floor of 0.8 (n = 2,562)" in verdict.reasons
    assert (
        "recommend.ndcg@10 beats recent_popularity: difference +0.0192, interval +0.0112 to +0.0272 "
        "(n = 2,050), must lie above 0" in verdict.reasons
    )


def test_a_worse_candidate_fails_and_the_failures_come_first() -> None:
    verdict = decide(samples.worsened(samples.evaluation(), "recommend.ndcg@10", 0.03), RULES)
    assert not verdict.passed
    assert failures(verdict) == [
        "beats recent_popularity recommend.ndcg@10",
        "not worse recommend.ndcg@10",
    ]
    assert "may be worse than the champion's by more than 0.01" in verdict.reasons[1]


def test_non_inferiority_is_decided_by_the_lower_bound() -> None:
    found = samples.evaluation()  # interval of the difference: -0.0008 +- 0.006
    assert decide(found, RULES).passed
    assert failures(decide(found, RULES.model_copy(update={"epsilon": 0.006}))) == [
        "not worse sentiment.accuracy"
    ]


def test_less_calibration_error_is_better_than_the_champion() -> None:
    found = samples.evaluation()
    rules = GateSettings(not_worse=("interests.ece",), epsilon=0.01)
    found["champion"]["metrics"]["interests.ece"] = samples.measure(0.0414, 0.004, 2050)
    found["differences"]["champion"]["interests.ece"] = samples.measure(-0.02, 0.005, 2050)
    assert decide(found, rules).passed
    found["champion"]["metrics"]["interests.ece"] = samples.measure(0.0014, 0.004, 2050)
    found["differences"]["champion"]["interests.ece"] = samples.measure(0.02, 0.005, 2050)
    assert not decide(found, rules).passed


def test_the_champion_itself_is_nothing_to_promote() -> None:
    found = samples.evaluation()
    found["champion"]["digest"] = found["lineage"]["bundle"]
    verdict = decide(found, RULES)
    assert verdict.unchanged and not verdict.promote
    assert any("nothing to promote" in reason for reason in verdict.reasons)
    assert not any(check.name.startswith("not worse") for check in verdict.checks)


def test_another_bundle_with_identical_answers_is_nothing_to_promote() -> None:
    found = samples.evaluation()
    for metric, measure in found["metrics"].items():
        found["champion"]["metrics"][metric] = dict(measure)
        found["differences"]["champion"][metric] = samples.measure(0.0, 0.0, measure["n"])
    verdict = decide(found, RULES)
    assert verdict.unchanged and not verdict.promote


def test_the_first_model_passes_on_its_own_merits_only() -> None:
    found = samples.evaluation()
    found["champion"] = None
    del found["differences"]["champion"]
    verdict = decide(found, RULES)
    assert verdict.passed and "no champion: first model, nothing to compare with" in verdict.reasons
    assert not decide(samples.worsened(found, "interests.micro_f1", 0.2), RULES).passed
    assert not decide(found, GateSettings(not_worse=("interests.micro_f1",))).passed


def test_a_baseline_compared_with_itself_is_beaten_by_nobody() -> None:
    found = samples.evaluation()
    found["baselines"]["majority"]["interests.micro_f1"] = dict(
        found["metrics"]["interests.micro_f1"]
    )
    found["differences"]["majority"]["interests.micro_f1"] = samples.measure(0.0, 0.0, 2050)
    verdict = decide(
        found, GateSettings(beats=(Beat(metric="interests.micro_f1", baseline="majority"),))
    )
    assert not verdict.passed and "compared with itself?" in verdict.reasons[0]
    rules = GateSettings(beats=(Beat(metric="interests.micro_f1", baseline="champion"),))
    assert not decide(samples.evaluation(), rules).passed


def test_a_task_that_is_absent_by_design_is_skipped_and_listed() -> None:
    verdict = decide(without_sentiment(), RULES)
    skipped = [check.name for check in verdict.checks if check.outcome == "skip"]
    assert verdict.passed and skipped == [
        "floor sentiment.accuracy",
        "not worse sentiment.accuracy",
    ]
    assert not decide(without_sentiment(), RULES.model_copy(update={"optional_tasks": ()})).passed
    unsaid = without_sentiment()
    del unsaid["tasks"]
    assert not decide(unsaid, RULES).passed


def test_a_task_that_the_champion_answers_is_not_dropped_silently() -> None:
    found = without_sentiment()
    found["champion"]["tasks"] = ["interests", "recommend", "sentiment"]
    assert failures(decide(found, RULES)) == ["champion tasks"]
    found = without_sentiment()
    found["champion"]["metrics"]["sentiment.accuracy"] = samples.measure(0.85, 0.01, 2562)
    assert failures(decide(found, RULES)) == ["not worse sentiment.accuracy"]


def without_interests() -> dict[str, Any]:
    """Of data with titles and reviews alone."""
    found = samples.evaluation()
    found["tasks"].remove("interests")
    places = [found["metrics"], found["champion"]["metrics"]]
    places += [*found["baselines"].values(), *found["differences"].values()]
    for place in places:
        for metric in [m for m in place if m.startswith("interests.")]:
            del place[metric]
    found["slices"] = [row for row in found["slices"] if not row["metric"].startswith("interests.")]
    return found


def test_data_without_labels_pass_without_interests_and_every_rule_of_them_is_listed_as_skipped() -> (
    None
):
    verdict = decide(without_interests(), RULES)

    assert verdict.passed
    skipped = [check.name for check in verdict.checks if check.outcome == "skip"]
    assert skipped == [
        "floor interests.micro_f1",
        "ceiling interests.ece",
        "beats own_frequencies interests.micro_f1",
        "not worse interests.micro_f1",
    ]


def test_forgetting_is_not_asked_of_a_task_that_there_is_not() -> None:
    found = without_interests()
    measures = {"metrics": {"recommend.ndcg@10": found["metrics"]["recommend.ndcg@10"]}}
    differences = {
        "champion": {"recommend.ndcg@10": found["differences"]["champion"]["recommend.ndcg@10"]}
    }
    baselines = {
        "champion": {"recommend.ndcg@10": found["champion"]["metrics"]["recommend.ndcg@10"]}
    }
    found["old"] = {**measures, "baselines": baselines, "differences": differences}

    verdict = decide(found, RULES.model_copy(update={"forgetting": 0.1}))

    assert verdict.passed
    forgetting = {
        check.name: check.outcome for check in verdict.checks if check.name.startswith("forgetting")
    }
    assert forgetting == {
        "forgetting interests.micro_f1": "skip",
        "forgetting recommend.ndcg@10": "pass",
    }


SOURCES = GateSettings(
    floors={"sentiment.accuracy": 0.5},
    sources={
        "ml-100k": Bounds(floors={"recommend.ndcg@10": 0.9}),
        "rotten-tomatoes": Bounds(
            floors={"sentiment.accuracy": 0.9}, ceilings={"sentiment.ece": 0.001}
        ),
    },
)


@pytest.mark.parametrize(
    ("source", "reviews_source", "failed"),
    [
        ("ml-100k", None, ["floor recommend.ndcg@10 of ml-100k"]),
        (
            "mine/shop.yaml",
            "rotten-tomatoes",
            [
                "floor sentiment.accuracy of rotten-tomatoes",
                "ceiling sentiment.ece of rotten-tomatoes",
            ],
        ),
        ("mine/ml-100k.yaml", "mine/reviews.csv", []),
        # it cannot say, so nothing passes
        (None, None, ["bounds of ml-100k", "bounds of rotten-tomatoes"]),
        # what is empty names no source, whatever its type
        (0, False, ["bounds of ml-100k", "bounds of rotten-tomatoes"]),
        ([], {}, ["bounds of ml-100k", "bounds of rotten-tomatoes"]),
    ],
)
def test_bounds_of_a_source_are_asked_of_its_data_alone(
    source: Any, reviews_source: Any, failed: list[str]
) -> None:
    found = samples.evaluation()
    found["lineage"] |= {"source": source, "reviews_source": reviews_source}

    verdict = decide(found, SOURCES)

    assert failures(verdict) == failed


def test_bounds_of_one_of_several_sources_of_reviews_are_asked_of_its_own_reviews() -> None:
    found = samples.evaluation()
    found["lineage"] |= {"source": "mine.yaml", "reviews_source": ["rotten-tomatoes", "/my/r.csv"]}
    measured = {"value": 0.99, "low": 0.98, "high": 1.0, "n": 90}
    metrics = ("sentiment.accuracy", "sentiment.ece")
    part = [{"slice": "reviews=rotten-tomatoes", "metric": name, **measured} for name in metrics]

    without = decide(found, SOURCES)
    found["slices"] = [*found.get("slices", []), *part]
    beside = decide(found, SOURCES)

    assert failures(without) == [
        "floor sentiment.accuracy of rotten-tomatoes",
        "ceiling sentiment.ece of rotten-tomatoes",
    ]
    assert failures(beside) == ["ceiling sentiment.ece of rotten-tomatoes"], (
        "0.99 is no small error"
    )


def test_bounds_that_are_not_asked_say_so_and_do_not_say_where_a_file_lies() -> None:
    found = samples.evaluation()
    found["lineage"] |= {"source": "/home/ann/shop.yaml", "reviews_source": None}

    reasons = decide(found, SOURCES).reasons

    assert "bounds of ml-100k: not asked, the data are shop.yaml" in reasons


@pytest.mark.parametrize(
    ("share", "mine", "reason"),
    [
        (
            0.8,
            0.4,
            "interests.precision is 0.4000, at least 0.4000 (0.8 of own_frequencies, 0.5000; n = 2,050)",
        ),
        (
            0.8,
            0.3999,
            "interests.precision is 0.3999, below 0.4000 (0.8 of own_frequencies, 0.5000; n = 2,050)",
        ),
        (
            1.2,
            0.5999,
            "interests.precision is 0.5999, below 0.6000 (1.2 of own_frequencies, 0.5000; n = 2,050)",
        ),
    ],
)
def test_a_share_of_a_baseline_has_to_be_reached(share: float, mine: float, reason: str) -> None:
    found = samples.evaluation()
    found["metrics"]["interests.precision"] = samples.measure(mine, 0.012, 2050)
    found["baselines"]["own_frequencies"]["interests.precision"] = samples.measure(0.5, 0.01, 2050)
    found["differences"]["own_frequencies"]["interests.precision"] = samples.measure(
        mine - 0.5, 0.01, 2050
    )
    least = AtLeast(metric="interests.precision", baseline="own_frequencies", share=share)

    verdict = decide(found, GateSettings(at_least=(least,)))

    assert verdict.reasons[0] == reason
    assert verdict.passed is ("at least" in reason)


def test_a_share_of_nothing_is_not_reached_by_nothing() -> None:
    found = samples.evaluation()
    zero = samples.measure(0.0, 0.0, 2050)
    found["metrics"]["recommend.ndcg@10"] = found["baselines"]["popularity"][
        "recommend.ndcg@10"
    ] = zero
    found["differences"]["popularity"]["recommend.ndcg@10"] = zero
    least = AtLeast(metric="recommend.ndcg@10", baseline="popularity", share=0.1)

    verdict = decide(found, GateSettings(at_least=(least,)))

    assert verdict.reasons[0] == "recommend.ndcg@10 is 0.0000 (n = 2,050): nothing was right"


@pytest.mark.parametrize("baseline", ["champion", "no such baseline"])
def test_a_share_of_what_was_not_measured_is_not_reached(baseline: str) -> None:
    least = AtLeast(metric="recommend.ndcg@10", baseline=baseline, share=0.1)
    assert not decide(samples.evaluation(), GateSettings(at_least=(least,))).passed


def test_a_margin_of_its_own_holds_for_one_metric() -> None:
    found = samples.evaluation()  # interval of the difference in sentiment: -0.0008 +- 0.006
    rules = RULES.model_copy(update={"epsilon": 0.006})
    assert failures(decide(found, rules)) == ["not worse sentiment.accuracy"]
    assert decide(found, rules.model_copy(update={"margins": {"sentiment.accuracy": 0.02}})).passed


def test_a_gate_without_rules_passes_nothing() -> None:
    assert not decide(samples.evaluation(), GateSettings()).passed


MEASURES = [
    ("metrics", "interests.micro_f1"),
    ("metrics", "interests.ece"),
    ("baselines", "own_frequencies", "interests.micro_f1"),
    ("differences", "recent_popularity", "recommend.ndcg@10"),
    ("differences", "champion", "sentiment.accuracy"),
    ("champion", "metrics", "recommend.ndcg@10"),
    ("slices", 0),
]
BROKEN = {
    "NaN": {"value": math.nan},
    "NaN bound": {"low": math.nan},
    "infinite": {"value": math.inf},
    "minus infinite": {"low": -math.inf},
    "null": {"value": None},
    "null bound": {"high": None},
    "text": {"value": "0.9"},
    "truth": {"value": True},
    "empty test set": {"n": 0},
    "rows unknown": {"n": None},
    "half a row": {"n": 10.5},
    "other rows": {"n": 17},
    "swapped interval": {"low": 0.9, "high": 0.1},
}


def at(found: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        found = found[key]
    return found


COMPARED = [path for path in MEASURES if path not in (("metrics", "interests.ece"), ("slices", 0))]
FAULTS = [
    pytest.param(path, broken, id=f"{' '.join(map(str, path))}: {name}")
    for name, broken in BROKEN.items()
    for path in (COMPARED if name == "other rows" else MEASURES)
]


@pytest.mark.parametrize(("path", "broken"), FAULTS)
def test_no_broken_number_passes(path: tuple[Any, ...], broken: dict[str, Any]) -> None:
    found = samples.evaluation()
    at(found, path).update(broken)
    verdict = decide(found, RULES)
    assert not verdict.passed and len(failures(verdict)) >= 1
    assert verdict.reasons[0]


@pytest.mark.parametrize("path", MEASURES, ids=lambda path: " ".join(map(str, path)))
@pytest.mark.parametrize("how", ["deleted", "null"])
def test_nothing_missing_passes(path: tuple[Any, ...], how: str) -> None:
    found = samples.evaluation()
    holder = at(found, path[:-1])
    if how == "deleted":
        del holder[path[-1]]
    else:
        holder[path[-1]] = None
    assert not decide(found, RULES).passed


@pytest.mark.parametrize(
    "key", ["metrics", "baselines", "differences", "slices", "lineage", "champion"]
)
def test_no_part_of_the_evaluation_may_be_missing(key: str) -> None:
    found = samples.evaluation()
    del found[key]
    assert not decide(found, RULES).passed


@pytest.mark.parametrize(
    "found", [{}, {"metrics": []}, {"champion": 3, "slices": "x"}, {"tasks": {}, "metrics": {}}]
)
def test_a_shapeless_evaluation_is_refused_without_raising(found: dict[str, Any]) -> None:
    assert not decide(found, RULES).passed


def test_a_slice_that_was_not_measured_fails() -> None:
    verdict = decide(
        samples.evaluation(), GateSettings(floors=RULES.floors, required_slices=("users=new",))
    )
    assert verdict.reasons[0] == "slice users=new was not measured"
    rules = GateSettings(slice_floors={"users=cold": {"recommend.recall@10": 0.1}})
    assert (
        decide(samples.evaluation(), rules).reasons[0]
        == "recommend.recall@10 for users=cold has no number as its value: None"
    )


def test_a_difference_that_is_not_the_values_difference_fails() -> None:
    found = samples.evaluation()
    found["differences"]["own_frequencies"]["interests.micro_f1"] = samples.measure(0.2, 0.01, 2050)
    verdict = decide(found, RULES)
    assert not verdict.passed and "not measured on the same rows" in verdict.reasons[0]


@settings(max_examples=150, deadline=None)
@given(
    metric=st.sampled_from(sorted(samples.evaluation()["metrics"])),
    start=st.floats(-0.1, 0.1),
    by=st.floats(0, 0.5),
    epsilon=st.floats(0, 0.05),
)
def test_worse_is_never_better_for_the_verdict(
    metric: str, start: float, by: float, epsilon: float
) -> None:
    rules = RULES.model_copy(update={"epsilon": epsilon})
    before = samples.worsened(samples.evaluation(), metric, start)
    after = samples.worsened(before, metric, by)
    assert decide(before, rules).passed or not decide(after, rules).passed


def test_the_decision_is_pure() -> None:
    found = samples.evaluation()
    kept = deepcopy(found)
    first, second = decide(found, RULES), decide(found, RULES)
    assert found == kept and asdict(first) == asdict(second)


@pytest.mark.parametrize(
    "wrong",
    [
        {"floor": {}},
        {"epsilon": -0.1},
        {"epsilon": math.nan},
        {"floors": {"interests.micro_f1": math.nan}},
        {"beats": [{"metric": "interests.micro_f1"}]},
        {"at_least": [{"metric": "interests.ece", "baseline": "majority", "share": 0.5}]},
        {"sources": {"ml-100k": {"beats": []}}},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GateSettings.model_validate(wrong)
