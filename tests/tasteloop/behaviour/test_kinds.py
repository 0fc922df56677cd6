"""Kinds of behaviour: what each says of a wish, what its rows need, and what others call it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasteloop.behaviour.cleaning import RULES
from tasteloop.behaviour.events import Event
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.kinds import (
    ALIASES,
    DECLARED,
    KINDS,
    Kind,
    words_needing,
    words_without,
)
from tasteloop.behaviour.text import TextSettings, behaviour_text, in_order

CATALOGUE = Catalogue(["f"], ["Fargo"], [["Crime"]], [None])

# word, positive without a value, with 0.9, with 0.1, and what its text says in each case
CASES = [
    ("view", True, True, False, ("viewed", "viewed", "viewed")),
    ("click", True, True, True, ("clicked", "clicked", "clicked")),
    ("rate", False, True, False, ("rated", "liked", "disliked")),
    ("review", False, True, False, ("reviewed", "liked", "disliked")),
    ("share", True, True, True, ("shared", "shared", "shared")),
    ("purchase", True, True, True, ("bought", "bought", "bought")),
    ("like", True, True, True, ("liked", "liked", "liked")),
    ("dislike", False, False, False, ("disliked", "disliked", "disliked")),
    ("save", True, True, True, ("saved", "saved", "saved")),
    ("cart", True, True, True, ("put in the cart", "put in the cart", "put in the cart")),
    ("remove", False, False, False, ("removed", "removed", "removed")),
    ("comment", True, True, False, ("commented on", "commented on", "commented on")),
    ("follow", True, True, True, ("followed", "followed", "followed")),
    ("play", True, True, False, ("played", "finished", "abandoned")),
    ("skip", False, False, False, ("skipped", "skipped", "skipped")),
    ("hide", False, False, False, ("hid", "hid", "hid")),
    ("report", False, False, False, ("reported", "reported", "reported")),
]


@pytest.mark.parametrize(("word", "bare", "high", "low", "verbs"), CASES)
def test_what_each_kind_says(
    word: str, bare: bool, high: bool, low: bool, verbs: tuple[str, str, str]
) -> None:
    events = [Event(word, "f", 1, value) for value in (None, 0.9, 0.1)]

    texts = [behaviour_text([event], CATALOGUE, TextSettings(summary_labels=0)) for event in events]

    assert [event.positive() for event in events] == [bare, high, low]
    assert texts == [f"{verb} Fargo, crime" for verb in verbs]
    assert not Event(word, None, 1, 0.9).positive(), "without an item nothing is wanted"


def test_every_kind_is_in_a_table_of_these_tests() -> None:
    assert [case[0] for case in CASES] == [w for w in KINDS if w not in ("search", "impression")]


def test_the_sign_of_the_strength_is_what_a_kind_says() -> None:
    assert all(-1 <= kind.strength <= 1 for kind in DECLARED)
    assert [k.word for k in DECLARED if k.strength < 0] == [
        "dislike",
        "remove",
        "skip",
        "hide",
        "report",
    ]
    assert [k.word for k in DECLARED if k.strength == 0] == ["search", "impression"]


def test_what_was_merely_shown_is_no_history() -> None:
    shown, clicked = Event("impression", "f", 1), Event("click", "f", 2)

    assert not shown.is_act and not shown.consumes and not shown.positive()
    assert clicked.is_act and clicked.consumes
    assert in_order([clicked, *[shown] * 300], 200) == [clicked]
    assert behaviour_text([shown], CATALOGUE, TextSettings()) == "no history"


def test_needs() -> None:
    assert words_without("item") == ["search"]
    assert words_needing("text") == ["search"]
    assert words_needing("value") == ["rate"]
    assert RULES["incomplete"] == (
        "no item (all kinds but search), no value (rate), no text (search), neither (review)"
    )


def test_aliases_are_distinct_words() -> None:
    aliases = [alias for kind in DECLARED for alias in kind.aliases]
    assert len(set(aliases)) == len(aliases)
    assert not set(aliases) & set(KINDS)
    assert ALIASES["add_to_cart"] == "cart"  # Google Analytics 4
    assert ALIASES["Flag"] == "report"  # Activity Streams 2.0


VALUE = st.one_of(st.none(), st.floats(0, 1))


@given(st.sampled_from(DECLARED), VALUE)
def test_an_opinion_is_bounded_by_the_strength_and_has_its_sign_unless_a_value_says_other(
    kind: Kind, value: float | None
) -> None:
    opinion = kind.opinion(value, 0.7, 0.4)

    assert abs(opinion) <= abs(kind.strength)
    if not kind.value_matters:
        assert opinion == kind.strength
    elif value is None:
        assert opinion == (0 if kind.value == "decides" else kind.strength)
    assert (opinion > 0) == kind.is_positive(value, 0.7), "what is wanted is what is liked"
    if opinion < 0 <= kind.strength:
        assert value is not None and value < 0.4


@given(st.sampled_from(DECLARED), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_value_is_never_a_worse_opinion(kind: Kind, one: float, other: float) -> None:
    low, high = sorted((one, other))

    assert kind.opinion(low, 0.7, 0.4) <= kind.opinion(high, 0.7, 0.4)


def test_an_event_has_the_opinion_of_its_kind_and_none_without_an_item() -> None:
    assert Event("rate", "f", 1, 0.0).opinion() == -1
    assert Event("like", "f", 1).opinion() == KINDS["like"].strength
    assert Event("rate", None, 1, 0.0).opinion() == 0
    assert Event("a kind of later", "f", 1).opinion() == 0
