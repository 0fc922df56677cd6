"""When the loop acts, and when it must not."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from validation.monitor.decision import (
    SEVERITY,
    Decision,
    DecisionSettings,
    Evidence,
    Facts,
    Finding,
    Trigger,
    adjusted,
    decide,
    key_of,
)
from validation.monitor.measure import Severity
from validation.monitor.windows import HOUR, WEEK

DAY = 24 * HOUR
NOW = 100 * DAY
DEFAULT = DecisionSettings()


def finding(measure: str = "labels", effect: float | None = 0.3, **given: Any) -> Finding:
    return Finding(measure=measure, effect=effect, **{"p": 0.001, "n": 500, **given})


def window(
    day: int, *findings: Finding, problems: tuple[str, ...] = (), champion: str = "c"
) -> Evidence:
    name = f"{day - 1}/{day}"
    return Evidence(
        id=f"report {day}",
        window=name,
        end=day * DAY,
        reference="r",
        champion=champion,
        findings=findings,
        problems=problems,
    )


def days(*of: tuple[Finding, ...]) -> list[Evidence]:
    return [window(100 - len(of) + n + 1, *found) for n, found in enumerate(of)]


def said(
    evidence: list[Evidence], triggers: list[Trigger] | None = None, now: int = NOW, **given: Any
) -> Decision:
    facts = given.pop("facts", None)
    return decide(evidence, triggers or [], now, DecisionSettings(**given), facts)


QUALITY = {"measure": "quality.ndcg@10", "value": 0.1, "low": 0.08, "high": 0.12}

SEVERE, SLIGHT, NONE = finding(), finding(effect=0.12), finding(effect=0.01)


@pytest.mark.parametrize(
    ("of", "outcome"),
    [
        ([NONE], "healthy"),
        ([SEVERE], "watch"),
        ([SLIGHT], "healthy"),
        ([SLIGHT, SLIGHT], "watch"),
        ([NONE, SEVERE, SEVERE], "retrain"),
        ([SEVERE, NONE, SEVERE], "retrain"),
        ([SEVERE, SEVERE, NONE], "healthy"),
        ([SEVERE, NONE, NONE, SEVERE], "watch"),  # three windows are looked at
        ([SEVERE, SLIGHT], "watch"),
        ([finding(p=0.02), finding(p=0.02)], "healthy"),  # chance explains it
        ([finding(natural=0.3), finding(natural=0.3)], "healthy"),  # the season explains it
        ([finding(natural=0.29), finding(natural=0.29)], "retrain"),
        # of unlike questions, as far as is known
        ([finding(**QUALITY), finding(**QUALITY)], "watch"),
        ([finding(**QUALITY, natural=0.1), finding(**QUALITY, natural=0.1)], "retrain"),
        ([finding(n=49), finding(n=49)], "watch"),  # too little to judge by
        ([finding(p=None), finding(p=None)], "healthy"),
        ([finding(effect=None), finding(effect=None)], "watch"),
        ([finding("language"), finding("language")], "alert-human"),
        ([finding("activity", 0.9), finding("activity", 0.9)], "watch"),
        ([finding("never heard of", 9.0), finding("never heard of", 9.0)], "watch"),
    ],
)
def test_what_windows_lead_to(of: list[Finding], outcome: str) -> None:
    assert said(days(*((one,) for one in of))).outcome == outcome


def test_two_measures_that_are_severe_once_each_are_no_persistence() -> None:
    assert said(days((finding("labels"),), (finding("kinds"),))).outcome == "watch"


def test_reasons_name_measure_effect_bound_and_windows() -> None:
    decision = said(days((SEVERE,), (SEVERE,)))
    assert decision.outcome == "retrain" and decision.causes == ("labels",)
    assert decision.reasons == (
        "labels moved by 0.300 (act from 0.2; p = 0.0010, n = 500); so in 2 of 2 windows",
    )
    assert decision.evidence == ("report 99", "report 100")
    assert decision.key == key_of("r", "99/100", "c")


def test_data_that_failed_its_checks_calls_a_human() -> None:
    broken = [
        *days((SEVERE,), (SEVERE,)),
        window(101, SEVERE, problems=("value is null in 100% of ratings",)),
    ]
    decision = said(broken)
    assert decision.outcome == "alert-human"
    assert decision.reasons == (
        "the data failed its checks, so nothing is trained: value is null in 100% of ratings",
    )
    after = said([*broken, window(102, SEVERE)], now=NOW + 2 * DAY)
    assert after.outcome == "alert-human" and "100/101 failed its checks" in after.reasons[-1]
    later = [window(103, SEVERE), window(104, SEVERE)]
    # it is out of sight
    assert said([*broken, window(102, SEVERE), *later], now=NOW + 4 * DAY).outcome == "retrain"


def test_evidence_about_another_champion_does_not_count() -> None:
    assert (
        said([window(99, SEVERE, champion="the one before"), window(100, SEVERE)]).outcome
        == "watch"
    )


def test_a_quality_below_its_floor_beyond_doubt_needs_no_second_window() -> None:
    low = finding("quality.f1", 0.01, value=0.45, low=0.42, high=0.48)
    assert said([window(100, low)], floors={"quality.f1": 0.5}).outcome == "retrain"
    assert said([window(100, low)], floors={"quality.f1": 0.47}).outcome == "healthy"
    assert said([window(100, low)]).outcome == "healthy"
    off = finding("quality.ece", 0.01, value=0.15, low=0.12, high=0.2)
    assert said([window(100, off)], floors={"quality.ece": 0.1}).outcome == "retrain"
    assert said([window(100, off)], floors={"quality.ece": 0.13}).outcome == "healthy"


def test_schedule_and_new_data() -> None:
    facts = Facts(trained=NOW - 8 * DAY, trained_events=1000, new_events=400)
    assert said(days((NONE,)), facts=facts).outcome == "healthy"
    assert said(days((NONE,)), facts=facts, schedule_days=8).causes == ("schedule",)
    assert said(days((NONE,)), facts=facts, schedule_days=8.1).outcome == "healthy"
    assert said(days((NONE,)), facts=facts, new_data=0.4).causes == ("new_data",)
    assert said(days((NONE,)), facts=facts, new_data=0.41).outcome == "healthy"
    recent = [Trigger(key="k", at=NOW - 3 * DAY, champion="c", result="rejected")]
    assert said(days((NONE,)), recent, facts=facts, schedule_days=8).outcome == "healthy"


def trigger(
    ago: float, result: Any = "promoted", champion: str = "before", key: str | None = None
) -> Trigger:
    return Trigger(
        key=key or f"{ago} days ago", at=int(NOW - ago * DAY), champion=champion, result=result
    )


@pytest.mark.parametrize(
    ("triggers", "outcome", "why"),
    [
        ([trigger(0.9)], "watch", "cooldown"),
        ([trigger(1.0)], "retrain", "labels"),
        ([trigger(-0.1)], "watch", "cooldown"),  # a clock that went back does not end it
        ([trigger(2), trigger(3)], "alert-human", "2 retrainings within seven days"),
        ([trigger(2), trigger(7)], "retrain", "labels"),
        ([trigger(2, None)], "watch", "under way"),
        (
            [trigger(30, key=key_of("r", "99/100", "c"))],
            "watch",
            "triggered its retraining already",
        ),
        (
            [trigger(20, "rejected", "c"), trigger(10, "failed", "c")],
            "alert-human",
            "promoted nothing",
        ),
        ([trigger(20, "rejected", "c"), trigger(10, "failed")], "retrain", "labels"),
    ],
)
def test_what_holds_a_retraining_back(triggers: list[Trigger], outcome: str, why: str) -> None:
    decision = said(days((SEVERE,), (SEVERE,)), triggers)
    assert decision.outcome == outcome and why in decision.reasons[-1]


def retrained(*now: Finding, then: Finding = SEVERE, **given: Any) -> Decision:
    """Of a champion that a retraining made: `then` was its cause, each of `now` a window since."""
    before = [window(n, then, champion="before") for n in (97, 98)]
    since = [window(99 + n, found) for n, found in enumerate(now)]
    key, causes = key_of("r", "97/98", "before"), (then.measure,)
    made = Trigger(
        key=key,
        at=98 * DAY,
        champion="before",
        result=given.pop("result", "promoted"),
        causes=causes,
    )
    return said([*before, *since], [made], now=(98 + len(now)) * DAY, **given)


def test_what_a_retraining_answered_is_not_answered_again_before_its_champion_has_settled() -> None:
    after = retrained(SEVERE, SEVERE)
    assert after.outcome == "watch" and after.causes == ("labels",)
    assert "answered labels" in after.reasons[-1] and "12 windows more" in after.reasons[-1]
    assert retrained(*[finding(effect=0.25)] * 13).outcome == "watch"
    # so much of it is new evidence
    assert retrained(*[finding(effect=0.25)] * 14).outcome == "retrain"
    assert retrained(SEVERE, SEVERE, settle=2).outcome == "retrain"


def test_what_was_not_answered_is_not_held_up() -> None:
    # it went on moving
    assert retrained(finding(effect=0.31), finding(effect=0.31)).causes == ("labels",)
    assert retrained(finding(effect=0.31), finding(effect=0.31)).outcome == "retrain"
    other = retrained(SEVERE, SEVERE, then=finding("kinds"))
    assert (other.outcome, other.causes) == ("retrain", ("labels",))
    assert retrained(SEVERE, SEVERE, result="rejected").outcome == "retrain"
    low = finding("labels", low=0.1, high=0.2)
    assert retrained(low, low, floors={"labels": 0.5}).outcome == "retrain"
    assert (
        retrained(finding("language"), finding("language"), then=finding("language")).outcome
        == "alert-human"
    )
    back = window(99, SEVERE, champion="before"), window(100, SEVERE, champion="before")
    rolled = Trigger(
        key=key_of("r", "97/98", "before"),
        at=98 * DAY,
        champion="before",
        result="promoted",
        causes=("labels",),
    )
    assert said([window(98, SEVERE, champion="before"), *back], [rolled]).outcome == "retrain"


def test_a_routine_retraining_that_the_budget_forbids_waits_quietly() -> None:
    facts = Facts(trained=NOW - 90 * DAY, trained_events=10, new_events=10)
    decision = said(days((NONE,)), [trigger(2), trigger(3)], facts=facts, new_data=1)
    assert decision.outcome == "watch" and decision.causes == ("new_data",)


@pytest.mark.parametrize(
    "wrong", [{"needed": 4}, {"minimum": 0}, {"alpha": float("nan")}, {"cool": 1}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DecisionSettings.model_validate(wrong)
    with pytest.raises(ValidationError):
        Severity(watch=0.2, act=0.1)
    with pytest.raises(ValidationError):
        finding(effect=float("nan"))
    with pytest.raises(ValueError, match="at least one"):
        decide([], [], NOW, DEFAULT)


# Laws

MEASURES = st.sampled_from([*SEVERITY, "unheard of"])
FINDINGS = st.builds(
    Finding,
    measure=MEASURES,
    effect=st.none() | st.floats(0, 2),
    p=st.none() | st.floats(0, 1) | st.just(0.0005),
    n=st.integers(0, 200),
    natural=st.none() | st.floats(0, 0.5),
    low=st.none() | st.floats(0, 1),
    high=st.none() | st.floats(0, 1),
)


@st.composite
def histories(draw: Any) -> list[Evidence]:
    of = draw(
        st.lists(
            st.lists(FINDINGS, max_size=6, unique_by=lambda f: f.measure), min_size=1, max_size=6
        )
    )
    bad = [("broken",) if draw(st.integers(0, 5)) == 0 else () for _ in of]
    return [window(101 - len(of) + n, *found, problems=bad[n]) for n, found in enumerate(of)]


TRIGGERS = st.lists(
    st.builds(
        Trigger,
        key=st.text("abc", min_size=1),
        at=st.integers(NOW - 2 * WEEK, NOW + HOUR),
        champion=st.sampled_from("cd"),
        result=st.sampled_from([None, "promoted", "rejected", "failed", "unchanged", "refused"]),
    ),
    max_size=4,
)
SETTINGS = st.builds(
    DecisionSettings,
    minimum=st.integers(1, 100),
    windows=st.just(3),
    needed=st.integers(1, 3),
    floors=st.dictionaries(st.sampled_from(["quality.f1", "quality.ece"]), st.floats(0, 1)),
    schedule_days=st.none() | st.floats(1, 30),
    cooldown_hours=st.floats(0, 100),
    weekly=st.integers(0, 3),
)
FACTS = st.builds(Facts, trained=st.none() | st.integers(0, NOW))


@given(histories(), TRIGGERS, SETTINGS, FACTS, st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_laws(
    of: list[Evidence], past: list[Trigger], rules: DecisionSettings, facts: Facts, chance: Any
) -> None:
    decision = decide(of, past, NOW, rules, facts)
    assert decision.reasons and of[-1].id in decision.evidence
    assert set(decision.evidence) <= {e.id for e in of}
    assert decision.key == key_of("r", of[-1].window, "c")

    shuffled = [
        e.model_copy(update={"findings": tuple(chance.sample(e.findings, len(e.findings)))})
        for e in of
    ]
    shuffled += chance.sample(shuffled, 1)  # evidence that came twice
    random.Random(0).shuffle(shuffled)
    assert decide(shuffled, chance.sample(past, len(past)), NOW, rules, facts) == decision

    if any(e.problems for e in of[-rules.windows :]):
        assert decision.outcome != "retrain"
    if of[-1].problems:
        assert decision.outcome == "alert-human"
    if decision.outcome == "retrain":
        assert all(t.result is not None and t.key != decision.key for t in past)
        assert all(NOW - t.at >= rules.cooldown_hours * HOUR for t in past)
        assert sum(t.at > NOW - WEEK for t in past) < rules.weekly
        again = Trigger(key=decision.key, at=NOW, champion="c")
        assert decide(of, [*past, again], NOW, rules, facts).outcome != "retrain"
        for name in set(decision.causes) - {"schedule", *rules.floors}:
            severe = [
                f
                for e in of
                for f in e.findings
                if f.measure == name and (f.effect or 0) >= SEVERITY[name].act
            ]
            assert len(severe) >= rules.needed
            assert all(
                f.n >= rules.minimum and f.p is not None and f.p <= rules.alpha for f in severe[-1:]
            )


@given(histories(), SETTINGS)
@settings(max_examples=60, deadline=None)
def test_a_greater_minimum_or_a_longer_cooldown_never_makes_it_retrain(
    of: list[Evidence], rules: DecisionSettings
) -> None:
    past = [trigger(2)]
    before = decide(of, past, NOW, rules).outcome
    for stricter in (
        {"minimum": rules.minimum + 50},
        {"cooldown_hours": rules.cooldown_hours + 24},
        {"weekly": 0},
    ):
        after = decide(of, past, NOW, rules.model_copy(update=stricter)).outcome
        assert before == "retrain" or after != "retrain"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
@settings(deadline=None)
def test_adjusted_p_values_are_those_of_scipy(p: list[float]) -> None:
    from scipy.stats import false_discovery_control

    assert adjusted(p) == pytest.approx(list(false_discovery_control(p)))
    assert adjusted([None, *p])[1:] == adjusted(p)
