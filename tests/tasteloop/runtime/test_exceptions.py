"""Items that a question leaves out or allows, beside what its events consumed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasteloop.runtime.explain import explain
from tasteloop.runtime.questions import EXCEPTIONS, Exceptions, parse
from tasteloop.runtime.session import Session

EVENTS = [{"kind": "rate", "item": item, "value": 1.0} for item in ("i1", "i2")]


@pytest.fixture(scope="module")
def session(tiny_bundle: Path) -> Session:
    return Session.load(tiny_bundle)


def items(session: Session, exceptions: Exceptions | None) -> list[str]:
    [question] = parse("recommend", [{"events": EVENTS, "k": 1000}])
    answers = [
        ask("recommend", [{**question, EXCEPTIONS: exceptions}])
        for ask in (session.compute, lambda model, asked: explain(session, model, asked))
    ]
    answered, explained = (
        [row["item"] for row in answer["recommendations"]] for [answer] in answers
    )
    assert answered == explained
    return answered


def test_without_exceptions_the_consumed_items_alone_are_left_out(session: Session) -> None:
    everything = set(session.catalogue.items)

    assert set(items(session, None)) == everything - {"i1", "i2"}
    assert items(session, Exceptions()) == items(session, None)


def test_what_is_left_out_is_not_recommended_and_what_is_repeatable_may_be(
    session: Session,
) -> None:
    plain = items(session, None)
    exceptions = Exceptions(frozenset({plain[0], "unknown"}), frozenset({"i2", "unknown"}))

    changed = items(session, exceptions)

    assert set(changed) == {*plain[1:], "i2"}
    assert [item for item in changed if item != "i2"] == plain[1:]


def test_each_question_of_a_batch_has_its_own_exceptions(session: Session) -> None:
    [question] = parse("recommend", [{"events": EVENTS, "k": 1}])
    [first] = items(session, None)[:1]
    batch = [{**question, EXCEPTIONS: Exceptions(frozenset({first}))}, question]

    left_out, plain = session.compute("recommend", batch)

    assert plain["recommendations"][0]["item"] == first
    assert left_out["recommendations"][0]["item"] != first
