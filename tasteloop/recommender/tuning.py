"""What the validation window chooses of the recommender: settings of its terms, then λ."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tasteloop.recommender.collaborative import Past, ease
from tasteloop.recommender.fitting import (
    LEAST_OPINION,
    FittingData,
    RecommenderSettings,
    TunedSettings,
    compared_items,
    fit_terms,
)
from tasteloop.recommender.folding import Matrix, OnlyNew
from tasteloop.recommender.recommend import Recommender
from tasteloop.recommender.terms import rows_product
from tasteloop.recommender.weights import FittedWeights, ValidationRows, fit_weights

log = logging.getLogger(__name__)


def tune(
    past: Past, data: FittingData, rows: ValidationRows, settings: RecommenderSettings
) -> TunedSettings:
    """Choose EASE's regularisation with the decay of the history, and popularity's half-life, each
    by its own nDCG; then fit λ.

    Args:
        past: the events before the validation window.
        data: what the terms are fitted on beside the past.
        rows: the validation window.
        settings: grids.
    """
    # 1. EASE's regularisation and the decay of the history, together
    columns = compared_items(past, settings)
    best = (-1.0, 0.0, 0.0)
    for regularisation in settings.ease_regularisation:
        weights = ease(past.matrix[:, columns], regularisation)
        for decay in settings.history_decay:
            scores = partial(_ease_scores, rows, decay, columns, weights)
            best = max(best, (rows.ndcg(scores), regularisation, decay))
    _, regularisation, decay = best
    del weights

    # 2. popularity's half-life
    def popularity_ndcg(days: float) -> float:
        popularity = past.popularity(days)
        return rows.ndcg(
            lambda part: np.broadcast_to(popularity, (part.stop - part.start, past.items))
        )

    half_life = max(settings.half_life_days, key=popularity_ndcg)
    tuned = TunedSettings(regularisation, decay, half_life)

    # 3. λ, with all terms fitted by these settings
    recommender = fit_terms(past, data, settings, tuned)
    fitted = _fit_weights(recommender, rows, settings)
    middling = {name: round(a, 3) for name, (a, _) in fitted.weights.items()}
    log.info("λ of a middling history %s, validation nDCG@10 %.4f", middling, fitted.ndcg)
    del recommender

    # 4. λ of items that nobody has met
    return replace(
        tuned,
        shrinkage=fitted.shrinkage,
        weights=_with_opinion(fitted.weights),
        new_weights=fit_new_weights(past, data, rows, settings, tuned),
        ndcg=fitted.ndcg,
    )


def _ease_scores(
    rows: ValidationRows, decay: float, columns: NDArray[np.int32], weights: Matrix, part: slice
) -> Matrix:
    """[rows, J]: EASE's scores of a block of rows, 0 at the items that are not compared."""
    folded = rows.histories.fold(decay, part)
    scores = np.zeros_like(folded.liked)
    scores[:, columns] = rows_product(folded.recent_liked[:, columns], weights)
    return scores


def _fit_weights(
    recommender: Recommender,
    rows: ValidationRows,
    settings: RecommenderSettings,
    cautious: bool = False,
) -> FittedWeights:
    """λ of a recommender's terms on the rows, by `fit_weights`."""

    def terms(part: slice) -> dict[str, Matrix]:
        folded = rows.histories.fold(recommender.decay, part)
        wishes = None if rows.wishes is None else rows.wishes.take(part)
        return recommender.score_terms(folded, rows.interests[part], wishes).standardised()

    return fit_weights(terms, rows, settings, cautious)


def fit_new_weights(
    past: Past,
    data: FittingData,
    rows: ValidationRows,
    settings: RecommenderSettings,
    tuned: TunedSettings,
) -> dict[str, tuple[float, float]]:
    """λ of items that nobody has met: some are held out of what is fitted and folded in, and new
    ones alone ranked.
    """
    # 1. the terms, as if nobody had met the items that are held out
    held_out = np.random.default_rng(0).random(past.items) < settings.held_out
    recommender = fit_terms(past.without(held_out), data, settings, tuned)
    is_new = np.zeros(past.items, np.bool_)
    is_new[recommender.new] = True

    # 2. histories without the new items, and new items alone as candidates
    relevant = [[item for item in items if is_new[item]] for items in rows.relevant]
    new_rows = replace(
        rows, histories=OnlyNew(rows.histories, is_new), relevant=relevant, wishes=None
    )

    # 3. λ
    fitted = _fit_weights(recommender, new_rows, settings, cautious=True)
    middling = {name: round(a, 3) for name, (a, _) in fitted.weights.items()}
    log.info("λ of a new item %s, validation nDCG@10 %.4f", middling, fitted.ndcg)
    return _with_opinion(fitted.weights)


def _with_opinion(weights: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """λ with that of opinions at its least or above, whatever the length of a history."""
    return {**weights, "opinion": (max(weights["opinion"][0], LEAST_OPINION), 0.0)}
