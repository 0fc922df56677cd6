"""What a ranking is like beside being right. Each function takes `ranked` [n, k], item positions,
-1 for none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def _mean(values: Array, ranked: Array) -> float:
    """Mean over rows of the mean over a row's items."""
    there = ranked >= 0
    rows = np.where(there, values[np.maximum(ranked, 0)], 0).sum(1) / np.maximum(there.sum(1), 1)
    return float(rows.mean())


def coverage(ranked: Array, items: int) -> float:
    """Share of the catalogue that is recommended to anybody (Ge, Delgado-Battenfeld & Jannach
    2010).
    """
    return len(np.unique(ranked[ranked >= 0])) / items


def novelty(ranked: Array, count: Array, users: int) -> float:
    """Mean self-information, in bits: -log2 of the share of training users who met the item (Zhou
    et al. 2010; the mean inverse user frequency of Castells, Hurley & Vargas 2015). An item that
    nobody met counts as met by one.

    Args:
        count: [J] training users of each item.
    """
    return _mean(-np.log2(np.maximum(count, 1) / users), ranked)


def average_popularity(ranked: Array, count: Array) -> float:
    """ARP: mean training count of what is recommended (Yin et al. 2012; Abdollahpouri et al.
    2019).
    """
    return _mean(count, ranked)


def popularity_percentile(ranked: Array, count: Array) -> float:
    """Mean share of the catalogue that is less popular, ties halved: 0.5 has no bias, 1 is the most
    popular item.
    """
    order = np.sort(count)
    below, upto = np.searchsorted(order, count, "left"), np.searchsorted(order, count, "right")
    return _mean((below + upto) / (2 * len(count)), ranked)


def diversity(ranked: Array, labels: Array) -> float:
    """Mean distance between the pairs of a list (intra-list diversity; Smyth & McClave 2001), by
    labels: one less the Jaccard similarity, 0 between two items without labels.

    Args:
        labels: [J, K] of 0 and 1.
    """
    total = 0.0
    for row in ranked:
        mine = labels[row[row >= 0]]
        if (n := len(mine)) < 2:
            continue
        both = mine @ mine.T
        size = np.diag(both)
        either = size[:, None] + size[None, :] - both
        apart = 1 - np.divide(both, either, out=np.ones(both.shape), where=either > 0)
        total += float(apart.sum() / (n * (n - 1)))
    return total / len(ranked)
