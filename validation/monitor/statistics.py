"""Tests that exchange units between two sides: how far they lie apart, whether chance explains it,
and how small a shift could have been seen.

Each is a permutation test, exact under exchange. From the same draws come:

- effect: distances of small samples are biased upwards, as noise adds in quadrature. So the root of
  what d² has beyond the mean of the null's d², or 0.
- detectable: such a norm is a supremum of linear functionals, none of which deviates by more than
  the root mean square r of the null. So a shift of c + 0.84 r is seen with a probability of about
  0.8 or more, c being the null's quantile at the level that is left to one of all measures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
Array = NDArray[Any]

_POWER = 0.8416  # the standard normal's quantile at 0.8
_FOLDS = 5  # of the classifier
_FEWEST_WINDOWS = 4  # of the reference for a natural bound


@dataclass(frozen=True)
class Quality:
    """A ratio of sums over units: what each unit adds [n, m], its window [n], and the measure of a
    total.
    """

    sums: Array
    window: NDArray[np.int32]
    reduce: Callable[[Array], Array]

    def __len__(self) -> int:
        return len(self.sums)


@dataclass(frozen=True)
class Tested:
    """A distance beside what exchanging units makes of it."""

    effect: float
    p: float
    detectable: float


Compare: TypeAlias = "Callable[[Matrix, Matrix, int, int, float], Tested]"
"""From two sides [n, d] and [m, d], draws, a seed and a level to what exchanging units says."""


def _exchanges(reference: int, current: int, draws: int, seed: int) -> Matrix:
    """[draws, reference + current] of 0 and 1: which units stand for the current window."""
    chance = np.random.default_rng([seed, reference, current])
    n = reference + current
    out = np.zeros((draws, n), np.float32)
    for start in range(0, draws, 250):
        keys = chance.random((min(250, draws - start), n), np.float32)
        taken = np.argpartition(keys, current - 1, axis=1)[:, :current]
        np.put_along_axis(out[start : start + len(keys)], taken, np.float32(1), 1)
    return out


def _tested(distance: float, null: Array, level: float, noisy: bool = True) -> Tested:
    """From a distance and the null's draws; `noisy` for norms, whose noise adds in quadrature."""
    null = null[np.isfinite(null)]
    spread = float(np.sqrt(np.mean(null**2)))
    effect = math.sqrt(max(0.0, distance**2 - spread**2)) if noisy else max(0.0, distance)
    p = float((1 + np.sum(null >= distance - 1e-12)) / (1 + len(null)))
    critical = float(np.quantile(null, 1 - level, method="higher"))
    return Tested(effect, p, max(0.0, critical) + _POWER * spread)


def compare_means(
    reference: Matrix, current: Matrix, draws: int, seed: int, level: float
) -> Tested:
    """L1 distance of means of z.

    A reference that is older than the last kind of behaviour has fewer columns; the columns that it
    lacks are those of kinds that it had no event of.
    """
    width = max(reference.shape[1], current.shape[1])
    reference, current = (
        np.pad(side, ((0, 0), (0, width - side.shape[1]))) for side in (reference, current)
    )
    z = np.concatenate([reference, current]).astype(np.float32)
    n, m = len(reference), len(current)
    sums, total = _exchanges(n, m, draws, seed) @ z, z.sum(0)
    null = np.abs(sums / m - (total - sums) / n).sum(1)
    return _tested(float(np.abs(current.mean(0) - reference.mean(0)).sum()), null, level)


def compare_kernel(
    reference: Matrix, current: Matrix, draws: int, seed: int, level: float
) -> Tested:
    """Maximum mean discrepancy, Gaussian kernel of the pooled median distance."""
    x = np.concatenate([reference, current]).astype(np.float64)
    n, m = len(reference), len(current)
    square = (x**2).sum(1)
    distance = np.maximum(square[:, None] + square - 2 * x @ x.T, 0)
    kernel = np.exp(-distance / max(float(np.median(distance[np.triu_indices(n + m, 1)])), 1e-12))
    taken = _exchanges(n, m, draws, seed).astype(np.float64)
    weights = np.concatenate(
        [taken / m - (1 - taken) / n, [np.r_[np.full(n, -1 / n), np.full(m, 1 / m)]]]
    )
    distances = np.sqrt(np.maximum(((weights @ kernel) * weights).sum(1), 0))
    return _tested(float(distances[-1]), distances[:-1], level)


def compare_classifier(
    reference: Matrix, current: Matrix, draws: int, seed: int, level: float
) -> Tested:
    """2 AUC - 1 of a ridge classifier on units that it has not seen; its scores are linear in the
    sides, so that every exchange is fitted anew by one product.
    """
    from scipy.stats import rankdata

    x = np.concatenate([reference, current]).astype(np.float64)
    n, m = len(reference), len(current)
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-9)
    actual = np.r_[np.zeros(n), np.ones(m)][None]
    # [n + m, draws + 1]
    sides = np.concatenate([_exchanges(n, m, draws, seed).astype(np.float64), actual]).T
    fold = np.random.default_rng([seed, n, m, 1]).permutation(n + m) % _FOLDS
    areas = []
    for k in range(_FOLDS):
        train, held = x[fold != k], x[fold == k]
        centre = train.mean(0)
        train, held = train - centre, held - centre
        gram = train @ train.T
        strength = np.trace(gram) / x.shape[1]
        weights = held @ train.T @ np.linalg.inv(gram + strength * np.eye(len(train)))
        side = sides[fold != k]
        ranks = rankdata(weights @ (side - side.mean(0)), axis=0)
        inside = sides[fold == k]
        ones = inside.sum(0)
        zeros = len(inside) - ones
        with np.errstate(invalid="ignore", divide="ignore"):
            areas.append(((ranks * inside).sum(0) - ones * (ones + 1) / 2) / (ones * zeros))
    distances = 2 * np.nanmean(np.stack(areas), 0) - 1
    return _tested(float(distances[-1]), distances[:-1], level, noisy=False)


def compare_quality(
    reference: Quality, current: Quality, draws: int, seed: int, level: float, less: bool = False
) -> Tested:
    """How much worse the current side is; better counts as nothing."""
    sums = np.concatenate([reference.sums, current.sums])
    n, m = len(reference), len(current)
    taken = _exchanges(n, m, draws, seed).astype(np.float64) @ sums
    sign = -1 if less else 1
    null = sign * (reference.reduce(sums.sum(0) - taken) - current.reduce(taken))
    worse = sign * float(
        reference.reduce(reference.sums.sum(0)) - current.reduce(current.sums.sum(0))
    )
    if not math.isfinite(worse):
        raise ValueError("a quality of nothing")
    return _tested(worse, null, level, noisy=False)


def prediction_bound(effects: Sequence[float]) -> float | None:
    """The effect that one more window like these could have (99% prediction bound); None for fewer
    than four.
    """
    from scipy.stats import t

    k = len(effects)
    if k < _FEWEST_WINDOWS:
        return None
    spread = float(np.std(effects, ddof=1))
    return max(
        0.0, float(np.mean(effects)) + float(t.ppf(0.99, k - 1)) * spread * math.sqrt(1 + 1 / k)
    )
