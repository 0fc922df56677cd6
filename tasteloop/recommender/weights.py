"""λ, the weights of the terms, by the likelihood of what followed in the validation window.

Scores over the whole catalogue are computed a block of rows at a time, and of each row no more is
kept than the terms of its candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasteloop import metrics
from tasteloop.language.wishes import Wishes
from tasteloop.recommender.fitting import ASKED_START, START, RecommenderSettings
from tasteloop.recommender.folding import BLOCK_CELLS, Histories, Matrix, row_blocks
from tasteloop.recommender.recommend import ASKED, TERMS
from tasteloop.recommender.terms import centre_length

_ENOUGH = 200  # rows whose users asked for something, from which on λ of that are fitted
_FOLDS = 3  # of users, for cross-fitting
_MAX_ITERATIONS = 60  # of L-BFGS


# Scores [rows, J] of a block of rows
BlockScores = Callable[[slice], Matrix]
# The standardised terms of a block of rows by name, each [rows, J]
BlockTerms = Callable[[slice], dict[str, Matrix]]


@dataclass(frozen=True)
class ValidationRows:
    """The n rows on which λ and the terms' settings are chosen.

    Attributes:
        histories: what the rows are folded from, and which items are not ranked.
        interests: [n, K] probabilities.
        relevant: positions of the items that followed.
        users: [n].
        wishes: what they asked for; None where nobody asked for anything.
        block_cells: cells of a block of rows over the catalogue.
    """

    histories: Histories
    interests: Matrix
    relevant: Sequence[Sequence[int]]
    users: NDArray[Any]
    wishes: Wishes | None = None
    block_cells: int = BLOCK_CELLS

    def __len__(self) -> int:
        return self.histories.shape[0]

    @property
    def fitted(self) -> tuple[str, ...]:
        """The terms of which λ are fitted: of what was asked for only where enough users did. Who
        refuses something is no measure of how much, as nobody goes on to choose it: that λ is not.
        """
        if self.wishes is None or self.wishes.any.sum() < _ENOUGH:
            return TERMS
        return (*TERMS, *(name for name in ASKED if name != "refused"))

    def blocks(self) -> Iterator[slice]:
        """The rows, in order, as many at once as `block_cells` says."""
        return row_blocks(self.histories.shape, self.block_cells)

    def ndcg(self, scores: BlockScores) -> float:
        return self.measure(scores).value

    def measure(self, scores: BlockScores) -> metrics.Measure:
        """nDCG@10 of scores, which are asked for block by block."""
        return metrics.ndcg(self.rank(scores, 10), self.relevant)

    def rank(self, scores: BlockScores, k: int) -> NDArray[np.int64]:
        """[n, k] positions of the best items of each row that are not hidden, best first."""
        ranked = []
        for rows in self.blocks():
            shown = np.where(self.histories.hidden(rows), -np.inf, scores(rows))
            ranked.append(metrics.top_k(shown, k))
        items = self.histories.shape[1]
        return np.concatenate(ranked) if ranked else np.zeros((0, min(k, items)), np.int64)


class FittedWeights(NamedTuple):
    """λ as (a, b) by term, the pull towards the start that was chosen, and its nDCG@10."""

    shrinkage: float
    ndcg: float
    weights: dict[str, tuple[float, float]]


def fit_weights(
    terms: BlockTerms,
    rows: ValidationRows,
    settings: RecommenderSettings,
    cautious: bool = False,
) -> FittedWeights:
    """λ: the softmax likelihood of the relevant among each row's candidates, rows alike, shrunk
    towards the start.

    Args:
        terms: asked once for each block of rows.
        cautious: take the strongest pull that is not proven worse than the best, for few rows.

    Returns:
        The shrinkage that ranks best by cross-fitting in three folds of users, that nDCG@10, and λ
        fitted on all.
    """
    # 1. candidates, the best of each row by the start alone, and their terms
    names, plain = rows.fitted, {**START, **ASKED_START}
    start = np.array([plain.get(name, 0.0) for name in names] + [0.0] * len(names))
    candidates, values = _candidate_terms(terms, rows, settings)

    # 2. which of them followed, and how much is known of each row
    features = Features(values, centre_length(rows.histories.length))
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
    both = _maximise(features, followed, start, shrinkage).reshape(2, len(names)).T
    weights = {name: (float(a), float(b)) for name, (a, b) in zip(names, both, strict=True)}
    return FittedWeights(shrinkage, measures[shrinkage].value, weights)


@dataclass(frozen=True)
class Features:
    """What λ weigh at each row's candidates: each term, and each term times how much is known.

    Attributes:
        terms: [n, c, M].
        known: [n], what λ turn with.
    """

    terms: NDArray[np.float64]
    known: NDArray[np.float64]

    def take(self, which: NDArray[np.bool_]) -> Features:
        """The rows where a mask [n] is true."""
        return Features(self.terms[which], self.known[which])

    def scores(self, w: NDArray[np.float64]) -> NDArray[np.float64]:
        """[n, c]: terms a + known · (terms b), of w = (a, b) [2 M]."""
        a_and_b = w.reshape(2, -1).T
        both = self.terms @ a_and_b
        scores: NDArray[np.float64] = both[..., 0] + self.known[:, None] * both[..., 1]
        return scores

    def gradient(self, gap: NDArray[np.float64]) -> NDArray[np.float64]:
        """[2 M]: the sum over rows and candidates of `gap` [n, c] times the features."""
        both = np.stack([gap.ravel(), (gap * self.known[:, None]).ravel()])
        flat = self.terms.reshape(-1, self.terms.shape[2])
        return np.asarray(both @ flat).ravel()


def _candidate_terms(
    terms: BlockTerms, rows: ValidationRows, settings: RecommenderSettings
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Positions [n, c] of each row's candidates, and their terms [n, c, M]."""
    # 1. as many candidates as every row has
    fewest = min(int((~rows.histories.hidden(part)).sum(1).min()) for part in rows.blocks())
    size = max(min(settings.candidates, fewest), 1)

    # 2. block by block, the best by the start
    candidates = np.empty((len(rows), size), np.int64)
    names, start = rows.fitted, {**START, **ASKED_START}
    values = np.empty((len(rows), size, len(names)))
    for part in rows.blocks():
        of_block = terms(part)
        plain = np.zeros_like(of_block[names[0]])
        for name in names:
            plain = plain + np.float32(start.get(name, 0.0)) * of_block[name]
        hidden = rows.histories.hidden(part)
        candidates[part] = metrics.top_k(np.where(hidden, -np.inf, plain), size)
        for m, name in enumerate(names):
            values[part, :, m] = np.take_along_axis(of_block[name], candidates[part], 1)
    return candidates, values


@dataclass(frozen=True)
class _CrossFit:
    """The rows in folds of users: each fold is ranked by λ that were fitted on the others.

    Attributes:
        candidates: [n, c] positions; followed: [n, c] of 0 and 1.
        fold: [n]; start: [2 M].
    """

    rows: ValidationRows
    candidates: NDArray[np.int64]
    features: Features
    followed: NDArray[np.float64]
    fold: NDArray[np.int64]
    start: NDArray[np.float64]

    def measure(self, shrinkage: float) -> metrics.Measure:
        """nDCG@10 with this pull towards the start."""
        # 1. the candidates' scores [n, c]
        values = np.empty(self.candidates.shape, np.float32)
        for k in range(_FOLDS):
            inside = self.fold == k
            weights = self.start
            if not inside.all():
                weights = _maximise(
                    self.features.take(~inside), self.followed[~inside], self.start, shrinkage
                )
            values[inside] = self.features.take(inside).scores(weights)

        # 2. ranked before all other items
        items = self.rows.histories.shape[1]

        def scores(part: slice) -> Matrix:
            block = np.full((part.stop - part.start, items), -1e9, np.float32)
            np.put_along_axis(block, self.candidates[part], values[part], 1)
            return block

        return self.rows.measure(scores)


def _maximise(
    features: Features,
    followed: NDArray[np.float64],
    start: NDArray[np.float64],
    shrinkage: float,
) -> NDArray[np.float64]:
    """argmin over w [2 M] of the mean cross-entropy of rows' softmax(features w) plus shrinkage ·
    |w - start|².
    """
    from scipy.optimize import minimize

    count = followed.sum(1)
    if not (count > 0).any():
        return start
    # x: the rows with a relevant candidate; share [n, c] of each among the relevant
    x, share = features.take(count > 0), followed[count > 0] / count[count > 0, None]

    def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """The loss at w [2 M], and its gradient [2 M]."""
        scores = x.scores(w)
        scores -= scores.max(1, keepdims=True)
        total = np.log(np.exp(scores).sum(1, keepdims=True))
        gap = np.exp(scores - total) - share
        value = float((total[:, 0] - (share * scores).sum(1)).mean()) + shrinkage * float(
            ((w - start) ** 2).sum()
        )
        return value, x.gradient(gap) / len(share) + 2 * shrinkage * (w - start)

    options = {"maxiter": _MAX_ITERATIONS}
    fitted: NDArray[np.float64] = minimize(
        loss, start, jac=True, method="L-BFGS-B", options=options
    ).x
    return fitted
