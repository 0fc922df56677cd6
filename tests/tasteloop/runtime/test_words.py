"""What is written moves the answers, by parts that add up; what is not written moves nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.sparse import csr_array
from scipy.special import expit, logit

from tasteloop.behaviour.events import Event
from tasteloop.bundle.card import BundleCard
from tasteloop.bundle.manifest import seal
from tasteloop.bundle.names import BASE_MODEL, LANGUAGE_FILE, RECOMMENDER_FILE
from tasteloop.encoder.calibration import from_log_odds
from tasteloop.language.hearing import listening
from tasteloop.language.reader import Reader, Reading
from tasteloop.language.titles import TitleIndex
from tasteloop.language.wishes import Wishes
from tasteloop.recommender.recommend import ASKED, TERMS
from tasteloop.runtime.session import WANTED, Session, _asked

ACTS = [Event("rate", f"i{n}", n + 1, (n % 3) / 2) for n in range(8)]
SILENT = [[], ACTS[:1], ACTS, [Event("click", "no such item", 1)]]
SPOKEN = [
    [Event("search", None, 1, None, "crime")],
    [*ACTS, Event("search", None, 20, None, "war, but no comedy")],
    [Event("search", None, 1, None, "Title 7"), *ACTS],
]


@pytest.fixture(scope="module")
def session(tiny_bundle: Path) -> Session:
    return Session.load(tiny_bundle)


def without_reader(bundle: Path) -> Session:
    """A session of the bundle whose reader is taken away."""
    session = Session.load(bundle)
    session._listens = None
    return session


def noted(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[list[str]]:
    """The texts that a method is given from now on, call by call."""
    method, calls = getattr(owner, name), []

    def noting(self: Any, texts: list[str], *arguments: Any) -> Any:
        calls.append(list(texts))
        return method(self, texts, *arguments)

    monkeypatch.setattr(owner, name, noting)
    return calls


@pytest.fixture(scope="module")
def deaf(tiny_bundle: Path) -> Session:
    return without_reader(tiny_bundle)


def test_without_texts_an_answer_is_that_of_a_session_without_a_reader(tiny_bundle: Path) -> None:
    """To the last bit, so both begin without texts that were read in another batch."""
    reading, deaf = Session.load(tiny_bundle), without_reader(tiny_bundle)

    assert reading._listens is not None and reading.wishes(SILENT) is None
    assert np.array_equal(reading.interests(SILENT), deaf.interests(SILENT))
    assert reading.recommend(SILENT, 7) == deaf.recommend(SILENT, 7)


def test_whoever_asks_beside_it_a_history_without_texts_is_answered_alike(
    session: Session, deaf: Session
) -> None:
    terms = session.interest_terms([*SILENT, *SPOKEN])
    assert not terms["asked"][: len(SILENT)].any()
    beside = session.recommend([*SILENT, *SPOKEN], 5)[: len(SILENT)]

    for ranked, alone in zip(beside, deaf.recommend(SILENT, 5), strict=True):
        assert [r.item for r in ranked] == [r.item for r in alone]
        for ours, theirs in zip(ranked, alone, strict=True):
            assert tuple(ours.terms) == tuple(theirs.terms) == TERMS
            assert ours.score == pytest.approx(theirs.score, abs=1e-5)


def test_the_parts_of_an_interest_add_up_to_its_log_odds(session: Session, deaf: Session) -> None:
    terms, before = session.interest_terms(SPOKEN), deaf.interest_terms(SPOKEN)

    assert list(terms) == [*before, "asked"]
    for name, part in before.items():
        assert terms[name] == pytest.approx(part, abs=1e-5), name
    assert np.abs(terms["asked"]).max() > 0
    assert np.array_equal(session.interests(SPOKEN), from_log_odds(terms))
    assert logit(session.interests(SPOKEN).astype(float)) == pytest.approx(
        sum(terms.values()), abs=1e-2
    )


def test_the_terms_of_a_recommendation_add_up_with_what_was_asked(
    session: Session, deaf: Session
) -> None:
    for ranked in session.recommend(SPOKEN, 6):
        for r in ranked:
            assert tuple(r.terms) == (*TERMS, *ASKED)
            assert sum(r.terms.values()) == pytest.approx(r.score, abs=1e-5)
    interests = session.interests(SPOKEN)
    contributions = session.score_terms(SPOKEN, interests).contributions()
    rest = sum(values for name, values in contributions.items() if name in TERMS)
    assert deaf.scores(SPOKEN, interests) == pytest.approx(rest, abs=1e-4)


Q = arrays.arrays(np.float64, 3, elements=st.floats(0, 1))
P = arrays.arrays(np.float64, 3, elements=st.floats(0.001, 0.999))


def _wishes(wanted: np.ndarray, refused: np.ndarray) -> Wishes:
    nothing, none = csr_array((1, 1), dtype=np.float32), np.zeros((1, 0), np.float32)
    return Wishes(
        wanted[None].astype(np.float32), refused[None].astype(np.float32), none, nothing, nothing
    )


@given(P, Q, Q)
def test_what_was_asked_moves_a_probability_as_the_formula_says(
    p: np.ndarray, wanted: np.ndarray, refused: np.ndarray
) -> None:
    moved = expit(logit(p) + _asked(logit(p[None]), _wishes(wanted, refused))[0])

    expected = (p + wanted * np.maximum(WANTED - p, 0)) * (1 - refused)
    assert moved == pytest.approx(np.clip(expected, 1e-6, 1 - 1e-6), abs=1e-5)


@given(P, Q)
def test_a_wish_never_lowers_and_a_refusal_never_raises(p: np.ndarray, sure: np.ndarray) -> None:
    nothing = np.zeros(3)

    wish = _asked(logit(p[None]), _wishes(sure, nothing))[0]
    refusal = _asked(logit(p[None]), _wishes(nothing, sure))[0]

    assert (wish >= 0).all() and (refusal <= 0).all()
    assert (expit(logit(p) + wish) <= np.maximum(p, WANTED) + 1e-6).all()
    assert not _asked(logit(p[None]), _wishes(nothing, nothing)).any()


def test_a_review_in_words_alone_has_the_value_of_its_sentiment(session: Session) -> None:
    texts = ["good film 3", "bad film 4"]
    probabilities = session.sentiment(texts)
    said = [Event("review", f"i{n}", n, None, text) for n, text in enumerate(texts)]
    others = [
        Event("review", "i3", 5, 0.5, "good film 3"),  # has a value
        Event("share", "i4", 6, None, "good film 3"),  # needs none
        Event("search", None, 7, None, "good film 3"),  # is about no item
        Event("review", "i5", 8, 0.9),  # has no words
    ]

    [understood] = session.understood([[*said, *others]])

    assert [event.value for event in understood[:2]] == [
        None if abs(p - 0.5) < 0.15 else pytest.approx(float(p)) for p in probabilities
    ]
    assert any(event.value is not None for event in understood[:2]), "of these words one is sure"
    assert [(e.kind, e.item, e.text) for e in understood[:2]] == [
        (e.kind, e.item, e.text) for e in said
    ]
    assert list(understood[2:]) == others


def test_words_that_are_neither_for_nor_against_stay_without_a_value(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    sure = {"grand": 0.9, "fair": 0.64, "so": 0.5, "poor": 0.36, "awful": 0.05}
    monkeypatch.setattr(
        Session, "sentiment", lambda self, texts: np.array([sure[t] for t in texts])
    )
    history = [Event("review", f"i{n}", n, None, text) for n, text in enumerate(sure)]

    [understood] = session.understood([history])

    assert [event.value for event in understood] == [0.9, None, None, None, 0.05]


def test_a_bundle_from_before_words_were_read_answers_as_it_did(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    """Without the reader, its heads, the arrays and the λ of the new terms."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    earlier = tmp_path / "bundle"
    (earlier / LANGUAGE_FILE).unlink()
    shutil.rmtree(earlier / "models" / "encoder")
    arrays_of = dict(load_file(earlier / RECOMMENDER_FILE))
    new = {"kin", "bears", "meaning"}
    assert new < set(arrays_of)
    save_file({n: a for n, a in arrays_of.items() if n not in new}, earlier / RECOMMENDER_FILE)
    card = json.loads((earlier / "card.json").read_text())
    del card["models"]["encoder"], card["tasks"]["intent"]
    for name in ("opinion", *ASKED):
        card["recommender"]["weights"].pop(name, None)
        card["recommender"]["new_weights"].pop(name, None)
    (earlier / "card.json").write_text(json.dumps(card))
    (earlier / "manifest.json").unlink()
    seal(earlier)

    session, deaf = Session.load(earlier), without_reader(tiny_bundle)
    assert deaf.recommender is not None
    theirs = {n: w for n, w in deaf.recommender.weights.items() if n not in ("opinion", *ASKED)}
    deaf.recommender = replace(deaf.recommender, weights=theirs)

    histories = [*SILENT, *SPOKEN]
    assert BundleCard.read(earlier).recommender is not None and session.wishes(histories) is None
    assert "asked" not in session.interest_terms(histories)
    assert np.array_equal(session.interests(histories), deaf.interests(histories))
    before = deaf.score_terms(histories, deaf.interests(histories)).contributions()
    found = session.score_terms(histories, session.interests(histories)).contributions()
    assert set(found) == set(TERMS) - {"opinion"}
    assert all(np.array_equal(values, before[name]) for name, values in found.items())
    for ranked in session.recommend(histories, 4):
        for r in ranked:
            assert sum(r.terms.values()) == pytest.approx(r.score, abs=1e-5)


def test_what_an_answer_looks_at_twice_is_read_once(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session.load(tiny_bundle)
    history = [*ACTS, Event("review", "i1", 30, None, "a joy"), SPOKEN[1][-1]]
    read, felt = noted(monkeypatch, Reader, "read"), noted(monkeypatch, Session, "sentiment")

    first = session.recommend([history], 3)
    assert session.recommend([history], 3) == first

    assert read == [["war, but no comedy"]] and felt == [["a joy"]]


@pytest.mark.parametrize("model", ["interests", "recommend"])
def test_what_was_understood_is_told_for_each_history_and_read_only_once(
    session: Session, deaf: Session, model: str
) -> None:
    review = Event("review", "i1", 30, None, "a good film")
    histories = [*SPOKEN, [*ACTS, review], []]
    questions = [{"events": history, "k": None} for history in histories]
    with listening() as hearing:
        answers = session.compute(model, questions)
        passes = session.encoders[BASE_MODEL].cache.misses
        heard = session.heard(model, questions, hearing)
        assert session.encoders[BASE_MODEL].cache.misses == passes

    assert answers == session.compute(model, questions)
    assert [each["searches"] for each in heard] == [1, 1, 1, 0, 0]
    stances = ("favourable", "neutral", "unfavourable")
    assert [sum(each[name] for name in stances) for each in heard] == [0, 0, 0, 1, 0]
    assert set(heard[1]["wanted"]) | set(heard[1]["refused"]) <= set(session.labels)
    assert deaf.heard(model, questions, hearing) == []
    assert session.heard("sentiment", [{"text": "good"}], hearing) == []


def test_what_today_s_catalogue_has_is_not_lacking(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = np.zeros(len(session.labels), np.float32)
    wish = Reading(none, none, none, asks=1, unmet=0.9)
    monkeypatch.setattr(session, "_read", lambda texts: [wish] * len(texts))
    newer = TitleIndex.of([*session.catalogue.titles, "Zanzibar Quartet"])

    named, lacking = session.readings(["zanzibar quartet", "a toaster"], newer)

    assert named.unmet < 0.3 and lacking.unmet == pytest.approx(0.9, abs=0.1)
    assert session.readings(["zanzibar quartet"]) == [wish]
