"""Memory is bounded and changes no answer: blocks of rows, and sparse tables beside dense ones."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.snapshots import FUTURE, TRAIN, USER, VALIDATION, Snapshots
from tasteloop.behaviour.text import TextSettings
from tasteloop.evaluation import baselines
from tasteloop.evaluation.rows import EvaluatedRows
from tasteloop.evaluation.settings import EvaluationSettings
from tasteloop.recommender import collaborative, folding
from tasteloop.recommender.collaborative import Past, ease, item_knn, nearby, spectral
from tasteloop.recommender.fitting import (
    FittingData,
    RecommenderSettings,
    TunedSettings,
    fit_terms,
    fit_ties,
    mark_futures,
)
from tasteloop.recommender.folding import FoldedHistories, HistoryTable, mark_seen
from tasteloop.recommender.recommend import Recommender
from tasteloop.recommender.terms import rows_product
from tasteloop.recommender.tuning import tune
from tasteloop.recommender.weights import ValidationRows

SETTINGS = RecommenderSettings(
    ease_regularisation=(100, 1000), history_decay=(0.9, 1.0), factors=8, als_iterations=3
)


@pytest.fixture(scope="module")
def data(tiny_snapshots: Path) -> Snapshots:
    return Snapshots.read(tiny_snapshots)


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    """80 users and 40 items, 1 where one met the other."""
    return (np.random.default_rng(0).random((80, 40)) < 0.2).astype(np.float32)


def _fit(data: Snapshots, block_cells: int) -> tuple[TunedSettings, Recommender]:
    """Settings and terms of the tiny data, chosen on blocks of so many cells."""
    validation, train = data.split(VALIDATION), data.split(TRAIN)
    rows = ValidationRows(
        HistoryTable.of(data.histories(validation), data.catalogue, data.text),
        data.truth(validation),
        validation[FUTURE].to_list(),
        validation[USER].to_numpy(),
        block_cells=block_cells,
    )
    vectors = np.random.default_rng(0).standard_normal((len(data.catalogue), 8))
    ground = FittingData(
        vectors.astype(np.float32),
        data.catalogue,
        data.labels,
        data.truth(train),
        mark_futures(train[FUTURE], len(data.catalogue)),
        data.text,
    )
    past = Past.before(data.meta["validation_from"], data)
    tuned = tune(past, ground, rows, SETTINGS)
    return tuned, fit_terms(past, ground, SETTINGS, tuned)


def test_a_table_of_histories_folds_like_the_histories_themselves(data: Snapshots) -> None:
    histories = [[], *data.histories(data.split(VALIDATION))]
    table = HistoryTable.of(histories, data.catalogue, data.text)

    for part in (slice(0, 1), slice(2, 7), slice(0, len(histories))):
        folded = table.fold(0.9, part)
        expected = FoldedHistories.of(histories[part], data.catalogue, 0.9, data.text)

        for name in (field.name for field in fields(FoldedHistories)):
            assert np.array_equal(getattr(folded, name), getattr(expected, name)), name
        assert np.array_equal(table.hidden(part), mark_seen(histories[part], data.catalogue))
        assert np.array_equal(table.liked_items(part).toarray(), expected.liked)


def test_one_block_and_many_choose_the_same_settings_and_weights(data: Snapshots) -> None:
    whole, _ = _fit(data, block_cells=2**22)
    one_row_a_block, _ = _fit(data, block_cells=1)
    three_rows_a_block, _ = _fit(data, block_cells=3 * len(data.catalogue))

    for other in (one_row_a_block, three_rows_a_block):
        assert _chosen(other) == _chosen(whole)
        assert other.ndcg == pytest.approx(whole.ndcg, abs=1e-9)
        for name, pair in whole.weights.items():
            assert other.weights[name] == pytest.approx(pair, abs=1e-4), name
        for name, pair in whole.new_weights.items():
            assert other.new_weights[name] == pytest.approx(pair, abs=1e-4), name


def _chosen(tuned: TunedSettings) -> tuple[float, ...]:
    return tuned.regularisation, tuned.decay, tuned.half_life, tuned.shrinkage


def test_sparse_tables_teach_what_dense_ones_teach(
    data: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned, dense = _fit(data, block_cells=2**22)
    monkeypatch.setattr(collaborative, "DENSE_CELLS", 0)

    tuned_sparse, sparse = _fit(data, block_cells=2**22)

    assert isinstance(Past.before(data.meta["test_from"], data).seen, csr_array)
    assert _chosen(tuned_sparse) == _chosen(tuned)
    for name in (field.name for field in fields(Recommender)):
        value = getattr(dense, name)
        if isinstance(value, np.ndarray) and name != "spectral":
            assert getattr(sparse, name) == pytest.approx(value, abs=1e-4), name
    # singular vectors have no sign of their own
    together, expected = (one.spectral @ one.spectral.T for one in (sparse, dense))
    assert together == pytest.approx(expected, abs=1e-3)


def test_item_item_weights_of_a_sparse_table_are_those_of_the_dense_one(
    table: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = item_knn(table, 5, 10)
    monkeypatch.setattr(collaborative, "DENSE_CELLS", 0)
    monkeypatch.setattr(collaborative, "_BLOCK_CELLS", 3 * 40)

    sparse = csr_array(table)

    neighbours = item_knn(sparse, 5, 10)
    assert isinstance(neighbours, csr_array)
    assert neighbours.toarray() == pytest.approx(expected, abs=1e-7)
    assert np.array_equal(ease(sparse, 50), ease(table, 50))
    assert ease(sparse[:20], 50) == pytest.approx(ease(table[:20], 50), abs=1e-6)
    vectors, activity = spectral(sparse, 4)
    dense_vectors, dense_activity = spectral(table, 4)
    assert activity.tolist() == dense_activity.tolist()
    assert vectors @ vectors.T == pytest.approx(dense_vectors @ dense_vectors.T, abs=1e-4)


def test_a_product_with_few_weights_is_that_of_all_cells(table: np.ndarray) -> None:
    weights = np.zeros((40, 80), np.float32)
    weights[np.arange(40), np.arange(0, 80, 2)] = (
        0.5  # half of the rows have a weight, 1 of 80 cells
    )

    assert rows_product(weights, table) == pytest.approx(weights @ table, abs=1e-6)


def test_ties_of_a_sparse_future_are_those_of_the_dense_one(table: np.ndarray) -> None:
    truth = (np.random.default_rng(1).random((80, 3)) < 0.4).astype(np.float32)

    assert fit_ties(truth, csr_array(table), 10) == pytest.approx(
        fit_ties(truth, table, 10), abs=1e-6
    )


def test_what_is_near_among_the_compared_is_a_part_of_what_is_near_among_all() -> None:
    rng = np.random.default_rng(0)
    user = np.sort(rng.integers(0, 9, 200))
    past = Past(user, rng.integers(0, 30, 200), np.zeros(200), np.ones(200, np.bool_), 30)
    compared = np.array([0, 3, 4, 11, 29], np.int32)

    among = nearby(past, reach=4, compared=compared)

    assert among == pytest.approx(nearby(past, reach=4)[np.ix_(compared, compared)], abs=1e-6)


def test_baselines_in_blocks_and_from_sparse_tables_measure_the_same(
    data: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    validation = data.split(VALIDATION)
    histories = data.histories(validation)
    rows = EvaluatedRows(data, validation, histories, None)
    settings = EvaluationSettings(knn_neighbours=(5,), knn_shrink=(10,))

    def measure() -> dict[str, dict[str, float]]:
        found = baselines.measure_baselines(rows, settings)
        return {name: {m: one.value for m, one in own.items()} for name, own in found.items()}

    expected = measure()
    monkeypatch.setattr(folding, "BLOCK_CELLS", 1)
    monkeypatch.setattr(collaborative, "DENSE_CELLS", 0)

    assert measure() == expected


def test_of_no_rows_none_are_ranked() -> None:
    catalogue = Catalogue(["a", "b"], ["A", "B"], [["x"], ["y"]], [None, None])
    rows = ValidationRows(
        HistoryTable.of([], catalogue, TextSettings()),
        np.zeros((0, 1), np.float32),
        [],
        np.zeros(0),
    )

    assert rows.rank(lambda part: np.zeros((0, 2), np.float32), 10).shape == (0, 2)
