"""What is remembered of a text: words without names, that point at one item."""

from __future__ import annotations

from tasteloop.language.plots import Plots

TITLES = ["The Kite", "Gold Dust", "Night Ferry", "Harbour"]
TEXTS = [
    "When Bruno lost his crimson kite, an old juggler from Lisbon helped him. Directed by Ana Sousa.",
    "Two weary prospectors fight over gold. Directed by Ana Sousa.",
    "An old juggler helped two sailors across. Directed by Bruno Lang.",
    None,
]


def test_the_rarest_words_come_without_names_and_title_in_their_order() -> None:
    plots = Plots(TITLES, TEXTS)

    assert plots.rarest_words(0, 3) == "lost crimson from"
    assert plots.rarest_words(1, 4) == "weary prospectors fight over"


def test_a_clause_that_names_leave_too_short_gives_way_to_the_next() -> None:
    plots = Plots(
        ["A", "B"], ["Bruno and Ana, two thieves without scruples, steal.", "Ana, alone."]
    )

    assert plots.first_clause(0) == "two thieves without scruples"
    assert plots.first_clause(1) is None


def test_words_that_another_text_has_together_are_not_asked_for() -> None:
    words = "an honest farmer loses everything"
    plots = Plots(["A", "B"], [f"{words}.", f"{words} and finds happiness again."])

    assert plots.rarest_words(0, 3) is None and plots.first_clause(0) is None
    assert plots.rarest_words(1, 3) == "finds happiness again"


def test_as_many_words_more_as_it_takes_are_remembered() -> None:
    texts = [
        "green tulips bloom early",
        "green tulips bloom late",
        "green tulips early",
        "bloom early",
    ]
    plots = Plots(["A", "B", "C", "D"], texts)

    assert plots.rarest_words(0, 3) == "green tulips bloom early"


def test_of_a_text_without_spaces_nothing_is_remembered() -> None:
    plots = Plots(["甲", "乙"], ["一个牛仔玩偶感到嫉妒,因为新来的太空人。", "两个侦探追捕凶手。"])

    assert plots.rarest_words(0, 3) is None and plots.first_clause(0) is None
