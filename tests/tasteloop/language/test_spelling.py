"""One typing error is mended, what is known stays."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasteloop.language.phrases import mistype
from tasteloop.language.spelling import Spelling

COMMON = ("the", "find", "with", "watch", "night", "knight", "parks", "western", "comedy")
SPELLING = Spelling.of(["Jurassic Park", "Poltergeist", "Unforgiven"], COMMON)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("Jurasisc", "jurassic"),  # exchanged
        ("jurasic", "jurassic"),  # lost
        ("jurassicc", "jurassic"),  # doubled
        ("jurassac", "jurassic"),  # another
        ("wstern", "western"),
        ("parkk", "park"),  # the catalogue's own word before the language's
        ("fjnd the wesstern", "find the western"),
    ],
)
def test_a_word_that_is_one_error_away_is_mended(typed: str, meant: str) -> None:
    assert SPELLING.correct(typed) == meant


@pytest.mark.parametrize("word", ["night", "knight", "the", "teh", "jurozzic", "恐怖片", "1917"])
def test_what_is_known_short_or_far_away_stays(word: str) -> None:
    assert SPELLING.correct(word) == word


def test_of_several_the_most_frequent_is_meant() -> None:
    common = ["house", "mouse"]
    assert Spelling.of([], common).word("xouse") == "house"
    assert Spelling.of([], common[::-1]).word("xouse") == "mouse"


@given(st.sampled_from(["jurassic", "a western unforgiven", "poltergeist"]), st.integers(0, 999))
def test_a_typing_error_in_a_word_of_five_letters_or_more_is_mended(text: str, seed: int) -> None:
    assert SPELLING.correct(mistype(text, random.Random(seed))) == text


@given(st.text(max_size=60))
def test_a_text_that_was_mended_is_not_mended_again(text: str) -> None:
    once = SPELLING.correct(text)

    assert SPELLING.correct(once) == once
