"""What the journal keeps of words: counts and labels, no words."""

from __future__ import annotations

import pytest

from tasteloop.behaviour.events import Event
from tasteloop.journal import heard_type
from tasteloop.language.hearing import Gist, Hearing, listening, note_readings, note_stances
from tasteloop.language.reader import Reader, Reading
from tests.support.films import LABELS, embed, intents


def search(text: str) -> Event:
    return Event("search", None, None, None, text)


def gist(reader: Reader, text: str) -> Gist:
    (reading,) = reader.read([text], embed, intents)
    return Gist.of(reading, LABELS)


def test_a_wish_for_a_label_is_met_and_one_for_nothing_of_the_catalogue_is_not(
    reader: Reader,
) -> None:
    met, unmet = gist(reader, "I want a western"), gist(reader, "garden chairs")

    assert met.asks == unmet.asks == 1
    assert met.wanted == ("Western",) and met.unmet < 0.4 and met.is_understood
    assert unmet.wanted == () and unmet.unmet > 0.6 and not unmet.is_understood


def test_a_title_that_is_named_is_met(reader: Reader) -> None:
    title = reader.titles.names[0]
    found = gist(reader, title)

    assert found.names_title and found.is_understood and found.unmet < 0.2


def test_a_refusal_asks_for_nothing(reader: Reader) -> None:
    found = gist(reader, "no comedy")

    assert (found.asks, found.unmet, found.wanted) == (0, 0.0, ())
    assert found.refuses and found.refused == ("Comedy",)


def test_what_is_kept_of_a_history_are_counts_and_labels(reader: Reader) -> None:
    history = [
        search("I want a western"),
        search("no comedy"),
        search("garden chairs"),
        search("never read"),
        Event("review", "f1", None, None, "loved it"),
        Event("review", "f1", None, None, "it exists"),
        Event("comment", "f2", None, None, "hated it"),
        Event("review", "f2", None, 1.0, "hated it"),  # its value says it
    ]
    stances = {"loved it": 0.9, "it exists": None, "hated it": 0.1}
    with listening() as hearing:
        texts = [event.text or "" for event in history[:3]]
        readings = dict(zip(texts, reader.read(texts, embed, intents), strict=True))
        note_readings(readings, LABELS)
        note_stances(stances)

    kept = hearing.of(history)

    assert set(kept) == {field.name for field in heard_type().fields}
    assert (kept["searches"], kept["understood"], kept["refusals"]) == (3, 2, 1)
    assert kept["asks"] == 2 and 0.6 < float(kept["unmet"]) < 1.4  # type: ignore[arg-type]
    assert (kept["wanted"], kept["refused"]) == (["Western"], ["Comedy"])
    assert (kept["favourable"], kept["neutral"], kept["unfavourable"]) == (1, 1, 1)


def test_only_who_listens_is_told_and_each_their_own() -> None:
    import numpy as np

    none = np.zeros(len(LABELS), np.float32)
    reading = Reading(none, none, np.zeros(2, np.float32))
    note_readings({"before": reading}, LABELS)
    with listening() as outer:
        note_stances({"a": 0.9})
        with listening() as inner:
            note_readings({"b": reading}, LABELS)

    assert (outer.readings, outer.stance) == ({}, {"a": 0.9})
    assert set(inner.readings) == {"b"} and inner.stance == {}
    assert Hearing().of([search("b")])["searches"] == 0


@pytest.mark.parametrize("text", ["", "🤠", "?!"])
def test_a_text_without_words_says_nothing(reader: Reader, text: str) -> None:
    found = gist(reader, text)

    assert found == Gist((), (), False, False, 0, 0.0)
