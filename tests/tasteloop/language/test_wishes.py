"""Texts add up in order: the later has the last word, wishes fade and refusals last."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasteloop.behaviour.events import Event
from tasteloop.language.reader import Reader
from tasteloop.language.wishes import REFUSAL_DECAY, WISH_DECAY, Wishes, sayings
from tests.support.films import FILMS, embed, intents, position

COMEDY, CRIME, HORROR, WESTERN = range(4)
CLICK = Event("click", "f1")
LIMIT = 200


def search(text: str) -> Event:
    return Event("search", None, None, None, text)


def wishes(reader: Reader, *histories: list[Event]) -> Wishes:
    return Wishes.of(histories, reader, partial(reader.read, embed=embed, intents=intents), LIMIT)


def test_a_later_refusal_takes_back_a_wish_and_a_later_wish_a_refusal(reader: Reader) -> None:
    comedy, none = search("comedy"), search("no comedy")

    found = wishes(reader, [comedy], [none], [comedy, none], [none, comedy])

    wanted, refused = found.wanted[:, COMEDY], found.refused[:, COMEDY]
    assert wanted[0] > 0.5 and refused[1] > 0.5
    assert wanted[2] == pytest.approx(WISH_DECAY * wanted[0] * (1 - refused[1]))
    assert refused[2] == pytest.approx(refused[1]) and refused[2] > wanted[2]
    assert wanted[3] == pytest.approx(wanted[0]) and wanted[3] > refused[3]
    assert refused[3] == pytest.approx(REFUSAL_DECAY * refused[1] * (1 - wanted[0]))


def test_wishes_fade_with_every_act_and_refusals_hardly_do(reader: Reader) -> None:
    text = search("a western, but no comedy")

    now, later = wishes(reader, [text]), wishes(reader, [text, *[CLICK] * 10])

    assert later.wanted[0, WESTERN] == pytest.approx(WISH_DECAY**10 * now.wanted[0, WESTERN])
    assert later.refused[0, COMEDY] == pytest.approx(REFUSAL_DECAY**10 * now.refused[0, COMEDY])
    assert np.linalg.norm(later.direction) == pytest.approx(
        WISH_DECAY**10 * np.linalg.norm(now.direction)
    )


def test_a_wish_beside_another_takes_nothing_from_it(reader: Reader) -> None:
    western, both = wishes(
        reader, [search("western")], [search("horror"), search("western")]
    ).wanted

    assert both[WESTERN] == pytest.approx(western[WESTERN])
    assert both[HORROR] > 0.4


def test_what_was_said_twice_is_not_wanted_more_than_surely(reader: Reader) -> None:
    [row] = wishes(reader, [search("western")] * 30).wanted

    assert 0.5 < row[WESTERN] <= 1


def test_titles_are_kept_as_they_fade(reader: Reader) -> None:
    scream = position("Scream")

    found = wishes(reader, [search("scream")], [search("scream"), CLICK]).titles.toarray()

    assert found[0, scream] > 0.5
    assert found[1, scream] == pytest.approx(WISH_DECAY * found[0, scream])


def test_a_refused_title_is_kept_as_refused(reader: Reader) -> None:
    found = wishes(reader, [search("not scream")])

    scream = position("Scream")
    assert found.refused_titles.toarray()[0, scream] > found.titles.toarray()[0, scream]


def test_only_what_is_about_no_item_is_said(reader: Reader) -> None:
    history = [
        Event("review", "f1", 1, None, "no horror"),
        Event("search", None, 3, None, "comedy"),
        Event("click", "f2", 2),
        Event("impression", "f3", 4),
    ]

    assert sayings(history, LIMIT) == [("comedy", 0)]
    assert sayings(history[:1], LIMIT) == []
    assert sayings([search("old"), *[CLICK] * LIMIT], LIMIT) == [], "beyond the history's limit"


def test_who_said_nothing_wants_nothing(reader: Reader) -> None:
    alone, beside = wishes(reader, [CLICK]), wishes(reader, [CLICK], [search("comedy")])

    for found in (alone, beside):
        assert not found.any[0]
        assert (
            found.wanted[0].max() == found.refused[0].max() == np.abs(found.direction[0]).max() == 0
        )
    assert beside.any.tolist() == [False, True]
    assert alone.titles.shape == (1, len(FILMS)) and len(alone) == 1


TEXTS = ("comedy", "no comedy", "a western, but no horror", "scream", "not scream", "thanks")
EVENTS = st.lists(st.one_of(st.just(CLICK), st.sampled_from(TEXTS).map(search)), max_size=8)


@given(st.lists(EVENTS, min_size=1, max_size=4))
def test_wishes_are_bounded_and_the_same_in_any_batch(
    reader: Reader, histories: list[list[Event]]
) -> None:
    together = wishes(reader, *histories)

    for row, history in enumerate(histories):
        alone = wishes(reader, history)
        for name in ("wanted", "refused", "direction"):
            ours = getattr(together, name)[row]
            assert ours == pytest.approx(getattr(alone, name)[0], abs=1e-6), name
            assert np.abs(ours).max() <= 1 + 1e-6
        for name in ("titles", "refused_titles"):
            ours = getattr(together, name).toarray()[row]
            assert ours == pytest.approx(getattr(alone, name).toarray()[0], abs=1e-6), name
            assert ours.min() >= 0 and ours.max() <= 1
        assert np.linalg.norm(together.direction[row]) <= 1 + 1e-5
        assert together.take(slice(row, row + 1)).any[0] == alone.any[0]
