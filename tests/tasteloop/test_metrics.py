"""Measures against literal tables, and the laws of their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasteloop import metrics

SAID = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0]], float)
TRUE = np.array([[1, 0, 0], [0, 1, 1], [1, 0, 0]], float)


def test_classification_by_hand() -> None:
    # 3 hits, 5 said, 4 real
    assert metrics.precision(SAID, TRUE).value == pytest.approx(3 / 5)
    assert metrics.recall(SAID, TRUE).value == pytest.approx(3 / 4)
    assert metrics.micro_f1(SAID, TRUE).value == pytest.approx(6 / 9)
    assert metrics.accuracy(SAID, TRUE).value == pytest.approx(6 / 9)
    # labels: f1 = 1, 2/3, 0
    assert metrics.macro_f1(SAID, TRUE).value == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_macro_f1_leaves_out_labels_that_never_occur() -> None:
    assert metrics.macro_f1(np.array([[1.0, 1.0]]), np.array([[1.0, 0.0]])).value == 1


def test_ranking_by_hand() -> None:
    scores = np.array([[0.1, 0.9, 0.5, 0.9], [0.4, 0.3, 0.2, 0.1]])
    ranked = metrics.top_k(scores, 3)
    assert ranked.tolist() == [[1, 3, 2], [0, 1, 2]]  # a tie goes to the lower position
    relevant = [[3, 0], [3]]
    discount = 1 / np.log2([2, 3, 4])
    expected = [discount[1] / (discount[0] + discount[1]), 0.0]
    assert metrics.ndcg(ranked, relevant).rows[:, 0] == pytest.approx(expected)
    assert metrics.recall_at(ranked, relevant).rows[:, 0].tolist() == [0.5, 0.0]


@pytest.mark.parametrize(
    ("ranked", "relevant", "precision", "average_precision", "reciprocal_rank"),
    [
        ([4, 2, 7, 1], [2, 1, 9], 2 / 4, (1 / 2 + 2 / 4) / 3, 1 / 2),
        ([4, 2, 7, 1], [4, 2, 7, 1, 0, 3], 1, 4 / 6, 1),
        ([4, 2, 7, 1], [9], 0, 0, 0),
        ([4, 2, 7, 1], [], 0, 0, 0),
        # the catalogue ended; a relevant item named twice is one
        ([4, -1, -1, -1], [4, 4], 1 / 4, 1, 1),
    ],
)
def test_rankings_by_hand(ranked, relevant, precision, average_precision, reciprocal_rank) -> None:
    rows = np.array([ranked])
    assert metrics.precision_at(rows, [relevant]).value == pytest.approx(precision)
    assert metrics.average_precision(rows, [relevant]).value == pytest.approx(average_precision)
    assert metrics.reciprocal_rank(rows, [relevant]).value == pytest.approx(reciprocal_rank)


@given(st.integers(0, 10_000))
def test_hits_are_membership(seed: int) -> None:
    """The vectorised form against the sentence: is this item among the row's relevant ones?"""
    rng = np.random.default_rng(seed)
    ranked = rng.integers(-1, 12, (5, 4))
    relevant = [rng.integers(0, 15, rng.integers(0, 6)).tolist() for _ in range(5)]
    expected = [
        [float(i in wanted) for i in row] for row, wanted in zip(ranked, relevant, strict=True)
    ]
    assert metrics.hits(ranked, relevant).tolist() == expected


@pytest.mark.parametrize(
    ("items", "k"), [(1, 1), (7, 3), (100, 1), (101, 10), (1000, 10), (1000, 999)]
)
def test_top_k_is_the_head_of_a_stable_sort(items: int, k: int) -> None:
    """With ties, and with rows of which less than k items are not hidden."""
    rng = np.random.default_rng(items)
    scores = rng.integers(0, 20, (30, items)).astype(np.float32)
    scores[:15][rng.random((15, items)) < 0.95] = -np.inf
    expected = [sorted(range(items), key=lambda j, row=row: (-row[j], j))[:k] for row in scores]
    assert metrics.top_k(scores, k).tolist() == expected


def test_top_k_of_a_catalogue_smaller_than_k() -> None:
    assert metrics.top_k(np.array([[1.0, 2.0]]), 10).tolist() == [[1, 0]]


def test_ece_by_hand() -> None:
    p = np.array([[0.2], [0.2], [0.8], [0.8]])
    y = np.array([[0], [1], [1], [1]])
    # one bin of 0.2 with frequency 0.5, one of 0.8 with frequency 1
    assert metrics.ece(p, y, bins=2).value == pytest.approx((2 * 0.3 + 2 * 0.2) / 4)
    assert [b["count"] for b in metrics.reliability(p, y, bins=2)] == [2, 2]


def test_a_perfectly_calibrated_answer_has_no_error() -> None:
    p = np.repeat([0.25, 0.75], 4)[:, None]
    y = np.array([1, 0, 0, 0, 1, 1, 1, 0])[:, None]
    assert metrics.ece(p, y, bins=2).value == pytest.approx(0)


@given(st.integers(0, 10_000), st.integers(2, 40))
def test_an_interval_holds_its_value_and_a_model_does_not_differ_from_itself(
    seed: int, n: int
) -> None:
    rng = np.random.default_rng(seed)
    said, true = rng.integers(0, 2, (n, 3)).astype(float), rng.integers(0, 2, (n, 3)).astype(float)
    groups = rng.integers(0, 5, n)
    measure = metrics.accuracy(said, true)
    estimate = metrics.interval(measure, groups, draws=200)
    assert estimate.low is not None and estimate.high is not None and estimate.value is not None
    assert estimate.low <= estimate.high
    same = metrics.difference(measure, measure, groups, draws=200)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_rows_of_one_user_are_drawn_together() -> None:
    """Ten copies of a row are no more evidence than the row."""
    rng = np.random.default_rng(0)
    one = rng.integers(0, 2, (40, 1)).astype(float)
    copies, users = np.repeat(one, 10, axis=0), np.repeat(np.arange(40), 10)
    few = metrics.interval(metrics.accuracy(one, np.ones_like(one)), np.arange(40))
    many = metrics.interval(metrics.accuracy(copies, np.ones_like(copies)), users)
    alone = metrics.interval(metrics.accuracy(copies, np.ones_like(copies)), np.arange(400))
    assert (many.low, many.high) == (few.low, few.high)
    assert many.low is not None and alone.low is not None and many.low < alone.low


def test_nothing_to_measure_is_no_number() -> None:
    empty = metrics.accuracy(np.zeros((0, 2)), np.zeros((0, 2)))
    assert metrics.interval(empty, np.array([])).json() == {
        "value": None,
        "low": None,
        "high": None,
        "n": 0,
    }
    undefined = metrics.precision(np.zeros((3, 2)), np.ones((3, 2)))
    assert math.isnan(undefined.value)
    assert metrics.interval(undefined, np.arange(3)).value is None


def test_a_paired_difference_needs_the_same_rows() -> None:
    with pytest.raises(ValueError, match="same rows"):
        metrics.difference(
            metrics.accuracy(SAID, TRUE), metrics.accuracy(SAID[:2], TRUE[:2]), np.arange(3)
        )


@pytest.mark.parametrize(
    ("ranked", "relevant", "f1"),
    [
        ([[4, 2, 7, 1]], [[2, 1, 9]], 2 * 2 / (4 + 3)),
        ([[4, 2, 7, 1]], [[]], 0),
        # the mean of the rows', not of the means
        ([[4, 2, 7, 1], [0, 3, 5, 6]], [[4, 2, 7, 1], [9]], (1 + 0) / 2),
    ],
)
def test_f1_of_rankings_by_hand(ranked, relevant, f1) -> None:
    assert metrics.f1_at(np.array(ranked), relevant).value == pytest.approx(f1)
