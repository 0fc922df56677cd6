"""The rollout's laws: who gets the challenger, what adds up, and when it is promoted or rolled
back.
"""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from serving.release.observations import Observation, Tally, compare_answers, tally_answers
from serving.release.rollout import (
    Rollout,
    Side,
    add_observation,
    change_rollout,
    current_rollout,
    draw,
    end_rollout,
    rollout_history,
    rollout_status,
)
from serving.release.rollout_control import abort_rollout, promote_challenger
from serving.release.rollout_decision import Rules, decide, total_variation
from tasteloop import files
from tasteloop.errors import TasteloopError
from tasteloop.home import Home

HOUSE = Path(__file__).parents[3]
RULES = Rules(answers=500)


def sentiments(n: int, positive: float = 0.5, seconds: float = 0.01, seed: int = 0) -> Tally:
    chance = random.Random(seed)
    total = Tally()
    for _ in range(n):
        probability = (
            chance.uniform(0.5, 1) if chance.random() < positive else chance.uniform(0, 0.5)
        )
        answer = {
            "sentiment": "positive" if probability > 0.5 else "negative",
            "probability": probability,
        }
        total += tally_answers("sentiment", [answer], seconds * chance.uniform(0.9, 1.1))
    return total


SAME = Observation(champion=sentiments(1000), challenger=sentiments(600, seed=1))
FEW = Observation(champion=sentiments(1000), challenger=sentiments(40, seed=1))
NAN = tally_answers("sentiment", [{"sentiment": "positive", "probability": math.nan}], 0.01)


def worse(**changes: Any) -> Observation:
    return SAME.model_copy(update={"challenger": SAME.challenger.model_copy(update=changes)})


CASES: list[tuple[str, Observation, dict[str, Any], str, str]] = [
    ("identical", SAME, {}, "promote", "error rate 0.0000"),
    ("identical in the shadow", SAME, {"shadow": True}, "promote", "latency is not judged"),
    ("too few answers", FEW, {}, "wait", "40 of the challenger; 500 of each are needed"),
    (
        "too few answers for too long",
        FEW,
        {"hours": 73},
        "roll back",
        "after 73 hours there are only",
    ),
    ("nothing seen", Observation(), {}, "wait", "0 answers of the champion"),
    (
        "nothing of the champion",
        Observation(challenger=sentiments(900)),
        {},
        "wait",
        "0 answers of the champion",
    ),
    (
        "many errors",
        worse(errors=30),
        {},
        "roll back",
        "error rate 0.0476 against the champion's 0.0000",
    ),
    (
        "many errors early",
        FEW + Observation(challenger=Tally(errors=10)),
        {},
        "roll back",
        "error rate 0.2000",
    ),
    (
        "two errors early are not enough to tell",
        FEW + Observation(challenger=Tally(errors=2)),
        {},
        "wait",
        "40 of",
    ),
    (
        "errors of both",
        SAME + Observation(champion=Tally(errors=40), challenger=Tally(errors=20)),
        {},
        "promote",
        "",
    ),
    ("one error among many", worse(errors=1), {}, "promote", "error rate 0.0017"),
    (
        "one NaN",
        SAME + Observation(challenger=NAN),
        {},
        "roll back",
        "1 answers that are not finite",
    ),
    (
        "one NaN early",
        FEW + Observation(challenger=NAN),
        {},
        "roll back",
        "1 answers that are not finite",
    ),
    (
        "a NaN of the champion",
        SAME + Observation(champion=NAN),
        {},
        "promote",
        "0 answers that are not finite",
    ),
    (
        "slow",
        Observation(champion=SAME.champion, challenger=sentiments(600, seconds=0.02, seed=1)),
        {},
        "roll back",
        "p95",
    ),
    (
        "slow in the shadow",
        Observation(champion=SAME.champion, challenger=sentiments(600, seconds=0.02, seed=1)),
        {"shadow": True},
        "promote",
        "not judged",
    ),
    (
        "slower by what does not matter",
        Observation(
            champion=sentiments(600, seconds=0.001), challenger=sentiments(600, seconds=0.003)
        ),
        {},
        "promote",
        "p95",
    ),
    (
        "other answers",
        Observation(champion=sentiments(1000, 0.9), challenger=sentiments(600, 0.1, seed=1)),
        {},
        "roll back",
        "first answers of sentiment differ by",
    ),
    (
        "somewhat other answers",
        Observation(champion=sentiments(1000, 0.5), challenger=sentiments(600, 0.6, seed=1)),
        {},
        "promote",
        "first answers of sentiment differ by",
    ),
]


@pytest.mark.parametrize(
    ("name", "observed", "how", "verdict", "reason"), CASES, ids=[case[0] for case in CASES]
)
def test_decisions(
    name: str, observed: Observation, how: dict[str, Any], verdict: str, reason: str
) -> None:
    decision = decide(observed, RULES, **how)
    assert decision.verdict == verdict, decision
    assert any(reason in said for said in decision.reasons), decision
    assert decision == decide(observed, RULES, **how)


def test_a_constant_answer_is_rolled_back_though_it_is_fast_and_without_errors() -> None:
    ranked = [
        {"interests": [{"label": x, "probability": 0.5, "predicted": True}]} for x in "abcdefgh"
    ]
    champion, challenger = Tally(), Tally()
    for n in range(600):
        champion += tally_answers("interests", [ranked[n % 8]], 0.01)
        challenger += tally_answers("interests", [ranked[0]], 0.01)
    decision = decide(Observation(champion=champion, challenger=challenger), RULES)
    assert decision.verdict == "roll back"
    assert "first answers of interests differ by 0.875" in decision.reasons[0]


def test_chance_is_not_taken_for_a_difference() -> None:
    """Samples of one distribution stay under the bound, of two they exceed it."""
    chance = random.Random(3)
    names = [f"i{n}" for n in range(30)]
    weights = [1 / (n + 1) for n in range(30)]

    def sample(n: int, of: list[float]) -> dict[str, int]:
        drawn = chance.choices(names, of, k=n)
        return {name: drawn.count(name) for name in set(drawn)}

    for n, m in ((50, 50), (500, 60), (2000, 2000)):
        for _ in range(30):
            distance, bound = total_variation(sample(n, weights), sample(m, weights), 0.001)
            assert distance < bound
    distance, bound = total_variation(sample(2000, weights), sample(2000, weights[::-1]), 0.001)
    assert distance > 2 * bound


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_rules_are_numbers(value: float) -> None:
    for name in ("errors", "latency_ratio", "latency_seconds", "shift", "hours"):
        with pytest.raises(ValidationError):
            Rules(**{name: value})


# Tallies


def test_tallies_add_up_in_any_order() -> None:
    parts = [sentiments(20, seed=n) + Tally(errors=n) for n in range(4)]
    assert parts[0] + parts[1] + parts[2] + parts[3] == parts[3] + (
        parts[2] + (parts[1] + parts[0])
    )
    whole = Observation(champion=parts[0], challenger=parts[1], skipped=2)
    assert Observation.model_validate(json.loads(whole.model_dump_json())) == whole


@pytest.mark.parametrize("seconds", [0.0, 1e-5, 0.0012, 0.05, 3.0, 1e9])
def test_a_quantile_is_within_a_tenth(seconds: float) -> None:
    found = tally_answers(
        "sentiment", [{"sentiment": "positive", "probability": 0.5}], seconds
    ).latency_quantile(0.95)
    assert found is not None
    if 1e-4 < seconds < 1e4:
        assert seconds <= found * 1.0001 <= seconds * 1.101
    assert Tally().latency_quantile(0.95) is None


def test_outcomes_are_bounded_however_many_items_there_are() -> None:
    total = Tally()
    for n in range(1000):
        total += tally_answers(
            "recommend", [{"recommendations": [{"item": f"item {n}", "score": 1.0}]}], None
        )
    assert len(total.outcomes["recommend"]) == 32
    assert tally_answers("recommend", [{"recommendations": []}], None).outcomes == {
        "recommend": {"": 1}
    }


def test_agreement() -> None:
    def ranked(*items: str) -> dict[str, Any]:
        return {
            "recommendations": [
                {"item": item, "score": 1 / (n + 1)} for n, item in enumerate(items)
            ]
        }

    said = compare_answers(
        [ranked("a", "b"), ranked("a", "b")], [ranked("a", "c"), ranked("b", "a")]
    )
    assert (said.compared, said.first) == (2, 1)
    assert said.overlap == pytest.approx(0.5 + 1.0)
    assert said.distance == pytest.approx(0.0 + 0.5)

    said = compare_answers(
        [
            {"sentiment": "positive", "probability": 0.75},
            {"sentiment": "positive", "probability": 0.75},
        ],
        [
            {"sentiment": "negative", "probability": 0.25},
            {"sentiment": "positive", "probability": 0.5},
        ],
    )
    assert (said.compared, said.first, said.overlap, said.distance) == (2, 1, 1.0, 0.5 + 0.25)


# The draw


def test_a_key_is_drawn_the_same_and_shares_are_kept() -> None:
    keys = [f"user {n}" for n in range(4000)]
    first = {key for key in keys if draw("a", key) < 0.1}
    assert first == {key for key in keys if draw("a", key) < 0.1}
    assert 300 < len(first) < 500
    assert first < {key for key in keys if draw("a", key) < 0.3}, (
        "a larger share keeps who was in it"
    )
    other = {key for key in keys if draw("b", key) < 0.1}
    assert len(first & other) < 100, "another rollout draws anew"
    assert draw("a", "\ud800") < 1


# The state


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path))
    return tmp_path


def running(home: Path) -> Rollout:
    rollout = Rollout(
        id="r1",
        champion=Side(version="1", digest="a" * 64),
        challenger=Side(version="2", digest="b" * 64),
        share=0.1,
        started="2026-11-24T10:00:00+00:00",
    )
    files.write_json(Home(home).rollout, json.loads(rollout.model_dump_json()))
    return rollout


def test_no_rollout_is_none(home: Path) -> None:
    assert current_rollout() is None
    assert rollout_status() is None
    for act in (promote_challenger, abort_rollout):
        with pytest.raises(TasteloopError, match="no rollout is running"):
            act()


def test_what_servers_saw_is_added_and_the_end_is_final(home: Path) -> None:
    rollout = running(home)
    assert current_rollout() == rollout
    for _ in range(2):
        add_observation("r1", Observation(champion=Tally(answers=3), skipped=1))
    assert current_rollout().observed == Observation(champion=Tally(answers=6), skipped=2)  # type: ignore[union-attr]
    add_observation("another", Observation(champion=Tally(answers=3)))
    ended = end_rollout("r1", "rolled back", ["too slow"])
    assert ended is not None and (ended.state, ended.reasons) == ("rolled back", ("too slow",))
    add_observation("r1", Observation(champion=Tally(answers=3)))
    end_rollout("r1", "promoted", ["late"])
    assert current_rollout() == ended
    status = rollout_status()
    assert status is not None and status.observed.champion.answers == 6
    json.dumps(status.model_dump(mode="json"), allow_nan=False)


def test_past_rollouts_are_kept(home: Path) -> None:
    assert rollout_history() == []
    first = running(home)
    ended = end_rollout("r1", "aborted", ["by hand"])
    second = first.model_copy(update={"id": "r2", "started": "2026-11-25T10:00:00+00:00"})
    change_rollout(lambda _: second)
    assert current_rollout() == second
    assert rollout_history() == [second, ended]
    end_rollout("r2", "promoted", ["all is well"])
    # a kill before it was moved
    files.write_json(Home(home).past_rollouts / "r2.json", json.loads(second.model_dump_json()))
    assert [(r.id, r.state) for r in rollout_history()] == [("r2", "promoted"), ("r1", "aborted")]


ADD = """
from serving.release.observations import Observation, Tally
from serving.release.rollout import add_observation
for _ in range(50):
    add_observation("r1", Observation(champion=Tally(answers=1)))
"""


def test_two_servers_lose_no_count(home: Path) -> None:
    running(home)
    both = [subprocess.Popen([sys.executable, "-c", ADD], cwd=HOUSE) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    assert current_rollout().observed.champion.answers == 100  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "{",
        lambda text: text.replace('"share": 0.1', '"share": 2'),
        lambda text: text.replace('"format": 1', '"format": 2'),
        lambda text: text.replace('"answers": 0', '"answers": -1', 1),
        lambda text: text.replace('"id"', '"name"'),
        lambda text: text.replace('"errors": 0,', '"errors": NaN,', 1),
    ],
)
def test_a_spoilt_state_is_an_error_that_says_what_to_do(
    home: Path, spoil: Callable[[str], str]
) -> None:
    running(home)
    path = Home(home).rollout
    before = path.read_text()
    path.write_text(spoil(before))
    assert path.read_text() != before
    with pytest.raises(TasteloopError, match=r"rollout\.json"):
        current_rollout()
