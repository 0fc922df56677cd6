"""λ, the weights of the terms, by the likelihood of what followed in the validation window and in
earlier ones.

Scores over the whole catalogue are computed a block of rows at a time, and of each row no more is
kept than the terms of its candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
_INTRUDERS = 10  # items that λ fitted on the start's candidates rank highest of all, in each row
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
    """λ as (a, b) by term, the pull towards the start that was chosen, and nDCG@10 of the rows by
    cross-fitting.
    """

    shrinkage: float
    ndcg: float
    weights: dict[str, tuple[float, float]]


def fit_weights(
    terms: BlockTerms,
    rows: ValidationRows,
    settings: RecommenderSettings,
    cautious: bool = False,
    earlier: Iterable[tuple[BlockTerms, ValidationRows]] = (),
) -> FittedWeights:
    """λ: the softmax likelihood of the relevant among each row's candidates, rows alike, shrunk
    towards the start.

    Of an item that the start ranks low, the start's candidates say nothing, and λ fitted on them
    may rank it first. So λ are fitted on them with each pull, and what those rank highest becomes a
    candidate of the fit that counts.

    Args:
        terms: asked twice for each block of rows.
        cautious: take the strongest pull that is not proven worse than the best, for few rows.
        earlier: the same of windows before that of the rows, which λ are fitted on too.

    Returns:
        The shrinkage that ranks best by cross-fitting in three folds of users, that nDCG@10, and λ
        fitted on all.
    """
    # 1. λ by the candidates of the start, with each pull
    names = rows.fitted
    start = _start(names)
    plain = _Candidates.of(terms, rows, names, settings)
    pulls = _pulls(plain.users, settings)
    first = [_maximise(plain.features, plain.followed, start, pull) for pull in pulls]
    del plain

    # 2. the candidates of the start and of those λ, in all windows
    parts = [_Candidates.of(terms, rows, names, settings, first)]
    for terms_before, rows_before in earlier:
        parts.append(_Candidates.of(terms_before, rows_before, names, settings, first))
        # a window's terms are large: they are let go before the next window's are fitted
        del terms_before, rows_before
    candidates = _Candidates.join(parts)

    # 3. the pull towards the start, by cross-fitting
    ranked = {pull: candidates.cross_ranked(start, pull) for pull in pulls}
    measures = {pull: metrics.ndcg(best, candidates.relevant) for pull, best in ranked.items()}
    best = shrinkage = max(measures, key=lambda pull: (measures[pull].value, pull))
    if cautious:
        proven_worse = {
            pull: metrics.difference(measures[best], measure, candidates.users).low or 0.0
            for pull, measure in measures.items()
        }
        shrinkage = max(pull for pull, gap in proven_worse.items() if gap <= 0)

    # 4. λ on all rows
    w = _maximise(candidates.features, candidates.followed, start, shrinkage)
    both = w.reshape(2, len(names)).T
    weights = {name: (float(a), float(b)) for name, (a, b) in zip(names, both, strict=True)}
    ndcg = metrics.ndcg(ranked[shrinkage][: len(rows)], rows.relevant).value
    return FittedWeights(shrinkage, ndcg, weights)


def _pulls(users: NDArray[Any], settings: RecommenderSettings) -> list[float]:
    """The pulls that are tried: a weak one is not on few users, as what so few cross-fitted rows
    prefer is chance.
    """
    count = len(np.unique(users))
    return [pull for pull in settings.shrinkage if pull * count >= 0.5] or [max(settings.shrinkage)]


def _start(names: Sequence[str]) -> NDArray[np.float64]:
    """[2 M]: a and b of what λ of these terms start from."""
    plain = {**START, **ASKED_START}
    return np.array([plain.get(name, 0.0) for name in names] + [0.0] * len(names))


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


@dataclass(frozen=True)
class _Candidates:
    """The candidates of n rows, among which λ are fitted.

    Attributes:
        positions: [n, c]; followed: [n, c] of 0 and 1.
        relevant: positions of all items that followed; users: [n].
    """

    positions: NDArray[np.int64]
    features: Features
    followed: NDArray[np.float64]
    relevant: Sequence[Sequence[int]]
    users: NDArray[Any]

    @classmethod
    def of(
        cls,
        terms: BlockTerms,
        rows: ValidationRows,
        names: Sequence[str],
        settings: RecommenderSettings,
        first: Sequence[NDArray[np.float64]] = (),
    ) -> _Candidates:
        """The best of each row by the start, the last of which make way for the best by each of
        some other λ.

        Args:
            names: of the M terms.
            first: those λ, [2 M] each.
        """
        # 1. as many candidates as every row has
        hidden = rows.histories.hidden
        fewest = min((int((~hidden(part)).sum(1).min()) for part in rows.blocks()), default=0)
        size = max(min(settings.candidates, fewest), 1)

        # 2. block by block, the best
        positions = np.empty((len(rows), size), np.int64)
        values = np.empty((len(rows), size, len(names)))
        known = centre_length(rows.histories.length)
        of_start = _start(names)
        for part in rows.blocks():
            of_block = terms(part)
            order = _sum(of_block, names, of_start, known[part])
            order[hidden(part)] = -np.inf
            intruders = []
            for w in first:
                by_first = _sum(of_block, names, w, known[part])
                by_first[hidden(part)] = -np.inf
                intruders.append(metrics.top_k(by_first, min(_INTRUDERS, size)))
            for best in intruders:
                np.put_along_axis(order, best, np.inf, 1)
            positions[part] = metrics.top_k(order, size)
            for m, name in enumerate(names):
                if name in of_block:  # nobody of these rows asked for anything where it is not
                    values[part, :, m] = np.take_along_axis(of_block[name], positions[part], 1)
                else:
                    values[part, :, m] = 0
        followed = metrics.hits(positions, rows.relevant)
        return cls(positions, Features(values, known), followed, rows.relevant, rows.users)

    @classmethod
    def join(cls, parts: Sequence[_Candidates]) -> _Candidates:
        """One part's rows after the other's, with as many candidates as all have."""
        if len(parts) == 1:
            return parts[0]
        size = min(part.positions.shape[1] for part in parts)
        return cls(
            np.concatenate([part.positions[:, :size] for part in parts]),
            Features(
                np.concatenate([part.features.terms[:, :size] for part in parts]),
                np.concatenate([part.features.known for part in parts]),
            ),
            np.concatenate([part.followed[:, :size] for part in parts]),
            [items for part in parts for items in part.relevant],
            np.concatenate([part.users for part in parts]),
        )

    def cross_ranked(self, start: NDArray[np.float64], shrinkage: float) -> NDArray[np.int64]:
        """[n, 10] positions, best first, each fold of users by λ that were fitted on the others; -1
        where there are no more candidates.
        """
        # 1. the candidates' scores [n, c]
        _, user = np.unique(self.users, return_inverse=True)
        scores = np.empty(self.positions.shape)
        for k in range(_FOLDS):
            inside = user % _FOLDS == k
            w = start
            if not inside.all():
                others = self.features.take(~inside), self.followed[~inside]
                w = _maximise(*others, start, shrinkage)
            scores[inside] = self.features.take(inside).scores(w)

        # 2. the best
        best = metrics.top_k(scores, 10)
        ranked = np.full((len(scores), 10), -1, np.int64)
        ranked[:, : best.shape[1]] = np.take_along_axis(self.positions, best, 1)
        return ranked


def _sum(
    terms: Mapping[str, Matrix],
    names: Sequence[str],
    w: NDArray[np.float64],
    known: NDArray[np.float64],
) -> Matrix:
    """[rows, J]: the sum of a block's terms by w = (a, b) [2 M]; terms that weigh nothing are not
    gone over.
    """
    scores = np.zeros_like(next(iter(terms.values())))
    for name, a, b in zip(names, *w.reshape(2, -1), strict=True):
        if name in terms and (a or b):
            scores += (a + b * known).astype(np.float32)[:, None] * terms[name]
    return scores


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
