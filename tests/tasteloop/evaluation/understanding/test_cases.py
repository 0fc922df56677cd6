"""How cases are made from a catalogue and histories."""

from __future__ import annotations

from collections import Counter

import pytest

from tasteloop.behaviour.events import Event
from tasteloop.behaviour.items import Catalogue
from tasteloop.evaluation.understanding.cases import Material, searched
from tasteloop.evaluation.understanding.kinds import KINDS
from tasteloop.evaluation.understanding.measure import make_cases
from tasteloop.evaluation.understanding.settings import UnderstandingSettings
from tests.support import readers

SETTINGS = UnderstandingSettings(cases=2400)


def make_material(seed: int = 0) -> Material:
    catalogue = readers.make_catalogue()
    return Material.of(
        catalogue, readers.LABELS, readers.make_histories(catalogue), ["A fine film."], seed
    )


def test_every_kind_has_cases_of_films_and_reviews() -> None:
    cases = make_cases(make_material(), SETTINGS)

    counts = Counter(case.kind for case in cases)
    assert set(counts) == {kind.name for kind in KINDS}
    assert len(cases) >= 2000
    assert min(counts.values()) >= 40


def test_the_same_seed_makes_the_same_cases_and_another_one_others() -> None:
    cases = make_cases(make_material(0), SETTINGS)

    assert cases == make_cases(make_material(0), SETTINGS)
    assert cases != make_cases(make_material(1), SETTINGS)


def test_labels_phrases_and_histories_are_asked_about_equally_often() -> None:
    cases = [case for case in make_cases(make_material(), SETTINGS) if case.kind == "wish"]

    labels = Counter(case.label for case in cases)
    histories = Counter(case.histories[0] for case in cases)
    assert set(labels) == set(readers.LABELS)
    assert max(labels.values()) - min(labels.values()) <= 1
    assert max(histories.values()) - min(histories.values()) <= 1
    assert () in histories


def test_every_case_begins_a_sentence_and_compares_what_it_changes() -> None:
    for case in make_cases(make_material(), SETTINGS):
        assert case.says[0].isupper(), case
        if not case.text:
            assert len(case.histories) >= 2, case
            assert all(event.kind for history in case.histories for event in history)


def test_an_item_that_is_looked_for_is_not_in_the_history() -> None:
    material = make_material()

    for case in make_cases(material, SETTINGS):
        if case.item is not None:
            known = {event.item for event in case.histories[0]}
            assert material.catalogue.items[case.item] not in known


def test_half_a_title_stands_in_no_other() -> None:
    titles = ["The Red House", "The Red Harbour", "Heat"]
    catalogue = Catalogue(["a", "b", "c"], titles, [["Drama"]] * 3, [None] * 3)
    material = Material.of(catalogue, ["Drama"], [], [], 0)

    assert [material.half_title(item) for item in range(3)] == ["house", "harbour", None]


def test_a_catalogue_in_chinese_is_asked_in_chinese_and_english_is_foreign_to_it() -> None:
    titles = [f"电影{n}号" for n in range(12)]
    labels = [["喜剧"] if n % 2 else ["恐怖"] for n in range(12)]
    catalogue = Catalogue([str(n) for n in range(12)], titles, labels, [None] * 12)

    material = Material.of(catalogue, ["喜剧", "恐怖"], [], ["很好看"], 0)

    languages = {kind: set() for kind in ("wish", "refusal", "foreign", "foreign_statement")}
    for case in make_cases(material, SETTINGS):
        if case.kind in languages:
            languages[case.kind].add(case.language)
    assert languages == {
        "wish": {"zh"},
        "refusal": {"zh"},
        "foreign": {"en"},
        "foreign_statement": {"en"},
    }


def test_a_catalogue_without_labels_is_asked_for_titles_alone() -> None:
    catalogue = Catalogue(["a", "b"], ["The Red House", "Heat"], [[], []], [None] * 2)

    cases = make_cases(Material.of(catalogue, [], [], [], 0), SETTINGS)

    kinds = {case.kind for case in cases}
    assert {"title", "title_inexact", "no_taste"} <= kinds
    assert not {"wish", "refusal", "loved", "strength", "foreign"} & kinds


@pytest.mark.parametrize("name", ["unknown", "Other", "(no genres listed)"])
def test_a_label_that_says_nothing_is_not_asked_for(name: str) -> None:
    catalogue = Catalogue([str(n) for n in range(9)], ["x"] * 9, [[name, "Drama"]] * 9, [None] * 9)

    assert Material.of(catalogue, ["Drama", name], [], [], 0).named_labels == ["Drama"]


def test_what_is_said_comes_after_the_history() -> None:
    history = (Event("rate", "i1", 5, 1.0), Event("rate", "i2", 3, 0.5))

    assert searched(history, "horror")[-1] == Event("search", None, 60_000_005, None, "horror")
    assert searched((Event("rate", "i1"),), "horror")[-1].time is None
    assert searched((), "horror") == (Event("search", text="horror"),)


def test_plots_are_asked_where_items_have_texts() -> None:
    (plot,) = (kind for kind in KINDS if kind.name == "plot")
    texts = [
        "When Bruno lost his crimson kite, an old juggler from Lisbon helped him.",
        "Six old friends quarrel bitterly during one long summer weekend.",
        None,
        None,
    ]

    def material(texts: list[str | None]) -> Material:
        titles = ["The Kite", "Gold Dust", "Night Ferry", "Harbour"]
        catalogue = Catalogue(["a", "b", "c", "d"], titles, [[]] * 4, texts)
        return Material.of(catalogue, [], [], [], 0)

    assert plot.make(material([None] * 4), 10) == []
    cases = plot.make(material(texts), 10)
    assert {case.item for case in cases} == {0, 1}
    for case in cases:
        search = case.histories[1][-1].text
        assert search is not None
        assert not {"Bruno", "Lisbon", "Directed", "Sousa", "kite"} & set(search.split())
