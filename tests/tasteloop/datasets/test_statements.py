"""Composed statements: what they say of themselves is so, and they are nobody's test."""

from __future__ import annotations

import re

import pytest

from tasteloop.datasets import reviews, statements
from tasteloop.evaluation.understanding.testing_phrases import TESTING
from tasteloop.language.phrases import normalise

STATEMENTS = list(statements.compose(4000))


@pytest.mark.parametrize("name", statements.SOURCES)
def test_statements_are_the_same_each_time_each_once_and_as_many_favourable_as_not(
    name: str,
) -> None:
    table = statements.read(name)

    assert table.equals(statements.read(name))
    assert table["text"].n_unique() == statements.STATEMENTS
    assert (table["sentiment"] == "positive").sum() == statements.STATEMENTS / 2


@pytest.mark.parametrize("name", statements.SOURCES)
def test_no_words_stand_for_praise_and_for_blame(name: str) -> None:
    removed = reviews.clean({name: statements.read(name)}).removed

    assert removed["disputed_text"] == removed["unknown_sentiment"] == 0


@pytest.mark.parametrize("language", statements.SOURCES.values())
def test_no_phrase_of_the_tests_of_understanding_is_composed(
    language: statements.Language,
) -> None:
    texts = [text for text, _ in statements.compose(statements.STATEMENTS, language=language)]
    assert statements.language_of(texts) == language
    texts += statements.no_opinions(3000, language=language)
    composed = {normalise(text) for text in texts}

    tested = {normalise(phrase) for phrases in TESTING.values() for phrase in phrases.all()}
    assert composed & tested == set()


@pytest.mark.parametrize(
    ("pattern", "turned"),
    [
        (r"is (?:not|never) ([\w-]+)[.!]?$", True),
        (r"far from ([\w-]+)[.!]?$", True),
        (r" is (?:very |really |so )([\w-]+)[.!]?$", False),
        (r"not [\w-]+ but ([\w-]+)[.!]?$", False),
        (r"is [\w-]+, yet ([\w-]+)[.!]?$", False),
    ],
)
def test_negation_turns_a_word_round_and_the_last_of_a_contrast_wins(
    pattern: str, turned: bool
) -> None:
    praise, blame = (set(words) for words in statements.ADJECTIVES)
    judged = 0
    for text, favourable in STATEMENTS:
        match = re.search(pattern, text)
        if match and match[1] in praise | blame and text.count(",") <= pattern.count(","):
            judged += 1
            assert favourable == ((match[1] in praise) != turned), text
    assert judged


def test_texts_without_an_opinion_hold_no_word_of_one_but_titles_of_items_among_them() -> None:
    texts = list(statements.no_opinions(500, ["Heat (1995)"]))

    opinions = {word for side in statements.ADJECTIVES for word in side}
    assert len(set(texts)) == 500
    assert "Heat (1995)" in texts
    assert not [text for text in texts if opinions & set(re.findall(r"[\w-]+", text.lower()))]
