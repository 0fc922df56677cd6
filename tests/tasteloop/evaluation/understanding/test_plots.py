"""What is remembered of a text: words without names, that point at one item."""

from __future__ import annotations

from tasteloop.behaviour.items import Catalogue
from tasteloop.evaluation.understanding.cases import Material
from tasteloop.evaluation.understanding.kinds import KINDS
from tasteloop.evaluation.understanding.plots import Plots

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


def test_plots_are_asked_where_items_have_texts() -> None:
    (plot,) = (kind for kind in KINDS if kind.name == "plot")
    texts = [
        *TEXTS[:1],
        "Six old friends quarrel bitterly during one long summer weekend.",
        None,
        None,
    ]

    def material(texts: list[str | None]) -> Material:
        catalogue = Catalogue(["a", "b", "c", "d"], TITLES, [[]] * 4, texts)
        return Material.of(catalogue, [], [], [], 0)

    assert plot.make(material([None] * 4), 10) == []
    cases = plot.make(material(texts), 10)
    assert {case.item for case in cases} == {0, 1}
    for case in cases:
        search = case.histories[1][-1].text
        assert search is not None
        assert not {"Bruno", "Lisbon", "Directed", "Sousa", "kite"} & set(search.split())
