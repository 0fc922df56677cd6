"""A text is cut where its sign may change, and nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasteloop.language.clauses import clauses, cues

CUT = {
    "comedy, not animation": ["comedy", "not animation"],
    "westerns but no musicals": ["westerns", "but no musicals"],
    "I want a comedy without romance": ["I want a comedy", "without romance"],
    "I prefer westerns to musicals": ["I prefer westerns", "to musicals"],
    "crime rather than horror": ["crime", "rather than horror"],
    "thrillers; never horror": ["thrillers", "never horror"],
    "想看喜剧，不要恐怖片": ["想看喜剧", "不要恐怖片"],
    "想看喜剧不要恐怖片": ["想看喜剧", "不要恐怖片"],
    "comedy,not animation": ["comedy", "not animation"],
    "comedy with no violence": ["comedy", "with no violence"],
    "show westerns and hide musicals": ["show westerns", "and hide musicals"],
    "my evening needs a comedy without romance": ["my evening needs a comedy", "without romance"],
    "I can't find a comedy without romance": ["I can't find a comedy", "without romance"],
    "想看喜剧,不要恐怖片": ["想看喜剧", "不要恐怖片"],
    "想看喜剧但是不要恐怖片": ["想看喜剧", "但是不要恐怖片"],
    "来点喜剧最好别有恐怖片": ["来点喜剧", "最好别有恐怖片"],
    "想看喜剧不看恐怖片": ["想看喜剧", "不看恐怖片"],
}
WHOLE = (
    "no horror",
    "anything but horror",
    "I don't want horror",
    "I can't wait for a new western",
    "nothing but westerns",
    "why not a musical",
    "there is nothing like a western",
    "不要恐怖片",
    "好莱坞电影",
    "I can't live without westerns",
    "a day without westerns is a day wasted",
    "westerns never disappoint",
    "westerns never interested me",
    "musicals don't interest me",
    "horror is a no go",
    "never show me horror",
    "there is no need to show me horror",
    "I'd prefer not to see horror",
    "any genre but horror",
    "1,000 westerns",
    "特别喜欢恐怖片",
    "我也不想看恐怖片",
    "要不要看恐怖片",
    "谁不喜欢恐怖片",
    "除了恐怖片别的都行",
)
REFUSES = (
    "no horror",
    "I hate horror",
    "anything but horror",
    "without horror",
    "不要恐怖片",
    "讨厌恐怖片",
)
TURNS = (
    "I can't get enough of horror",
    "nothing beats a western",
    "I am never tired of horror",
    "I wouldn't mind horror",
    "why not a musical",
    "百看不厌的恐怖片",
)
NEITHER = ("horror, please", "cowboys and gunslingers", "恐怖片", "有没有恐怖片", "特别喜欢恐怖片")


@pytest.mark.parametrize("text", CUT)
def test_a_text_is_cut_where_its_sign_changes(text: str) -> None:
    assert clauses(text) == CUT[text]


@pytest.mark.parametrize("text", WHOLE)
def test_a_turn_of_phrase_is_one_clause(text: str) -> None:
    assert clauses(text) == [text]


def test_a_bare_no_belongs_to_what_came_before_it() -> None:
    assert clauses("horror? no thanks. comedy") == ["horror, no thanks", "comedy"]
    assert clauses("horror? not for me. comedy") == ["horror, not for me", "comedy"]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [(REFUSES, (True, False)), (TURNS, (True, True)), (NEITHER, (False, False))],
    ids=["refuses", "turns of phrase", "neither"],
)
def test_cues_know_refusals_and_the_turns_of_phrase_that_are_none(
    texts: tuple[str, ...], expected: tuple[bool, bool]
) -> None:
    assert {text: cues(text) for text in texts} == dict.fromkeys(texts, expected)


@given(st.text(max_size=200))
def test_any_text_has_few_clauses_each_with_a_word(text: str) -> None:
    found = clauses(text)

    assert len(found) <= 12
    assert all(any(char.isalnum() for char in clause) for clause in found)


@given(
    st.lists(st.sampled_from([*WHOLE[:6], "but", "not", "comedy", ",", "to", "。"]), max_size=30)
)
def test_clauses_hold_the_words_of_the_text_in_its_order(words: list[str]) -> None:
    text = " ".join(words)

    def letters(of: str) -> str:
        return "".join(char for char in of if char.isalnum())

    assert letters(text).endswith(letters("".join(clauses(text)))), "the last clauses are read"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "again", ["not ", "no without ", "a day without ", "我不要", "!a", "prefer "]
)
def test_a_text_of_any_length_is_cut_at_once(again):
    """It took minutes when all that stood before a word was read again for each word."""
    assert clauses(again * 50_000 + ", comedy without romance")[-2:] == [
        "comedy",
        "without romance",
    ]
