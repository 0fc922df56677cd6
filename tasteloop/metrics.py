"""Measures with intervals.

A measure is kept as sums per row and a function of their total, so that its bootstrap is one matrix
product: rows of one user are drawn together (cluster bootstrap; Efron & Tibshirani 1993, ch. 8),
and two models measured on the same rows are resampled with the same draws (paired).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasteloop.intervals import Interval

Array = NDArray[Any]

ECE_BINS = 15
DRAWS = 1000


@dataclass(frozen=True)
class Measure:
    """Row sums [n, m] and the measure as a function of their total: [..., m] -> [...]."""

    rows: Array
    reduce: Callable[[Array], Array]

    @property
    def value(self) -> float:
        return float(self.reduce(self.rows.sum(0)))


def ratio(numerator: int = 0, denominator: int = 1) -> Callable[[Array], Array]:
    """Total of one column over the total of another; NaN where that is 0."""

    def reduce(total: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(total[..., numerator] / total[..., denominator])

    return reduce


def _draws(groups: Array, seed: int, draws: int) -> tuple[Array, Array]:
    """How often each group is drawn [draws, groups], and the group of each row."""
    _, group_of = np.unique(groups, return_inverse=True)
    count = int(group_of.max()) + 1
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    return weights.astype(np.float64), group_of


def _resampled(measure: Measure, weights: Array, group_of: Array) -> Array:
    by_group = np.zeros((weights.shape[1], measure.rows.shape[1]))
    np.add.at(by_group, group_of, measure.rows)
    return measure.reduce(weights @ by_group)


def _estimate(value: float, sample: Array, n: int) -> Interval:
    if not np.isfinite(value):
        return Interval(None, None, None, n)
    finite = sample[np.isfinite(sample)]
    low, high = np.quantile(finite, [0.025, 0.975]) if len(finite) else (value, value)
    return Interval(value, float(low), float(high), n)


def interval(measure: Measure, groups: Array, seed: int = 0, draws: int = DRAWS) -> Interval:
    """95% percentile interval; `groups` [n] says which rows are drawn together."""
    n = len(measure.rows)
    if n == 0:
        return Interval(None, None, None, 0)
    return _estimate(measure.value, _resampled(measure, *_draws(groups, seed, draws)), n)


def difference(
    a: Measure, b: Measure, groups: Array, seed: int = 0, draws: int = DRAWS
) -> Interval:
    """a minus b on the same rows, with a paired interval."""
    n = len(a.rows)
    if n != len(b.rows):
        raise ValueError(f"a paired difference needs the same rows: {n} and {len(b.rows)}")
    if n == 0:
        return Interval(None, None, None, 0)
    weights, group_of = _draws(groups, seed, draws)
    return _estimate(
        a.value - b.value, _resampled(a, weights, group_of) - _resampled(b, weights, group_of), n
    )


# --- classification: predictions and truth [n, K] of 0 and 1


def micro_counts(predicted: Array, truth: Array) -> Array:
    """[n, 3]: true positives, predicted positives, actual positives of each row."""
    return np.stack([(predicted * truth).sum(1), predicted.sum(1), truth.sum(1)], 1).astype(
        np.float64
    )


def _f1(total: Array) -> Array:
    return ratio()(np.stack([2 * total[..., 0], total[..., 1] + total[..., 2]], -1))


def precision(predicted: Array, truth: Array) -> Measure:
    """Micro-averaged."""
    return Measure(micro_counts(predicted, truth), ratio(0, 1))


def recall(predicted: Array, truth: Array) -> Measure:
    """Micro-averaged."""
    return Measure(micro_counts(predicted, truth), ratio(0, 2))


def micro_f1(predicted: Array, truth: Array) -> Measure:
    return Measure(micro_counts(predicted, truth), _f1)


def macro_f1(predicted: Array, truth: Array) -> Measure:
    """Mean F1 over the labels that occur; a label that occurs and is never predicted counts 0."""
    k = truth.shape[1]
    rows = np.concatenate([predicted * truth, predicted, truth], 1).astype(np.float64)

    def reduce(total: Array) -> Array:
        hit, positive, actual = total[..., :k], total[..., k : 2 * k], total[..., 2 * k :]
        f1 = np.where(actual > 0, 2 * hit / np.maximum(positive + actual, 1), 0.0)
        return ratio()(np.stack([f1.sum(-1), (actual > 0).sum(-1)], -1))

    return Measure(rows, reduce)


def accuracy(predicted: Array, truth: Array) -> Measure:
    """Share of right decisions over rows and labels."""
    right = (predicted == truth).sum(1)
    return Measure(
        np.stack([right, np.full(len(truth), truth.shape[1])], 1).astype(np.float64), ratio()
    )


def balanced_accuracy(predicted: Array, truth: Array) -> Measure:
    """Mean of the shares of 1 and of 0 that are predicted as such; of one column."""
    rows = [predicted * truth, truth, (1 - predicted) * (1 - truth), 1 - truth]

    def reduce(total: Array) -> Array:
        return np.asarray((ratio(0, 1)(total) + ratio(2, 3)(total)) / 2)

    return Measure(np.concatenate(rows, 1).astype(np.float64), reduce)


def share_of(part: Array, whole: Array) -> Measure:
    """How many rows of a whole [n] are of a part [n] of it; NaN where the whole is empty."""
    return Measure(np.stack([part & whole, whole], 1).astype(np.float64), ratio())


# --- calibration


def _bins(probabilities: Array, bins: int) -> Array:
    """Bin of each probability; bins of equal counts, so that none is empty or nearly so."""
    edges = np.quantile(probabilities.ravel(), np.linspace(0, 1, bins + 1)[1:-1])
    return np.searchsorted(edges, probabilities, side="right")


def ece(probabilities: Array, truth: Array, bins: int = ECE_BINS) -> Measure:
    """Expected calibration error over all decisions [n, K], bins of equal counts (Nguyen & O'Connor
    2015).

    Bootstrapped ECE is biased upwards (noise within bins never cancels): read its interval as an
    upper bound.
    """
    n = len(probabilities)
    if n == 0:
        return Measure(np.zeros((0, 2 * bins + 1)), ratio())
    bin_of = _bins(probabilities, bins)
    rows = np.zeros((n, 2 * bins + 1))
    row = np.arange(n)
    for k in range(probabilities.shape[1]):
        np.add.at(rows, (row, bin_of[:, k]), probabilities[:, k])
        np.add.at(rows, (row, bins + bin_of[:, k]), truth[:, k])
    rows[:, -1] = probabilities.shape[1]

    def reduce(total: Array) -> Array:
        gap = np.abs(total[..., :bins] - total[..., bins : 2 * bins]).sum(-1)
        return ratio()(np.stack([gap, total[..., -1]], -1))

    return Measure(rows, reduce)


def reliability(probabilities: Array, truth: Array, bins: int = ECE_BINS) -> list[dict[str, float]]:
    """Mean confidence, observed frequency and count of each bin that is not empty."""
    bin_of = _bins(probabilities, bins)
    rows = []
    for number in range(bins):
        inside = bin_of == number
        if inside.any():
            rows.append(
                {
                    "confidence": float(probabilities[inside].mean()),
                    "frequency": float(truth[inside].mean()),
                    "count": int(inside.sum()),
                }
            )
    return rows


# --- ranking


def top_k(scores: Array, k: int) -> Array:
    """Positions of the k highest scores of each row, best first: [n, J] -> [n, min(k, J)]; ties by
    position.

    Only the k blocks of positions with the highest maxima can hold them, so that no whole row is
    sorted.
    """
    n, items = scores.shape
    k = min(k, items)
    width = int(np.sqrt(items / max(k, 1)))
    blocks = -(-items // max(width, 1))
    if width < 2 or blocks <= k:
        return _highest(scores, k)
    padded = np.full((n, blocks * width), -np.inf, np.result_type(scores, np.float32))
    padded[:, :items] = scores
    best = np.sort(_highest(padded.reshape(n, blocks, width).max(2), k), axis=1)
    at = (best[:, :, None] * width + np.arange(width)).reshape(n, -1)
    return np.asarray(np.take_along_axis(at, _highest(np.take_along_axis(padded, at, 1), k), 1))


def _highest(scores: Array, k: int) -> Array:
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def hits(ranked: Array, relevant: Sequence[Sequence[int]]) -> Array:
    """[n, k] of 0 and 1: whether each ranked position holds a relevant item; the position -1 holds
    none.
    """
    counts = [len(items) for items in relevant]
    items = np.zeros(0, np.int64)
    if sum(counts):
        items = np.concatenate([np.asarray(row, np.int64) for row in relevant])
    # a pair of row and item as one number
    width = max(int(items.max(initial=0)), int(ranked.max(initial=0))) + 2
    relevant_pairs = np.repeat(np.arange(len(counts)), counts) * width + items + 1
    ranked_pairs = np.arange(len(ranked))[:, None] * width + ranked + 1
    return np.isin(ranked_pairs, relevant_pairs).astype(np.float64)


def _counts(relevant: Sequence[Sequence[int]]) -> Array:
    """[n]: how many different items are relevant in each row."""
    return np.array([len(set(map(int, items))) for items in relevant], np.float64)


def _share(part: Array, total: Array) -> Measure:
    """Mean over rows of part / total; a row whose total is 0 counts 0."""
    rows = np.divide(part, total, out=np.zeros_like(part, np.float64), where=total > 0)
    return Measure(np.stack([rows, np.ones_like(rows)], 1), ratio())


def ndcg(ranked: Array, relevant: Sequence[Sequence[int]]) -> Measure:
    """nDCG@k with binary gains (Järvelin & Kekäläinen 2002), k the width of `ranked`; a row with
    none relevant is 0.

    Args:
        ranked: [n, k] positions, best first; -1 for none.
        relevant: positions by row.

    >>> import numpy as np
    >>> ranked = np.array([[2, 0, 1], [1, 2, 0]])
    >>> measure = ndcg(ranked, [[2], [2, 0]])
    >>> measure.rows[:, 0].round(2).tolist()  # the hit is first; the hits are second and third
    [1.0, 0.69]
    >>> interval(measure, groups=np.array(["ann", "bob"])).n
    2
    """
    k = ranked.shape[1]
    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discount)])[
        np.minimum(_counts(relevant), k).astype(int)
    ]
    return _share(hits(ranked, relevant) @ discount, ideal)


def recall_at(ranked: Array, relevant: Sequence[Sequence[int]]) -> Measure:
    """Share of the relevant items among the first k, averaged over rows."""
    return _share(hits(ranked, relevant).sum(1), _counts(relevant))


def precision_at(ranked: Array, relevant: Sequence[Sequence[int]]) -> Measure:
    """Share of the first k that is relevant, averaged over rows; k also where the catalogue ends
    before.
    """
    hit = hits(ranked, relevant)
    return _share(hit.sum(1), np.full(len(hit), float(ranked.shape[1])))


def f1_at(ranked: Array, relevant: Sequence[Sequence[int]]) -> Measure:
    """F1 of precision and recall among the first k of each row, 2 · hits / (k + relevant), averaged
    over rows.

    The mean of the rows' F1, not the F1 of the two means: that of a mean precision and a mean
    recall is no mean of anything, and can be high where no row has both (Opitz & Burst 2019,
    https://arxiv.org/abs/1911.03347).
    """
    hit = hits(ranked, relevant)
    return _share(2 * hit.sum(1), ranked.shape[1] + _counts(relevant))


def average_precision(ranked: Array, relevant: Sequence[Sequence[int]]) -> Measure:
    """MAP@k: precisions at the ranks of the hits among the first k, over the number of relevant
    items.

    The denominator is all relevant items, also where they are more than k (Manning, Raghavan &
    Schütze 2008, eq. 8.8; so do trec_eval's map_cut, ranx and rectools).
    """
    hit = hits(ranked, relevant)
    precisions = np.cumsum(hit, 1) / np.arange(1, hit.shape[1] + 1)
    return _share((hit * precisions).sum(1), _counts(relevant))


def reciprocal_rank(ranked: Array, relevant: Sequence[Sequence[int]]) -> Measure:
    """MRR@k: one over the rank of the first hit among the first k, 0 without one (Voorhees
    1999).
    """
    hit = hits(ranked, relevant)
    best = (hit / np.arange(1, hit.shape[1] + 1)).max(1, initial=0.0)
    return _share(best, np.ones_like(best))


def wilson(hits: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Bounds of a share, by default 95% (Wilson 1927, by standard deviations `z`); of nothing it is
    everything.
    """
    if not n:
        return 0.0, 1.0
    p, z2 = hits / n, z * z
    middle, half = p + z2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, (middle - half) / (1 + z2 / n)), min(1.0, (middle + half) / (1 + z2 / n))
