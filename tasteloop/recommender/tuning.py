"""What the validation window chooses of the recommender: settings of its terms, then λ."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tasteloop import metrics
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
from tasteloop.recommender.recommend import Recommender, TermScores
from tasteloop.recommender.terms import rows_product
from tasteloop.recommender.weights import ValidationRows, fit_weights

log = logging.getLogger(__name__)

_SCALES = (1.0, 0.5, 0.25, 0.1)  # of λ of new items beside those of all others


def tune(
    past: Past,
    data: FittingData,
    rows: ValidationRows,
    settings: RecommenderSettings,
    earlier: Iterable[tuple[Past, ValidationRows]] = (),
) -> TunedSettings:
    """Choose EASE's regularisation with the decay of the history, and popularity's half-life, each
    by its own nDCG; then fit λ.

    Args:
        past: the events before the validation window.
        data: what the terms are fitted on beside the past.
        rows: the validation window.
        settings: grids.
        earlier: windows before it, each with the events before that window. λ alone are fitted on
            them too, of terms that are fitted anew for each.
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

    # 3. λ of items that nobody has met
    of_new = fit_new_weights(past, data, rows, settings, tuned)

    # 4. λ, with all terms fitted by these settings
    recommender = fit_terms(past, data, settings, tuned)
    before = (
        (partial(_block_terms, fit_terms(events, data, settings, tuned), asked), asked)
        for events, asked in earlier
    )
    terms = partial(_block_terms, recommender, rows)
    fitted = fit_weights(terms, rows, settings, earlier=before)
    middling = {name: round(a, 3) for name, (a, _) in fitted.weights.items()}
    log.info("λ of a middling history %s, validation nDCG@10 %.4f", middling, fitted.ndcg)
    of_met = _with_opinion(fitted.weights)
    return replace(
        tuned,
        shrinkage=fitted.shrinkage,
        weights=of_met,
        new_weights=_scale_new(
            replace(recommender, weights={**recommender.weights, **of_met}), rows, of_new
        ),
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


def _block_terms(recommender: Recommender, rows: ValidationRows, part: slice) -> dict[str, Matrix]:
    """The standardised terms of a block of rows, [rows, J] each."""
    return _terms_of(recommender, rows, part).standardised()


def _terms_of(recommender: Recommender, rows: ValidationRows, part: slice) -> TermScores:
    folded = rows.histories.fold(recommender.decay, part)
    wishes = None if rows.wishes is None else rows.wishes.take(part)
    return recommender.score_terms(folded, rows.interests[part], wishes)


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
    terms = partial(_block_terms, recommender, new_rows)
    fitted = fit_weights(terms, new_rows, settings, cautious=True)
    middling = {name: round(a, 3) for name, (a, _) in fitted.weights.items()}
    log.info("λ of a new item %s, validation nDCG@10 %.4f", middling, fitted.ndcg)
    return _with_opinion(fitted.weights)


def _scale_new(
    recommender: Recommender, rows: ValidationRows, new_weights: dict[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """λ of items that nobody has met, times the one of `_SCALES` with which all items, met and not,
    are ranked best. Where several scales rank them equally well, the largest is taken.

    They were fitted by ranking new items alone, which says nothing of how they stand beside others.

    Args:
        recommender: with λ of the items that somebody has met.
    """
    scaled = {
        scale: _with_opinion({name: (scale * a, scale * b) for name, (a, b) in new_weights.items()})
        for scale in _SCALES
    }
    by_scale = {scale: replace(recommender, new_weights=own) for scale, own in scaled.items()}
    ranked: dict[float, list[NDArray[np.int64]]] = {scale: [] for scale in _SCALES}
    for part in rows.blocks():
        terms = _terms_of(recommender, rows, part)
        hidden = rows.histories.hidden(part)
        for scale, with_new in by_scale.items():
            scores = replace(terms, recommender=with_new).scores()
            scores[hidden] = -np.inf
            ranked[scale].append(metrics.top_k(scores, 10))
    if not len(rows):
        return new_weights
    value = {
        scale: metrics.ndcg(np.concatenate(best), rows.relevant).value
        for scale, best in ranked.items()
    }
    best = max(_SCALES, key=lambda scale: (value[scale], scale))
    log.info("λ of a new item times %g; all items ranked by the scale: %s", best, value)
    return scaled[best]


def _with_opinion(weights: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """λ with that of opinions at its least or above, whatever the length of a history."""
    return {**weights, "opinion": (max(weights["opinion"][0], LEAST_OPINION), 0.0)}
