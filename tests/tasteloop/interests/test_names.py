"""Names hold the words that set a group apart, and no two are the same."""

from __future__ import annotations

import numpy as np

from tasteloop.interests.names import SEPARATOR, names_of, words_of

GARDEN = [f"Roses and garden tools, number {n}" for n in range(8)]
SPACE = [f"Rocket to the moon, number {n}" for n in range(8)]
GROUPS = np.array([0] * 8 + [1] * 8)


def named(texts: list[str], groups: np.ndarray, reserved: tuple[str, ...] = ()) -> list[str]:
    taken = np.arange(len(texts))[::-1]
    return names_of(texts, groups, taken, texts, reserved)


def test_a_name_holds_words_of_its_own_group_and_of_no_other():
    garden, space = named(GARDEN + SPACE, GROUPS)

    assert set(garden.split(SEPARATOR)) == {"roses", "garden", "tools"}
    assert set(space.split(SEPARATOR)) == {"rocket", "moon"}


def test_what_all_items_say_names_nothing():
    assert not any("number" in name for name in named(GARDEN + SPACE, GROUPS))


def test_chinese_titles_are_named_by_pairs_of_characters():
    cooking = [f"家常菜谱第{n}集" for n in "一二三四五六"]
    space = [f"星际飞船的故事{n}" for n in "一二三四五六"]
    first, second = named(cooking + space, np.array([0] * 6 + [1] * 6))

    assert "菜谱" in first and "家常" in first
    assert "星际" in second and "的" not in second


def test_a_group_without_words_of_its_own_is_called_after_its_item_that_most_took():
    titles = [f"title{chr(97 + n)}" for n in range(16)]
    first, second = named(titles, GROUPS)

    assert (first, second) == ("like titlea", "like titlei")


def test_groups_of_the_same_title_have_names_of_their_own():
    assert named(["🎬"] * 16, GROUPS) == ["like 🎬", "like 🎬 (2)"]


def test_a_long_title_without_spaces_is_cut():
    titles = [f"{chr(0x4E00 + n)}" * 50 for n in range(16)]
    first, second = named(titles, GROUPS)

    assert (first, second) == ("like " + "一" * 38 + " …", f"like {chr(0x4E08) * 38} …")


def test_a_name_that_is_reserved_is_not_given_again():
    taken_name = named(GARDEN + SPACE, GROUPS)[1]
    names = named(GARDEN + SPACE, GROUPS, (taken_name,))

    assert taken_name not in names and len(set(names)) == 2


def test_words_are_lower_case_without_stop_words_years_and_possessives():
    assert words_of("The King's Speech (2010)") == ["king", "speech"]
