"""Titles are found whole, by a half of them, and mistyped; words that are none are not taken for
one.
"""

from __future__ import annotations

import numpy as np
import pytest

from tasteloop.language.reader import Reader
from tasteloop.language.titles import FEATURES, TitleIndex, name_of
from tests.support.films import FILMS, embed, intents, position


@pytest.mark.parametrize(
    "text",
    [
        "Pulp Fiction",
        "find Pulp Fiction please",
        "the movie pulp fiction",
        "pulp",
        "Pulp Fictoin",
        "watch plup fiction tonight",
    ],
)
def test_a_title_is_found_whole_half_and_mistyped(reader: Reader, text: str) -> None:
    found = reader.named_titles(reader.spelling.correct(text))

    assert max(found, key=found.__getitem__) == position("Pulp Fiction")
    assert found[position("Pulp Fiction")] > 0.5


def test_every_whole_title_is_found_before_any_other(reader: Reader) -> None:
    for title in FILMS:
        found = reader.named_titles(reader.spelling.correct(title))
        assert max(found, key=found.__getitem__) == position(title), title


@pytest.mark.parametrize("text", ["a comedy", "zzz", "", "12", "where is my order"])
def test_what_names_no_title_finds_none(reader: Reader, text: str) -> None:
    assert max(reader.named_titles(text).values(), default=0) < 0.3


@pytest.mark.parametrize(
    "text",
    ["No Country for Old Men", "find No Country for Old Men", "watch no country for old men"],
)
def test_the_no_of_a_title_refuses_nothing(reader: Reader, text: str) -> None:
    [reading] = reader.read([text], embed, intents)

    assert reading.titles[position("No Country for Old Men")] > 0.5
    assert position("No Country for Old Men") not in reading.refused_titles
    assert reading.refused.max() < 0.1


def test_an_article_is_no_part_of_a_title() -> None:
    names = [name_of(title) for title in ("The Shining", "Shining, The", "shining", "The", "")]

    assert names == ["shining", "shining", "shining", "the", ""]


def test_how_much_is_shared_by_hand() -> None:
    """Of "heat" and nothing else, all of the title is found, and all of the text."""
    index = TitleIndex.of(["Heat", "Scream", None])

    positions, features = index.compare("the HEAT")

    row = dict(zip(FEATURES, features[positions.tolist().index(0)].tolist(), strict=True))
    assert row["of the title"] == pytest.approx(1)
    assert row["of the text"] == pytest.approx(1)
    assert (row["whole words"], row["ahead of the next"]) == (1, pytest.approx(1))
    # a word and its four runs of three letters, each in one title of three
    assert row["length"] == pytest.approx(np.log1p(5 * np.log1p(3)))


def test_a_catalogue_without_titles_names_none() -> None:
    index = TitleIndex.of([None, ""])

    positions, features = index.compare("Heat")

    assert positions.tolist() == [] and features.shape == (0, len(FEATURES))
