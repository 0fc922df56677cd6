"""The rehearsal on a real server, and the comparison that decides it."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from serving.client import Client
from serving.release import answer_comparison, rehearsal
from serving.release.answer_comparison import compare
from serving.release.rehearsal import rehearse
from tasteloop import files
from tasteloop.bundle.manifest import seal
from tests.support.processes import HOUSE

pytestmark = pytest.mark.slow


def altered(bundle: Path, out: Path, change: Callable[[list[dict[str, Any]]], Any]) -> Path:
    """A copy of a bundle whose golden questions were changed, its manifest put right; no other
    precision's answers.
    """
    shutil.copytree(bundle, out)
    golden = json.loads((out / "golden.json").read_text())
    golden.pop("others", None)
    change(golden["questions"])
    (out / "golden.json").write_text(json.dumps(golden))
    seal(out)
    return out


def first(questions: list[dict[str, Any]], model: str) -> dict[str, Any]:
    answer: dict[str, Any] = next(q["answer"] for q in questions if q["model"] == model)
    return answer


def test_a_whole_bundle_passes(tiny_bundle: Path, tmp_path: Path) -> None:
    before = set(psutil.Process().children())
    outcome = rehearse(tiny_bundle, tmp_path)
    assert outcome.passed, outcome.reason
    assert outcome.digest == files.sha256_file(tiny_bundle / "manifest.json")
    assert json.loads((tmp_path / "rehearsal.json").read_text())["passed"] is True
    assert set(psutil.Process().children()) == before


def test_an_altered_answer_fails(tiny_bundle: Path, tmp_path: Path) -> None:
    def alter(questions: list[dict[str, Any]]) -> None:
        first(questions, "sentiment")["probability"] += 0.01

    outcome = rehearse(altered(tiny_bundle, tmp_path / "bundle", alter), tmp_path)
    assert not outcome.passed
    assert "served answers differ from the trainer's: question" in outcome.reason
    assert json.loads((tmp_path / "rehearsal.json").read_text())["reason"] == outcome.reason


def test_the_answers_of_one_other_precision_pass(tiny_bundle: Path, tmp_path: Path) -> None:
    """As when this processor's fastest runtime is not that of the machine where the bundle was
    made.
    """

    def other(out: Path, spoil: bool) -> Path:
        shutil.copytree(tiny_bundle, out)
        golden = json.loads((out / "golden.json").read_text())
        answers = copy.deepcopy([question["answer"] for question in golden["questions"]])
        first(golden["questions"], "sentiment")["probability"] += 0.01
        if spoil:
            answers[0]["interests"][0]["probability"] += 0.01
        golden["others"] = {golden["precision"]: answers}
        golden["precision"] = "bf16"
        (out / "golden.json").write_text(json.dumps(golden))
        seal(out)
        return out

    assert rehearse(other(tmp_path / "one", False), tmp_path).passed
    assert not rehearse(other(tmp_path / "two", True), tmp_path).passed


def test_no_questions_fail(tiny_bundle: Path, tmp_path: Path) -> None:
    outcome = rehearse(
        altered(tiny_bundle, tmp_path / "bundle", lambda questions: questions.clear()), tmp_path
    )
    assert not outcome.passed
    assert "no questions" in outcome.reason


def test_a_damaged_bundle_fails(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    weights = next(bundle.rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    outcome = rehearse(bundle, tmp_path)
    assert not outcome.passed
    assert weights.name in outcome.reason


@pytest.mark.parametrize(
    "content", [None, "", "{", "[]", '{"questions": 3}', '{"questions": [{}]}']
)
def test_a_ruined_bundle_is_an_outcome_too(tmp_path: Path, content: str | None) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    if content is not None:
        (bundle / "manifest.json").write_text(content)
    assert not rehearse(bundle, tmp_path).passed
    assert not rehearse(tmp_path / "missing", tmp_path).passed


def test_a_server_that_dies_is_the_reason(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal.sys, "executable", "/bin/false")
    outcome = rehearse(tiny_bundle, tmp_path)
    assert (outcome.passed, outcome.reason) == (False, "the server ended with 1: it logged nothing")


def test_a_server_that_does_not_get_ready_is_the_reason(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "START_SECONDS", 0.1)
    assert "was not ready within 0 s" in rehearse(tiny_bundle, tmp_path).reason


HOLD = """
import sys, time
from pathlib import Path
from serving.release.rehearsal import serve
with serve(Path(sys.argv[1])) as client:
    print(client.url, flush=True)
    time.sleep(60)
"""


def test_a_killed_rehearsal_leaves_no_server(tiny_bundle: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tiny_bundle)], cwd=HOUSE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    with process.stdout, Client(process.stdout.readline().strip()) as client:
        assert client.ready()
        process.kill()
        process.wait()
        deadline = time.monotonic() + 15
        while client.ready():
            assert time.monotonic() < deadline
            time.sleep(0.1)


# The comparison

INTERESTS = {
    "interests": [
        {"label": "war", "probability": 0.9, "predicted": True},
        {"label": "drama", "probability": 0.50001, "predicted": True},
        {"label": "comedy", "probability": 0.5, "predicted": True},
    ]
}
RECOMMEND = {
    "recommendations": [
        {
            "item": item,
            "title": item.upper(),
            "score": score,
            "reason": "Because it is so.",
            "reasons": [
                {"kind": "taste", "contribution": score - 1, "terms": {"interest": score - 1}},
                {"kind": "popularity", "contribution": 1.0, "terms": {"recency": 1.0}},
            ],
        }
        for item, score in (("a", 3.0), ("b", 2.0), ("c", 2.00000001))
    ]
}
SENTIMENT = {"sentiment": "positive", "probability": 0.7}


def changed(answer: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    answer = copy.deepcopy(answer)
    change(answer)
    return answer


def swap(entries: list[Any], i: int, j: int) -> None:
    entries[i], entries[j] = entries[j], entries[i]


AGREE: list[tuple[str, dict[str, Any], Callable[[Any], Any]]] = [
    ("interests", INTERESTS, lambda a: None),
    ("interests", INTERESTS, lambda a: a["interests"][0].update(probability=0.90005)),
    ("interests", INTERESTS, lambda a: swap(a["interests"], 1, 2)),
    ("recommend", RECOMMEND, lambda a: swap(a["recommendations"], 1, 2)),
    ("recommend", RECOMMEND, lambda a: a["recommendations"][0]["reasons"].reverse()),
    ("recommend", RECOMMEND, lambda a: a["recommendations"][0].update(reason="In other words.")),
    # recorded by a bundle from before reasons had words
    (
        "recommend",
        RECOMMEND,
        lambda a: a["recommendations"][0].update(
            reasons=[
                {"term": "interest", "contribution": 2.0},
                {"term": "recency", "contribution": 1.0},
            ]
        ),
    ),
    (
        "recommend",
        RECOMMEND,
        lambda a: a["recommendations"][2].update(item="d"),
    ),  # a tie at the end of the list
    ("sentiment", SENTIMENT, lambda a: a.update(probability=0.70005)),
]
DIFFER: list[tuple[str, dict[str, Any], Callable[[Any], Any], str]] = [
    (
        "interests",
        INTERESTS,
        lambda a: a["interests"][0].update(probability=0.91),
        "probability 0.91 instead",
    ),
    (
        "interests",
        INTERESTS,
        lambda a: a["interests"][0].update(probability=float("nan")),
        "probability nan",
    ),
    (
        "interests",
        INTERESTS,
        lambda a: a["interests"][0].update(predicted=False),
        "predicted False",
    ),
    (
        "interests",
        INTERESTS,
        lambda a: a["interests"][0].update(label="new"),
        "label 'new' instead of 'war'",
    ),
    ("interests", INTERESTS, lambda a: a["interests"].pop(), "2 interests instead of 3"),
    ("interests", INTERESTS, lambda a: swap(a["interests"], 0, 1), "in place 0"),
    ("recommend", RECOMMEND, lambda a: swap(a["recommendations"], 0, 1), "in place 0"),
    (
        "recommend",
        RECOMMEND,
        lambda a: a["recommendations"][0].update(item="x"),
        "item 'x' instead of 'a'",
    ),
    ("recommend", RECOMMEND, lambda a: a["recommendations"][1].update(item="c"), "twice"),
    ("recommend", RECOMMEND, lambda a: a["recommendations"][0].update(title="x"), "title 'x'"),
    ("recommend", RECOMMEND, lambda a: a["recommendations"][0]["reasons"].pop(), "reasons fields"),
    (
        "recommend",
        RECOMMEND,
        lambda a: a["recommendations"][0]["reasons"][0]["terms"].update(interest=1.0),
        "reasons interest 1.0 instead of 2.0",
    ),
    ("sentiment", SENTIMENT, lambda a: a.update(probability=0.71), "probability 0.71"),
    ("sentiment", SENTIMENT, lambda a: a.update(sentiment="negative"), "sentiment 'negative'"),
    ("sentiment", SENTIMENT, lambda a: a.update(more=1), "fields"),
]


@pytest.mark.parametrize(("model", "recorded", "change"), AGREE)
def test_answers_that_agree(
    model: str, recorded: dict[str, Any], change: Callable[[Any], Any]
) -> None:
    assert compare(model, recorded, changed(recorded, change), 1e-4) == []


def test_elsewhere_int8_may_differ_a_little_and_decide_otherwise() -> None:
    question = {"model": "interests", "instance": {}}
    near = changed(INTERESTS, lambda a: a["interests"][2].update(probability=0.49, predicted=False))
    far = changed(INTERESTS, lambda a: a["interests"][2].update(probability=0.4))
    assert (
        answer_comparison.find_differences([question], [INTERESTS], [(near, near)], 1e-4, 0.05)
        == []
    )
    assert (
        len(answer_comparison.find_differences([question], [INTERESTS], [(near, None)], 1e-4, 1e-4))
        == 1
    )
    assert (
        len(answer_comparison.find_differences([question], [INTERESTS], [(far, far)], 1e-4, 0.05))
        == 2
    )


@pytest.mark.parametrize(("model", "recorded", "change", "message"), DIFFER)
def test_answers_that_differ(
    model: str, recorded: dict[str, Any], change: Callable[[Any], Any], message: str
) -> None:
    differences = compare(model, recorded, changed(recorded, change), 1e-4)
    assert any(message in difference for difference in differences), differences
