"""The recommender's arrays and λ (`tasteloop.recommender.recommend`), fitted on what came before a
cut.

The terms are fitted on what came before the validation window, λ on that window: the likelihood of
what followed among each row's candidates, pulled towards a plain start as strongly as cross-fitting
by user says. Then the terms are fitted again on all events before the test window, λ unchanged. λ
of items that nobody has met come from items held out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from tasteloop import metrics
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.text import TextSettings
from tasteloop.recommender.collaborative import Past, als, ease, nearby, spectral
from tasteloop.recommender.folding import FoldedHistories, Matrix
from tasteloop.recommender.item_text import expected, features
from tasteloop.recommender.recommend import TERMS, Recommender
from tasteloop.recommender.terms import centre_length

log = logging.getLogger(__name__)

_START = {
    "collaborative": 0.5,
    "factors_liked": 0.25,
    "factors_seen": 0.25,
    "nearby": 0.3,
    "popularity": 0.2,
}


class RecommenderSettings(BaseModel, frozen=True, extra="forbid"):
    """Grids are searched on the validation window; a single value fixes it."""

    ease_regularisation: tuple[float, ...] = (300, 1000, 3000)
    ease_items: int = Field(
        5_000,
        ge=1,
        description="Most popular items among which items are compared: EASE is square in them.",
    )
    history_decay: tuple[float, ...] = (0.9, 0.95, 0.98, 1.0)
    half_life_days: tuple[float, ...] = (7, 30, 90, 3650)
    interest_regularisation: float = Field(200, gt=0)
    content_width: int = Field(
        64, ge=1, description="Principal components that are kept of the items' text vectors."
    )
    factors: int = Field(32, ge=1, description="Width of the ALS and of the spectral term.")
    als_alpha: float = Field(4, gt=0, description="Weight of an event beside no event.")
    als_regularisation: float = Field(30, gt=0)
    als_iterations: int = Field(12, ge=1)
    nearby_reach: int = Field(
        10, ge=1, description="Items at most so many places apart in a history are near."
    )
    familiar: float = Field(
        3,
        gt=0,
        description="Interactions at which what they say of an item counts as much as its text does.",
    )
    text_regularisation: float = Field(
        10, gt=0, description="Of the regression from item text to what interactions teach."
    )
    held_out: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Share of the items that are held out to fit λ of items that nobody has met.",
    )
    candidates: int = Field(
        100, ge=10, description="Items a row, by a plain start, among which λ are fitted."
    )
    shrinkage: tuple[float, ...] = Field(
        (0.01, 0.1, 1.0, 10.0),
        description="Pull of λ towards the start; what is below 0.5 / users is not tried.",
    )


@dataclass(frozen=True)
class Asked:
    """The validation rows: histories by decay, interests [n, K], relevant positions, hidden [n, J],
    users [n].
    """

    folded: Callable[[float], FoldedHistories]
    interests: Matrix
    relevant: Sequence[Sequence[int]]
    hidden: NDArray[np.bool_]
    users: NDArray[Any]

    def ndcg(self, scores: Matrix) -> float:
        return self.measure(scores).value

    def measure(self, scores: Matrix) -> metrics.Measure:
        return metrics.ndcg(
            metrics.top_k(np.where(self.hidden, -np.inf, scores), 10), self.relevant
        )


@dataclass(frozen=True)
class Ground:
    """What the terms are fitted on beside the past: item vectors [J, d], and training rows'
    interests and futures.
    """

    vectors: Matrix
    catalogue: Catalogue
    labels: list[str]
    truth: Matrix
    futures: Sequence[Sequence[int]]
    text: TextSettings


@dataclass(frozen=True)
class Tuned:
    """What the validation window chose; `ndcg` is by cross-fitting of λ."""

    regularisation: float
    decay: float
    half_life: float
    shrinkage: float = 0.0
    weights: dict[str, tuple[float, float]] = field(default_factory=dict)
    new_weights: dict[str, tuple[float, float]] = field(default_factory=dict)
    ndcg: float = 0.0


def tune(past: Past, ground: Ground, asked: Asked, settings: RecommenderSettings) -> Tuned:
    """EASE's regularisation with the decay of the history, popularity's half-life, each by its own
    nDCG; then λ.
    """
    columns = _compared(past, settings)
    best = (-1.0, 0.0, 0.0)
    folded = {decay: asked.folded(decay) for decay in settings.history_decay}
    for regularisation in settings.ease_regularisation:
        weights = ease(past.matrix[:, columns], regularisation)
        for decay, histories in folded.items():
            scores = np.zeros_like(histories.liked)
            scores[:, columns] = histories.recent_liked[:, columns] @ weights
            best = max(best, (asked.ndcg(scores), regularisation, decay))
    half_life = max(
        settings.half_life_days,
        key=lambda days: asked.ndcg(np.broadcast_to(past.popularity(days), asked.hidden.shape)),
    )
    chosen = Tuned(best[1], best[2], half_life)
    fitted = fit_terms(past, ground, settings, chosen)
    terms = fitted.score_terms(folded[chosen.decay], asked.interests).standardised()
    shrinkage, ndcg, weights_ = fit_weights(terms, folded[chosen.decay].length, asked, settings)
    middling = {name: round(a, 3) for name, (a, _) in weights_.items()}
    log.info("λ of a middling history %s, validation nDCG@10 %.4f", middling, ndcg)
    new_weights = fit_new_weights(past, ground, asked, settings, chosen)
    return replace(
        chosen, shrinkage=shrinkage, weights=weights_, new_weights=new_weights, ndcg=ndcg
    )


def fit_new_weights(
    past: Past, ground: Ground, asked: Asked, settings: RecommenderSettings, chosen: Tuned
) -> dict[str, tuple[float, float]]:
    """λ of items that nobody has met: some are held out of what is fitted and folded in, and new
    ones alone ranked.
    """
    held = np.random.default_rng(0).random(past.items) < settings.held_out
    fitted = fit_terms(past.without(held), ground, settings, chosen)
    new = np.zeros(past.items, np.bool_)
    new[fitted.new] = True
    folded = asked.folded(chosen.decay)
    folded = FoldedHistories.decayed(
        np.where(new, 0, folded.recent_liked), np.where(new, 0, folded.recent_seen), folded.length
    )
    wanted = [[j for j in relevant if new[j]] for relevant in asked.relevant]
    asked = replace(asked, hidden=asked.hidden | ~new, relevant=wanted)
    shrinkage, ndcg, weights = fit_weights(
        fitted.score_terms(folded, asked.interests).standardised(),
        folded.length,
        asked,
        settings,
        cautious=True,
    )
    middling = {name: round(a, 3) for name, (a, _) in weights.items()}
    log.info("λ of a new item %s, validation nDCG@10 %.4f", middling, ndcg)
    return weights


def _compared(past: Past, settings: RecommenderSettings) -> NDArray[np.int32]:
    count = np.bincount(past.item, minlength=past.items)
    return np.sort(
        np.argsort(-count, kind="stable")[: min(settings.ease_items, int((count > 0).sum()))]
    ).astype(np.int32)


def fit_terms(
    past: Past, ground: Ground, settings: RecommenderSettings, tuned: Tuned
) -> Recommender:
    """Every term's arrays; λ are `tuned`'s, or the start's."""
    columns = _compared(past, settings)
    future = np.zeros((len(ground.futures), past.items), np.float32)
    for row, items in enumerate(ground.futures):
        future[row, items] = 1
    all_labels = ground.catalogue.membership(ground.catalogue.label_names).astype(np.float32)
    every = past.seen.sum(0) @ all_labels
    singular, activity = spectral(past.seen, settings.factors)
    root = np.sqrt(activity)[:, None]
    met = np.bincount(past.item, minlength=past.items)
    known = (
        fit_ties(ground.truth, future, settings.interest_regularisation).T,
        *(
            als(
                met_by,
                settings.factors,
                settings.als_alpha,
                settings.als_regularisation,
                settings.als_iterations,
            )
            for met_by in (past.matrix, past.seen)
        ),
        singular * root,
        past.popularity(tuned.half_life)[:, None],
    )
    borrowed = expected(
        features(ground.catalogue, ground.vectors),
        np.concatenate(known, 1),
        (met / (met + settings.familiar)).astype(np.float32),
        settings.text_regularisation,
    )
    ties, liked, seen_, passed, popular = np.split(
        borrowed, np.cumsum([part.shape[1] for part in known])[:-1], axis=1
    )
    return Recommender(
        vectors=leading(ground.vectors, settings.content_width),
        compared=columns,
        ease=ease(past.matrix[:, columns], tuned.regularisation),
        nearby=nearby(past, settings.nearby_reach)[np.ix_(columns, columns)],
        ties=np.ascontiguousarray(ties.T),
        label_mean=ground.truth.mean(0),
        membership=all_labels / np.maximum(all_labels.sum(1, keepdims=True), 1),
        label_share=(every / max(float(past.seen.sum()), 1)).astype(np.float32),
        factors_liked=np.ascontiguousarray(liked),
        factors_seen=np.ascontiguousarray(seen_),
        spectral=np.asarray(passed / root, np.float32),
        activity=activity,
        popularity=popular[:, 0].copy(),
        weights=tuned.weights or {name: (_START.get(name, 0.0), 0.0) for name in TERMS},
        decay=tuned.decay,
        als=(settings.als_alpha, settings.als_regularisation),
        text=ground.text,
        new=np.flatnonzero(met == 0).astype(np.int32),
        new_weights=tuned.new_weights,
    )


def fit_weights(
    terms: dict[str, Matrix],
    length: NDArray[np.int64],
    asked: Asked,
    settings: RecommenderSettings,
    cautious: bool = False,
) -> tuple[float, float, dict[str, tuple[float, float]]]:
    """λ: the softmax likelihood of the relevant among each row's candidates, rows alike, shrunk
    towards the start.

    Args:
        cautious: take the strongest pull that is not proven worse than the best, for few rows.

    Returns:
        The shrinkage that ranks best by cross-fitting in three folds of users, that nDCG@10, and λ
        fitted on all.
    """
    start = np.array([_START.get(name, 0.0) for name in TERMS] + [0.0] * len(TERMS))
    size = min(settings.candidates, int((~asked.hidden).sum(1).min()))
    plain = sum(
        (np.float32(w) * terms[n] for n, w in _START.items()), np.zeros_like(terms[TERMS[0]])
    )
    picked = metrics.top_k(np.where(asked.hidden, -np.inf, plain), max(size, 1))
    known = centre_length(length)[:, None, None]
    features = np.stack([np.take_along_axis(terms[name], picked, 1) for name in TERMS], 2).astype(
        np.float64
    )
    features = np.concatenate([features, features * known], 2)
    wanted = metrics.hits(picked, asked.relevant)
    _, user = np.unique(asked.users, return_inverse=True)
    fold = user % 3

    def cross_fitted(shrinkage: float) -> metrics.Measure:
        scores = np.full(asked.hidden.shape, -1e9, np.float32)
        for k in range(3):
            rows = fold == k
            others = features[~rows], wanted[~rows]
            weights = _maximise(*others, start, shrinkage) if len(others[0]) else start
            part = scores[rows]
            np.put_along_axis(part, picked[rows], (features[rows] @ weights).astype(np.float32), 1)
            scores[rows] = part
        return asked.measure(scores)

    # A weak pull is not tried on few users: what so few cross-fitted rows prefer is chance.
    strong = [shrinkage for shrinkage in settings.shrinkage if shrinkage * (user.max() + 1) >= 0.5]
    measured = {
        shrinkage: cross_fitted(shrinkage) for shrinkage in strong or [max(settings.shrinkage)]
    }
    best = shrinkage = max(measured, key=lambda s: (measured[s].value, s))
    if cautious:
        worse = {
            s: metrics.difference(measured[best], m, asked.users).low or 0.0
            for s, m in measured.items()
        }
        shrinkage = max(s for s, gap in worse.items() if gap <= 0)
    weights = _maximise(features, wanted, start, shrinkage)
    both = weights.reshape(2, len(TERMS)).T
    found = {name: (float(a), float(b)) for name, (a, b) in zip(TERMS, both, strict=True)}
    return shrinkage, measured[shrinkage].value, found


def _maximise(
    features: NDArray[np.float64],
    wanted: NDArray[np.float64],
    start: NDArray[np.float64],
    shrinkage: float,
) -> NDArray[np.float64]:
    """argmin over w of the mean cross-entropy of rows' softmax(features w) plus shrinkage · |w -
    start|².
    """
    from scipy.optimize import minimize

    count = wanted.sum(1)
    if not (count > 0).any():
        return start
    x, share = features[count > 0], wanted[count > 0] / count[count > 0, None]

    def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scores = x @ w
        scores -= scores.max(1, keepdims=True)
        total = np.log(np.exp(scores).sum(1, keepdims=True))
        gap = np.exp(scores - total) - share
        value = float((total[:, 0] - (share * scores).sum(1)).mean()) + shrinkage * float(
            ((w - start) ** 2).sum()
        )
        return value, np.einsum("nk,nkd->d", gap, x) / len(x) + 2 * shrinkage * (w - start)

    found: NDArray[np.float64] = minimize(
        loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 60}
    ).x
    return found


def fit_ties(truth: Matrix, future: Matrix, regularisation: float) -> Matrix:
    """[K, J]: by ridge regression how much more an item follows where a label's interest is
    there.
    """
    a, b = truth - truth.mean(0), future - future.mean(0)
    ties = np.linalg.solve(a.T @ a + regularisation * np.eye(a.shape[1]), a.T @ b)
    return np.asarray(ties, np.float32)


def leading(vectors: Matrix, width: int) -> Matrix:
    """Vectors [J, d] in their first principal axes, [J, min(width, d)]: so few numbers keep the
    products between them best (Eckart & Young 1936). Ranking reads the whole catalogue's for every
    user: their width is what it costs.
    """
    if width >= vectors.shape[1]:
        return vectors
    _, axes = np.linalg.eigh(vectors.T.astype(np.float64) @ vectors)  # ascending
    kept: Matrix = vectors @ axes[:, -width:].astype(np.float32)
    return kept
