"""A history as text: literal examples, and what must hold for every history."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tasteloop.behaviour.events import Event
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.kinds import KINDS
from tasteloop.behaviour.text import TextSettings, behaviour_text, in_order

CATALOGUE = Catalogue(
    ["f", "h", "t"],
    ["Fargo", "Heat", "Twister"],
    [["Crime", "Drama"], ["Crime"], ["Action"]],
    [None] * 3,
)
SETTINGS = TextSettings()


def rate(item: str, value: float, time: int) -> Event:
    return Event("rate", item, time, value)


def test_newest_first_verbs_said_once_and_labels_summed() -> None:
    history = [rate("t", 0.0, 1), rate("h", 1.0, 2), rate("f", 0.75, 3)]
    assert behaviour_text(history, CATALOGUE, SETTINGS) == (
        "mostly crime 100, drama 50 of 3 events; liked Fargo, crime drama; Heat, crime; disliked Twister, action"
    )


def test_every_kind_is_told() -> None:
    history = [
        Event("view", "f", 1),
        Event("search", None, 2, None, "space opera"),
        Event("click", "h", 3),
        Event("review", "t", 4, 0.1, "far too loud"),
        Event("share", "f", 5),
        Event("purchase", "unheard of", 6),
    ]
    assert behaviour_text(history, CATALOGUE, TextSettings(summary_labels=0)) == (
        'bought unheard of; shared Fargo, crime drama; disliked Twister, action, "far too loud"; '
        'clicked Heat, crime; searched "space opera"; viewed Fargo, crime drama'
    ).replace("\\", "")


def test_a_long_text_is_quoted_in_part_in_any_script() -> None:
    english, chinese = "one two three " * 10, "房间很干净" * 100
    history = [Event("search", None, 1, None, english), Event("search", None, 2, None, chinese)]
    assert behaviour_text(history, CATALOGUE, SETTINGS) == (
        f'searched "{chinese[:72]}"; "{"one two three " * 3}one two three"'
    )


def test_no_history_has_words_too() -> None:
    assert behaviour_text([], CATALOGUE, SETTINGS) == "no history"


def test_without_times_the_given_order_is_trusted() -> None:
    assert [e.item for e in in_order([Event("click", "f", 9), Event("click", "h")], 10)] == [
        "f",
        "h",
    ]
    assert [e.item for e in in_order([Event("click", "f", 9), Event("click", "h", 1)], 10)] == [
        "h",
        "f",
    ]


events = st.builds(
    Event,
    kind=st.sampled_from([word for word, kind in KINDS.items() if kind.is_act]),
    item=st.sampled_from(["f", "h", "t", "new"]),
    time=st.integers(0, 2**40),
    value=st.none() | st.floats(0, 1),
    text=st.none() | st.text(min_size=1).filter(str.strip),
)


@given(st.lists(events, max_size=40, unique_by=lambda e: e.time))
def test_order_of_arrival_does_not_matter_and_text_is_one_piece(history: list[Event]) -> None:
    text = behaviour_text(history, CATALOGUE, SETTINGS)
    assert text.strip()
    assert text == behaviour_text(history[::-1], CATALOGUE, SETTINGS)


@given(st.lists(events, min_size=12, max_size=40, unique_by=lambda e: e.time))
def test_only_the_newest_events_count(history: list[Event]) -> None:
    settings = TextSettings(history_limit=10)
    newest = sorted(history, key=lambda e: e.time or 0)[-10:]
    assert behaviour_text(history, CATALOGUE, settings) == behaviour_text(
        newest, CATALOGUE, settings
    )
