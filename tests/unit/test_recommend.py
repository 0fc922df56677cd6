"""Ranking: the closed forms by hand, and that reasons add up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tasteloop import bundle
from tasteloop.errors import TasteloopError
from tasteloop.events import Event
from tasteloop.files import read_json
from tasteloop.recommend import TERMS, Past, ease, fit_ties, fold_in, item_knn, standardise
from tasteloop.runtime import Session
from tasteloop.snapshots import Snapshots
from tasteloop.text import TextSettings

MATRIX = np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1]], np.float32)


@pytest.fixture(scope="module")
def session(tiny_bundle: Path) -> Session:
    return Session.load(tiny_bundle)


def test_ease_is_the_constrained_least_squares_solution() -> None:
    """Against numbers: column j of B minimises |x_j - X b|² + λ|b|² with b_j = 0."""
    weights = ease(MATRIX, 0.5)
    for j in range(3):
        others = [i for i in range(3) if i != j]
        x = MATRIX[:, others].astype(float)
        expected = np.linalg.solve(x.T @ x + 0.5 * np.eye(2), x.T @ MATRIX[:, j])
        assert weights[others, j] == pytest.approx(expected, abs=1e-5)
        assert weights[j, j] == 0


def test_item_knn_by_hand() -> None:
    similarity = item_knn(MATRIX, neighbours=1, shrink=0)
    assert similarity[0, 1] == pytest.approx(2 / np.sqrt(2 * 3), abs=1e-5)
    assert (np.count_nonzero(similarity, axis=0) <= 1).all()


def test_terms_are_standardised() -> None:
    out = standardise(np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]))
    assert out.mean(1) == pytest.approx([0, 0], abs=1e-6)
    assert out[0].std() == pytest.approx(1)
    assert out[1].tolist() == [0, 0, 0]


def test_an_item_never_seen_borrows_its_labels_ties() -> None:
    truth = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    future = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]], np.float32)
    past = Past(np.array([[1, 1, 0]], np.float32), np.array([0, 1]), np.array([1.0, 1.0]))
    ties = fit_ties(truth, future, past, np.array([[1, 0], [0, 1], [1, 0]], np.float32), 0.1)
    assert ties[0, 2] > 0 > ties[1, 2]


def test_popularity_halves_with_age() -> None:
    past = Past(np.ones((1, 2), np.float32), np.array([0, 1, 1]), np.array([0.0, 10.0, 10.0]))
    assert np.expm1(past.popularity(10)) == pytest.approx([1.0, 1.0])
    assert past.count(days=5).tolist() == [1, 0]


def test_history_folds_in_with_decay_and_likes_only(tiny_snapshots: Path) -> None:
    catalogue = Snapshots.read(tiny_snapshots).catalogue
    history = [
        Event("rate", "i3", 1, 1.0),
        Event("rate", "i4", 2, 0.0),
        Event("click", "i5", 3),
        Event("click", "new", 4),
    ]
    liked = fold_in([history], catalogue, 0.5, TextSettings())
    assert liked[0, [3, 4, 5]].tolist() == [0.125, 0, 0.5]
    assert liked.sum() == 0.625


HISTORIES = [
    [],
    [Event("rate", "i1", 1, 1.0)],
    [Event("rate", f"i{n}", n, (n % 3) / 2) for n in range(20)],
    [Event("click", "no such item", 1), Event("search", None, 2, None, "crime")],
]


def test_reasons_add_up_and_nothing_seen_is_recommended(session: Session) -> None:
    for history, ranked in zip(HISTORIES, session.recommend(HISTORIES, 7), strict=True):
        assert len(ranked) == 7
        assert {r.item for r in ranked}.isdisjoint({e.item for e in history})
        assert [r.score for r in ranked] == sorted((r.score for r in ranked), reverse=True)
        for r in ranked:
            assert set(r.terms) == set(TERMS)
            assert sum(r.terms.values()) == pytest.approx(r.score, abs=1e-5)


def test_the_catalogue_ends(session: Session) -> None:
    history = [Event("click", f"i{n}", n) for n in range(35)]
    assert len(session.recommend([history], 10)[0]) == 5


def test_alone_or_in_a_batch_the_answer_is_the_same(session: Session) -> None:
    together = session.interests(HISTORIES)
    alone = np.concatenate([session.interests([h]) for h in HISTORIES])
    assert together == pytest.approx(alone, abs=1e-5)


def test_the_bundle_answers_its_own_golden_questions(session: Session, tiny_bundle: Path) -> None:
    questions = read_json(tiny_bundle / "golden.json")["questions"]
    assert {q["model"] for q in questions} == {"interests", "recommend", "sentiment"}
    for q in questions:
        [answer] = session.answer(q["model"], [json.loads(json.dumps(q["instance"]))])
        assert _numbers(answer) == pytest.approx(_numbers(q["answer"]), abs=1e-4)


def _numbers(value: object) -> list[float]:
    if isinstance(value, dict):
        return [n for v in value.values() for n in _numbers(v)]
    if isinstance(value, list):
        return [n for v in value for n in _numbers(v)]
    return [float(value)] if isinstance(value, float) else []


@pytest.mark.parametrize(
    ("instance", "told"),
    [
        ("text", r"instances\[0\]: an instance is an object"),
        ({}, "'events' is missing"),
        ({"events": {}}, "a list is expected"),
        ({"events": [{"kind": "veiw"}]}, "unknown event kind 'veiw'"),
        ({"events": [], "k": 0}, "whole number from 1"),
        ({"events": [], "k": True}, "whole number from 1"),
        ({"events": [], "top": 3}, "unknown key 'top'"),
    ],
)
def test_a_bad_instance_is_named(session: Session, instance: object, told: str) -> None:
    with pytest.raises(TasteloopError, match=told):
        session.answer("recommend", [instance])


@pytest.mark.parametrize("damage", ["change", "remove", "add", "pickle", "manifest"])
def test_a_damaged_bundle_is_refused(tiny_bundle: Path, tmp_path: Path, damage: str) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, copy)
    assert bundle.verify(copy) == bundle.verify(tiny_bundle)
    if damage == "change":
        with (copy / "recommender.safetensors").open("r+b") as stream:
            stream.seek(-1, 2)
            stream.write(b"\x01")
    elif damage == "remove":
        (copy / "card.json").unlink()
    elif damage == "manifest":
        (copy / "manifest.json").write_text('{"format": 1, "files": []}')
    else:
        (copy / ("extra.json" if damage == "add" else "extra.pkl")).write_text("{}")
    with pytest.raises(TasteloopError):
        Session.load(copy)


def test_k_limits_interests_too(session: Session) -> None:
    whole, short = session.answer("interests", [{"events": []}, {"events": [], "k": 2}])
    assert len(whole["interests"]) == len(session.labels)
    assert short["interests"] == whole["interests"][:2]
