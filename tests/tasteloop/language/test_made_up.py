"""Words that users of training snapshots might have said fit what they went on to choose."""

from __future__ import annotations

from collections.abc import Sequence

from tasteloop.behaviour.events import Event
from tasteloop.behaviour.items import Catalogue
from tasteloop.language.made_up import Chosen, MadeUpSpeech
from tasteloop.language.phrases import normalise
from tasteloop.language.training_phrases import TRAINING
from tests.support.films import LABELS

HISTORY = [Event("rate", "f0", 1, 1.0), Event("rate", "f1", 2, 0.0)]
PRAISE, BLAME = ["a joy"], ["a bore"]


def said(films: Catalogue, chosen: Chosen, history: Sequence[Event] = HISTORY) -> list[list[Event]]:
    speech = MadeUpSpeech(films, LABELS, PRAISE, BLAME, seed=0)
    return [speech.spoken(history, chosen) for _ in range(200)]


def test_a_wish_asks_for_what_was_chosen_and_a_refusal_for_what_was_not(films: Catalogue) -> None:
    label, *others = LABELS
    items = [n for n, labels in enumerate(films.labels) if label in labels]
    searches = [
        event.text or ""
        for events in said(films, Chosen(items, [label]))
        for event in events
        if event.kind == "search"
    ]

    phrases = TRAINING["en"]
    named = phrases.label(label)
    wishes = {normalise(each.format(label=named)) for each in phrases.wishes}
    refused = {
        normalise(each.format(label=phrases.label(other)))
        for each in phrases.refusals
        for other in others
    }
    known = {normalise(text) for text in searches}
    assert known & wishes and known & refused
    assert not known & {normalise(each.format(label=named)) for each in phrases.refusals}
    assert any(films.titles[items[0]] in text for text in searches)


def test_a_search_stands_among_the_last_acts_and_nothing_else_changes(films: Catalogue) -> None:
    for events in said(films, Chosen([0], [LABELS[0]])):
        acts = [event for event in events if event.kind != "search"]
        assert [event.item for event in acts] == ["f0", "f1"]
        assert len(events) - len(acts) <= 1
        assert all(event.time is not None for event in events)


def test_a_review_is_as_favourable_as_the_value(films: Catalogue) -> None:
    written = {
        (event.item, event.text)
        for events in said(films, Chosen([], []))
        for event in events
        if event.item and event.text
    }

    assert written == {("f0", "a joy"), ("f1", "a bore")}


def test_where_nothing_can_be_made_up_the_history_stays(films: Catalogue) -> None:
    speech = MadeUpSpeech(films, [], [], [], seed=0)

    assert speech.spoken(HISTORY, Chosen([], [])) == HISTORY
