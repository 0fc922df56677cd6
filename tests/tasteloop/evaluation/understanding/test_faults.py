"""The tests of understanding pass a model that understands, and catch six that do not."""

from __future__ import annotations

from functools import lru_cache

import pytest

from tasteloop import metrics
from tasteloop.evaluation.record import UNDERSTANDING
from tasteloop.evaluation.understanding.cases import Case, Material
from tasteloop.evaluation.understanding.kinds import KINDS
from tasteloop.evaluation.understanding.measure import (
    Understanding,
    make_cases,
    understand,
    units_of,
)
from tasteloop.evaluation.understanding.settings import UnderstandingSettings
from tests.support import readers

SEEDS = range(20)
CASES, STATEMENTS = 30, 90  # of a kind; of a kind of statement, of which a hundred are there
FAULTS = {
    "ignores text": (
        {"reads": False},
        ("wish", "wish_items", "paraphrase", "refusal", "title", "title_inexact", "plot")
        + ("loved_in_words", "hated_in_words"),
    ),
    "ignores negation": (
        {"negates": False},
        ("refusal", "refusal_items", "refusal_never_raises"),
    ),
    "ignores sign": ({"signs": False}, ("hated", "hated_in_words", "rejection")),
    "knows no plot": ({"remembers": False}, ("plot",)),
    "ignores negation in statements": ({"turns": False}, ("statement", "statement_sure")),
    "is always sure": ({"doubts": False}, ("statement_sure", "foreign_statement")),
}


@lru_cache(None)
def material_of(seed: int) -> Material:
    catalogue = readers.make_catalogue()
    return Material.of(catalogue, readers.LABELS, readers.make_histories(catalogue), [], seed)


@lru_cache(None)
def cases_of(seed: int) -> list[Case]:
    few, many = (
        make_cases(material_of(seed), UnderstandingSettings(cases=count * len(KINDS), seed=seed))
        for count in (CASES, STATEMENTS)
    )
    return [case for case in few if not case.text] + [case for case in many if case.text]


def shown_by(seed: int, **fault: bool) -> Understanding:
    material = material_of(seed)
    return understand(readers.RuleReader(material.catalogue, **fault), material, cases_of(seed))


@lru_cache(None)
def shown_by_the_reference(seed: int) -> Understanding:
    return shown_by(seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_model_that_understands_passes_every_kind_that_it_is_asked(seed: int) -> None:
    measures = shown_by_the_reference(seed).measures()

    assert len(measures) == 1 + len(KINDS)
    for metric, measure in measures.items():
        assert measure.value >= 0.9, metric


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_planted_fault_is_caught_beyond_doubt(seed: int, fault: str) -> None:
    flags, kinds = FAULTS[fault]
    good, faulty = shown_by_the_reference(seed), shown_by(seed, **flags)

    for kind in kinds:
        metric = f"{UNDERSTANDING}.{kind}"
        fall = metrics.difference(
            faulty.measures()[metric], good.measures()[metric], units_of(good.cases, metric)
        )
        assert fall.high is not None and fall.high < 0, (metric, fall)
    assert faulty.measures()[UNDERSTANDING].value < good.measures()[UNDERSTANDING].value


def test_a_fault_leaves_the_kinds_alone_that_it_does_not_concern() -> None:
    good, faulty = shown_by_the_reference(0).measures(), shown_by(0, negates=False).measures()

    for kind in ("wish", "title", "loved", "hated", "strength", "no_taste"):
        metric = f"{UNDERSTANDING}.{kind}"
        assert faulty[metric].value == good[metric].value


def test_a_model_that_is_always_sure_reads_statements_as_well_as_one_that_doubts() -> None:
    good, faulty = shown_by_the_reference(0).measures(), shown_by(0, doubts=False).measures()

    assert faulty["understanding.statement"].value == good["understanding.statement"].value


def test_a_failure_is_a_sentence_that_says_what_was_asked_and_what_came() -> None:
    failures = shown_by(0, reads=False).failures

    for sentences in failures.values():
        assert all(sentence[0].isupper() and sentence[-1] == "." for sentence in sentences)
    assert any("Without a history, the search" in sentence for sentence in failures["wish"])


def test_the_mean_gives_each_kind_the_same_weight() -> None:
    measures = shown_by(0, signs=False).measures()

    shares = [measure.value for metric, measure in measures.items() if metric != UNDERSTANDING]
    assert measures[UNDERSTANDING].value == pytest.approx(sum(shares) / len(shares))


def test_a_case_that_cannot_be_judged_does_not_count() -> None:
    shown = shown_by_the_reference(0)

    rows = shown.measures()["understanding.refusal_items"].rows
    assert 0 < rows[:, 1].sum() < len(rows)
