"""What a shop would have without this model, measured on the same rows as the candidate.

The baselines are the majority label, the user's own label frequencies, a logistic model on the
words of the behaviour text, popularity, recent popularity, EASE and ItemKNN alone, and for
sentiment a bag of words. Each is tuned on the validation window like the candidate, and those that
rank are fitted on all events before the test window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from tasteloop import metrics
from tasteloop.behaviour.events import TEXT, Event
from tasteloop.behaviour.items import SENTIMENT
from tasteloop.behaviour.snapshots import FUTURE, SPLIT, TRAIN, VALIDATION, Snapshots, draw_rows
from tasteloop.encoder import bag_of_words
from tasteloop.encoder.calibration import MOST_ROWS, one_vs_rest
from tasteloop.evaluation.rows import (
    EvaluatedRows,
    K,
    Measures,
    interest_measures,
    rank_measures,
    sentiment_measures,
)
from tasteloop.evaluation.settings import EvaluationSettings
from tasteloop.metrics import Array
from tasteloop.recommender.collaborative import Past, ease, item_knn
from tasteloop.recommender.folding import HistoryTable, row_blocks
from tasteloop.recommender.terms import rows_product

if TYPE_CHECKING:
    import polars as pl
    from scipy.sparse import csr_array

# Rows of the validation window that baselines are chosen on; of more, so many are drawn. As many as
# the candidate's λ are fitted on (`recommender.weight_rows`).
_ROWS = 20_000

# What some histories liked [rows, J], sparse -> scores [rows, J]
Scorer = Callable[["csr_array"], Array]
Fit = Callable[[Past], Scorer]


def measure_baselines(rows: EvaluatedRows, settings: EvaluationSettings) -> dict[str, Measures]:
    """Each baseline's measures on the rows, by its name."""
    data = rows.data
    validation = _draw(data.split(VALIDATION), _ROWS)
    histories = data.histories(validation)
    baselines: dict[str, Measures] = {}
    if data.labels:
        baselines = _interest_baselines(rows, validation, histories)
    baselines |= _rank_baselines(rows, validation, histories, settings)
    if rows.reviews is not None:
        for name, measures in _sentiment_baselines(data, rows.reviews, settings).items():
            baselines[name] = baselines.get(name, {}) | measures
    return baselines


def _draw(rows: pl.DataFrame, most: int) -> pl.DataFrame:
    return rows[draw_rows(len(rows), most)]


# --- interests


def _interest_baselines(
    rows: EvaluatedRows, validation: pl.DataFrame, histories: Sequence[list[Event]]
) -> dict[str, Measures]:
    data = rows.data
    truth = data.truth(validation)
    majority = data.truth(data.split(TRAIN)).mean(0)[None, :]
    scores = {
        "majority": (majority.repeat(len(validation), 0), majority.repeat(len(rows.table), 0)),
        "own_frequencies": (
            own_frequencies(histories, data),
            own_frequencies(rows.histories, data),
        ),
        "bag_of_words": score_by_words(data, validation, rows.table),
    }
    baselines = {}
    for name, (on_validation, on_test) in scores.items():
        predicted = on_test >= best_threshold(on_validation, truth)
        baselines[name] = interest_measures(predicted.astype(np.float32), rows.truth)
    return baselines


def best_threshold(scores: Array, truth: Array) -> float:
    """The threshold of the best micro-F1 on the validation window, chosen as the candidate's is."""

    def quality(threshold: float) -> float:
        return metrics.micro_f1((scores >= threshold).astype(float), truth).value

    return float(max(np.linspace(0.02, 0.98, 97), key=quality))


def score_by_words(
    data: Snapshots, validation: pl.DataFrame, test: pl.DataFrame
) -> tuple[Array, Array]:
    """Probabilities [n, K] of validation and test rows by a logistic model on the words of the
    behaviour text.
    """
    from scipy.special import expit
    from sklearn.feature_extraction.text import TfidfVectorizer

    train = _draw(data.split(TRAIN), MOST_ROWS)
    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=3, token_pattern=r"[^\s,;]+")
    x = vectorizer.fit_transform(train[TEXT].to_list())
    x_validation = vectorizer.transform(validation[TEXT].to_list())
    x_test = vectorizer.transform(test[TEXT].to_list())
    weights, bias = one_vs_rest(
        x, data.truth(train), x_validation, data.truth(validation), (0.3, 1.0, 3.0)
    )
    return expit(x_validation @ weights + bias), expit(x_test @ weights + bias)


def own_frequencies(histories: Sequence[list[Event]], data: Snapshots) -> Array:
    """[n, K]: share of each label among the items of the user's own history; zeros for a history
    without items.
    """
    membership = data.catalogue.membership(data.labels)
    index = data.catalogue.index
    frequencies = np.zeros((len(histories), len(data.labels)), np.float32)
    for row, history in enumerate(histories):
        items = [index[event.item] for event in history if event.item in index]
        if items:
            frequencies[row] = membership[items].mean(0)
    return frequencies


# --- sentiment


def _sentiment_baselines(
    data: Snapshots, test: pl.DataFrame, settings: EvaluationSettings
) -> dict[str, Measures]:
    reviews = data.reviews()
    assert reviews is not None
    train = reviews.filter(reviews[SPLIT] == TRAIN)
    positive = train[SENTIMENT].to_numpy().mean() >= 0.5
    baselines = {"majority": sentiment_measures(np.full(len(test), positive), None, test)}
    model = bag_of_words.of_reviews(reviews, settings.bag_of_words_strengths)
    if model is not None:
        probability = model.probabilities(test[TEXT].to_list())
        baselines["bag_of_words"] = sentiment_measures(probability >= 0.5, probability, test)
    return baselines


# --- recommendations


def _rank_baselines(
    rows: EvaluatedRows,
    validation: pl.DataFrame,
    histories: Sequence[list[Event]],
    settings: EvaluationSettings,
) -> dict[str, Measures]:
    """Each family's best setting on validation, fitted before it; then fitted before the test
    window.
    """
    data = rows.data
    before_validation = Past.before(data.meta["validation_from"], data)
    before_test = Past.before(data.meta["test_from"], data)
    on_validation = HistoryTable.of(histories, data.catalogue, data.text)
    on_test = HistoryTable.of(rows.histories, data.catalogue, data.text)
    relevant = validation[FUTURE].to_list()

    def quality(fit: Fit) -> float:
        return metrics.ndcg(_rank(on_validation, fit(before_validation)), relevant).value

    baselines = {}
    for name, family in _families(settings).items():
        best = max(family, key=quality)
        baselines[name] = rank_measures(_rank(on_test, best(before_test)), rows.relevant)
    return baselines


def _families(settings: EvaluationSettings) -> dict[str, list[Fit]]:
    """The ways to rank without a model, each with all settings among which validation chooses."""
    return {
        "popularity": [_fit_popularity],
        "recent_popularity": [partial(_fit_popularity, days=days) for days in settings.recent_days],
        "ease": [
            partial(_fit_ease, regularisation=regularisation, items=settings.ease_items)
            for regularisation in settings.ease_regularisation
        ],
        "itemknn": [
            partial(_fit_item_knn, neighbours=neighbours, shrink=shrink)
            for neighbours in settings.knn_neighbours
            for shrink in settings.knn_shrink
        ],
    }


def _fit_popularity(past: Past, days: float = np.inf) -> Scorer:
    count = past.count(days)
    return lambda liked: np.broadcast_to(count, liked.shape)


def _fit_ease(past: Past, regularisation: float, items: int) -> Scorer:
    """EASE among so many of the most popular items, 0 for all others."""
    by_popularity = np.argsort(-np.bincount(past.item, minlength=past.items), kind="stable")
    compared = np.sort(by_popularity[:items])
    weights = ease(past.matrix[:, compared], regularisation)

    def scores(liked: csr_array) -> Array:
        out = np.zeros(liked.shape, np.float32)
        out[:, compared] = rows_product(liked[:, compared].toarray(), weights)
        return out

    return scores


def _fit_item_knn(past: Past, neighbours: int, shrink: float) -> Scorer:
    weights = item_knn(past.matrix, neighbours, shrink)
    if isinstance(weights, np.ndarray):
        return lambda liked: rows_product(liked.toarray(), weights)
    return lambda liked: (liked @ weights).toarray()


def _rank(histories: HistoryTable, scorer: Scorer) -> Array:
    """[n, 10] positions of the best items of each history, what it consumed left out."""
    ranked = [
        metrics.top_k(
            np.where(histories.hidden(rows), -np.inf, scorer(histories.liked_items(rows))), K
        )
        for rows in row_blocks(histories.shape)
    ]
    none = np.zeros((0, min(K, histories.shape[1])), np.int64)
    return np.concatenate([none, *ranked])
