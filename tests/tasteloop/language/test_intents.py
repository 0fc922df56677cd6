"""The clauses from which the head learns what a clause does."""

from __future__ import annotations

import numpy as np
import pytest

from tasteloop.behaviour.items import Catalogue
from tasteloop.evaluation.understanding.testing_phrases import TESTING
from tasteloop.language.clauses import clauses
from tasteloop.language.intents import REFUSES, WANTS, intent_texts, spoken_in
from tasteloop.language.phrases import Phrases, normalise
from tasteloop.language.training_phrases import TRAINING

LABELS = ["Comedy", "Horror"]


def test_clauses_are_the_same_for_the_same_seed_and_as_few_as_asked(films: Catalogue) -> None:
    first, again = (
        intent_texts(films, LABELS, 500, seed=3),
        intent_texts(films, LABELS, 500, seed=3),
    )
    other = intent_texts(films, LABELS, 500, seed=4)

    assert len(first.texts) == len(first.does) == len(first.is_validation) == 500
    assert first.texts == again.texts and np.array_equal(first.does, again.does)
    assert first.texts != other.texts


def test_a_clause_wants_or_refuses_or_neither_and_all_three_are_learned(films: Catalogue) -> None:
    found = intent_texts(films, LABELS)

    assert (found.does.sum(1) <= 1).all()
    share = found.does.mean(0)
    assert share[WANTS] > 0.2 and share[REFUSES] > 0.2 and share.sum() < 0.99
    held = found.does[found.is_validation]
    assert (held.min(0) == 0).all() and (held.max(0) == 1).all()


def test_what_wants_and_what_refuses_is_one_clause(films: Catalogue) -> None:
    found = intent_texts(films, LABELS, 800)

    refusals = [t for t, does in zip(found.texts, found.does, strict=True) if does[REFUSES]]
    assert refusals and all(len(clauses(text)) == 1 for text in refusals)


@pytest.mark.parametrize(
    ("language", "title", "labels"),
    [("en", "Heat", LABELS), ("zh", "霸王别姬", ["喜剧片", "恐怖片"])],
)
def test_no_clause_is_a_text_that_a_model_is_tested_with(
    language: str, title: str, labels: list[str]
) -> None:
    """Filled with the same label, no wish or refusal of the tests is among what is learned."""
    tests = TESTING[language]
    names = [tests.label(label) for label in labels]
    asked = {
        normalise(template.format(label=name))
        for template in (*tests.wishes, *tests.refusals)
        for name in names
    } - set(names)

    catalogue = Catalogue(["1"], [title], [labels], [None])
    learned = {normalise(text) for text in intent_texts(catalogue, labels, most=10**6).texts}

    assert learned and not asked & learned


@pytest.mark.parametrize(
    ("phrases", "label", "other"),
    [(TRAINING["en"], "horror", "comedy"), (TRAINING["zh"], "恐怖片", "喜剧片")],
    ids=TRAINING,
)
def test_nearly_every_phrase_is_cut_so_that_it_is_learned(
    phrases: Phrases, label: str, other: str
) -> None:
    """A wish or a refusal in one clause, a contrast in two: others teach the head nothing."""
    single = (*phrases.wishes, *phrases.refusals)
    cut = [each for each in single if len(clauses(each.format(label=label))) != 1]
    uncut = [
        each
        for each in phrases.contrasts
        if len(clauses(each.format(label=label, other=other))) != 2
    ]

    assert len(cut) <= len(single) // 40, cut
    assert len(uncut) <= len(phrases.contrasts) // 10, uncut


@pytest.mark.parametrize(
    ("titles", "languages"), [(["Heat"], ["en"]), (["霸王别姬"], ["zh"]), ([None], ["en"])]
)
def test_phrases_are_those_of_the_catalogue_s_language(
    titles: list[str | None], languages: list[str]
) -> None:
    catalogue = Catalogue(["1"], titles, [[]], [None])

    assert [phrases.language for phrases in spoken_in(catalogue)] == languages
    assert intent_texts(catalogue, [], 100).texts
