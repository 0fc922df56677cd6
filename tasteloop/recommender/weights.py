"""λ, the weights of the terms, by the likelihood of what followed in the validation window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasteloop import metrics
from tasteloop.recommender.fitting import START, RecommenderSettings
from tasteloop.recommender.folding import FoldedHistories, Matrix
from tasteloop.recommender.recommend import TERMS
from tasteloop.recommender.terms import centre_length

_FOLDS = 3  # of users, for cross-fitting
_MAX_ITERATIONS = 60  # of L-BFGS


@dataclass(frozen=True)
class ValidationRows:
    """The n rows on which λ and the terms' settings are chosen.

    Attributes:
        folded: the histories, by the decay of their events.
        interests: [n, K] probabilities.
        relevant: positions of the items that followed.
        hidden: [n, J] items that are not ranked.
        users: [n].
    """

    folded: Callable[[float], FoldedHistories]
    interests: Matrix
    relevant: Sequence[Sequence[int]]
    hidden: NDArray[np.bool_]
    users: NDArray[Any]

    def ndcg(self, scores: Matrix) -> float:
        return self.measure(scores).value

    def measure(self, scores: Matrix) -> metrics.Measure:
        """nDCG@10 of scores [n, J]."""
        ranked = metrics.top_k(np.where(self.hidden, -np.inf, scores), 10)
        return metrics.ndcg(ranked, self.relevant)


class FittedWeights(NamedTuple):
    """λ as (a, b) by term, the pull towards the start that was chosen, and its nDCG@10."""

    shrinkage: float
    ndcg: float
    weights: dict[str, tuple[float, float]]


def fit_weights(
    terms: dict[str, Matrix],
    length: NDArray[np.int64],
    rows: ValidationRows,
    settings: RecommenderSettings,
    cautious: bool = False,
) -> FittedWeights:
    """λ: the softmax likelihood of the relevant among each row's candidates, rows alike, shrunk
    towards the start.

    Args:
        terms: [n, J] standardised, by name.
        length: [n] events of each history.
        cautious: take the strongest pull that is not proven worse than the best, for few rows.

    Returns:
        The shrinkage that ranks best by cross-fitting in three folds of users, that nDCG@10, and λ
        fitted on all.
    """
    # 1. candidates: the best of each row by the start alone
    start = np.array([START.get(name, 0.0) for name in TERMS] + [0.0] * len(TERMS))
    size = min(settings.candidates, int((~rows.hidden).sum(1).min()))
    plain = np.zeros_like(terms[TERMS[0]])
    for name, weight in START.items():
        plain = plain + np.float32(weight) * terms[name]
    candidates = metrics.top_k(np.where(rows.hidden, -np.inf, plain), max(size, 1))

    # 2. features [n, candidates, 2 M]: each term, and each term times how much is known
    known = centre_length(length)[:, None, None]
    features = np.stack(
        [np.take_along_axis(terms[name], candidates, 1) for name in TERMS], 2
    ).astype(np.float64)
    features = np.concatenate([features, features * known], 2)
    followed = metrics.hits(candidates, rows.relevant)

    # 3. the pull towards the start, by cross-fitting
    _, user = np.unique(rows.users, return_inverse=True)
    crossed = _CrossFit(rows, candidates, features, followed, user % _FOLDS, start)
    # A weak pull is not tried on few users: what so few cross-fitted rows prefer is chance.
    strong = [shrinkage for shrinkage in settings.shrinkage if shrinkage * (user.max() + 1) >= 0.5]
    measures = {
        shrinkage: crossed.measure(shrinkage) for shrinkage in strong or [max(settings.shrinkage)]
    }
    best = shrinkage = max(measures, key=lambda s: (measures[s].value, s))
    if cautious:
        proven_worse = {
            s: metrics.difference(measures[best], measure, rows.users).low or 0.0
            for s, measure in measures.items()
        }
        shrinkage = max(s for s, gap in proven_worse.items() if gap <= 0)

    # 4. λ on all rows
    both = _maximise(features, followed, start, shrinkage).reshape(2, len(TERMS)).T
    weights = {name: (float(a), float(b)) for name, (a, b) in zip(TERMS, both, strict=True)}
    return FittedWeights(shrinkage, measures[shrinkage].value, weights)


@dataclass(frozen=True)
class _CrossFit:
    """The rows in folds of users: each fold is ranked by λ that were fitted on the others.

    Attributes:
        candidates: [n, c] positions; features: [n, c, 2 M]; followed: [n, c] of 0 and 1.
        fold: [n]; start: [2 M].
    """

    rows: ValidationRows
    candidates: NDArray[np.int64]
    features: NDArray[np.float64]
    followed: NDArray[np.float64]
    fold: NDArray[np.int64]
    start: NDArray[np.float64]

    def measure(self, shrinkage: float) -> metrics.Measure:
        """nDCG@10 with this pull towards the start."""
        scores = np.full(self.rows.hidden.shape, -1e9, np.float32)
        for k in range(_FOLDS):
            inside = self.fold == k
            weights = self.start
            if not inside.all():
                weights = _maximise(
                    self.features[~inside], self.followed[~inside], self.start, shrinkage
                )
            part = scores[inside]
            values = (self.features[inside] @ weights).astype(np.float32)
            np.put_along_axis(part, self.candidates[inside], values, 1)
            scores[inside] = part
        return self.rows.measure(scores)


def _maximise(
    features: NDArray[np.float64],
    followed: NDArray[np.float64],
    start: NDArray[np.float64],
    shrinkage: float,
) -> NDArray[np.float64]:
    """argmin over w of the mean cross-entropy of rows' softmax(features w) plus shrinkage · |w -
    start|².
    """
    from scipy.optimize import minimize

    count = followed.sum(1)
    if not (count > 0).any():
        return start
    # x [n, c, 2 M] of the rows with a relevant candidate; share [n, c] of each among the relevant
    x, share = features[count > 0], followed[count > 0] / count[count > 0, None]

    def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """The loss at w [2 M], and its gradient [2 M]."""
        scores = x @ w
        scores -= scores.max(1, keepdims=True)
        total = np.log(np.exp(scores).sum(1, keepdims=True))
        gap = np.exp(scores - total) - share
        value = float((total[:, 0] - (share * scores).sum(1)).mean()) + shrinkage * float(
            ((w - start) ** 2).sum()
        )
        return value, np.einsum("nk,nkd->d", gap, x) / len(x) + 2 * shrinkage * (w - start)

    options = {"maxiter": _MAX_ITERATIONS}
    fitted: NDArray[np.float64] = minimize(
        loss, start, jac=True, method="L-BFGS-B", options=options
    ).x
    return fitted
