"""Explanations add up: that is what makes them explanations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasteloop.errors import TasteloopError
from tasteloop.recommender.recommend import ASKED, TERMS
from tasteloop.runtime import explain as explaining
from tasteloop.runtime.questions import parse
from tasteloop.runtime.session import Session

EVENTS: list[dict[str, Any]] = [
    {"kind": "rate", "item": "i3", "time": 30, "value": 1.0},
    {"kind": "rate", "item": "i8", "time": 10, "value": 0.0},
    {"kind": "click", "item": "i5", "time": 20},
    {"kind": "search", "text": "good film", "time": 40},
    {"kind": "click", "item": "no such item", "time": 50},
]
WHOLE = {"popularity"}  # terms that have no parts
MANY = [{"kind": "rate", "item": f"i{n % 40}", "time": n, "value": (n % 3) / 2} for n in range(50)]


def explain(session: Session, model: str, instances: list[Any]) -> list[dict[str, Any]]:
    return explaining.explain(session, model, parse(model, instances))


@pytest.fixture(scope="module")
def session(tiny_bundle: Path) -> Session:
    """With every λ above 0, so that each term has parts."""
    from dataclasses import replace

    session = Session.load(tiny_bundle)
    assert session.recommender
    weights = dict.fromkeys(session.recommender.weights, (0.25, 0.1))
    session.recommender = replace(session.recommender, weights=weights)
    return session


@pytest.mark.parametrize(
    "events", [[], EVENTS[:1], EVENTS, MANY], ids=["none", "one", "five", "fifty"]
)
def test_the_events_of_an_interest_add_up_to_what_they_changed(
    session: Session, events: list[dict[str, Any]]
) -> None:
    [found] = explain(session, "interests", [{"events": events, "k": 4}])
    [answer] = session.answer("interests", [{"events": events}])
    [nothing] = session.answer("interests", [{"events": []}])
    without = {entry["label"]: entry["probability"] for entry in nothing["interests"]}
    assert [e["label"] for e in found["interests"]] == [e["label"] for e in answer["interests"]]
    for entry, told in zip(found["interests"], answer["interests"], strict=True):
        assert entry["probability"] == pytest.approx(told["probability"], abs=1e-5)
        assert entry["baseline"] == pytest.approx(without[entry["label"]], abs=1e-5)
        total = sum(part["contribution"] for part in entry["parts"])
        assert total == pytest.approx(entry["probability"] - entry["baseline"], abs=1e-6)
        assert sorted(place for part in entry["parts"] for place in part["events"]) == list(
            range(len(events))
        )
        sizes = [abs(part["contribution"]) for part in entry["parts"]]
        assert sizes == sorted(sizes, reverse=True)


def test_what_is_older_than_the_newest_events_is_told_together(session: Session) -> None:
    [found] = explain(session, "interests", [{"events": MANY}])
    groups = [part["events"] for part in found["interests"][0]["parts"]]
    assert max(groups, key=len) == list(range(18))
    assert sorted(len(group) for group in groups) == [1] * 32 + [18]


@pytest.mark.parametrize("events", [EVENTS, MANY], ids=["five", "fifty"])
def test_the_terms_of_a_recommendation_add_up_and_their_parts_too(
    session: Session, events: list[dict[str, Any]]
) -> None:
    [found] = explain(session, "recommend", [{"events": events, "k": 5}])
    [answer] = session.answer("recommend", [{"events": events, "k": 5}])
    assert [r["item"] for r in found["recommendations"]] == [
        r["item"] for r in answer["recommendations"]
    ]
    for entry, told in zip(found["recommendations"], answer["recommendations"], strict=True):
        assert entry["score"] == pytest.approx(told["score"], abs=1e-6)
        terms = {term["term"]: term for term in entry["terms"]}
        assert sum(term["contribution"] for term in entry["terms"]) == pytest.approx(
            entry["score"], abs=1e-6
        )
        assert {name: t["contribution"] for name, t in terms.items()} == {
            name: value for reason in told["reasons"] for name, value in reason["terms"].items()
        }
        for name in set(terms) - set(WHOLE):
            total = sum(part["contribution"] for part in terms[name]["parts"])
            assert total == pytest.approx(terms[name]["contribution"], abs=1e-4), name
        assert {part["label"] for part in terms["interest"]["parts"]} == set(session.labels)
        assert {part["label"] for part in terms["taste"]["parts"]} <= set(
            session.catalogue.label_names
        )
        for name in WHOLE & set(terms):
            assert terms[name]["parts"] == [], name
        assert (set(terms) == {*TERMS, *ASKED}) == any("text" in event for event in events)


def test_liked_events_are_reasons_and_rejected_ones_only_of_what_was_thought_of_them(
    session: Session,
) -> None:
    [found] = explain(session, "recommend", [{"events": EVENTS, "k": 1}])
    terms = {term["term"]: term for term in found["recommendations"][0]["terms"]}
    for name in ("content", "collaborative", "factors_liked"):
        assert {part["event"] for part in terms[name]["parts"]} == {0, 2}, name
    for name in ("factors_seen", "spectral", "nearby", "nearby_whole"):
        assert {part["event"] for part in terms[name]["parts"]} == {0, 2}, name
    assert {part["event"] for part in terms["opinion"]["parts"]} == {0, 1, 2}, "rejections count"


def test_without_history_no_event_is_a_reason(session: Session) -> None:
    [found] = explain(session, "recommend", [{"events": [], "k": 1}])
    for term in found["recommendations"][0]["terms"]:
        if term["term"] not in ("interest", "taste", "popularity"):
            assert (term["contribution"], term["parts"]) == (0, []), term["term"]


@pytest.mark.parametrize(
    ("model", "instance", "told"),
    [
        ("taste", {}, "unknown model 'taste'"),
        (
            "interests",
            {"events": [{"kind": "veiw"}]},
            r"instances\[0\].events\[0\]: unknown event kind 'veiw'",
        ),
        ("recommend", {"events": [], "k": 0}, r"instances\[0\].k: a whole number"),
    ],
)
def test_what_is_asked_wrongly_is_told(
    session: Session, model: str, instance: Any, told: str
) -> None:
    with pytest.raises(TasteloopError, match=told):
        explain(session, model, [instance])
