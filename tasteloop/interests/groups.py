"""Groups of item vectors that do not hang on a seed, and go on from one version to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tasteloop.interests.vectors import Matrix, unit

Groups = NDArray[np.int64]

_RUNS = 30  # of k-means, whose groups are joined
_STARTS = 20  # of the last k-means
# Runs of k-means that the last version's groups count as. On articles with a fifth of the users
# exchanged the adjusted Rand index to it is .63 with none, .89 with 10, .96 with 15, 1 with 30.
_VOTES = 10
# A last version's groups are kept where they fit the new vectors nearly as well: their sum of
# squares is at most so many times that of the best new ones.
_AS_GOOD = 1.05
_SAME = 0.3  # the overlap (Jaccard) from which two groups are one interest
_FEWEST, _MOST = 6, 24  # interests by the size of the catalogue


def count_for(items: int) -> int:
    """How many groups so many items get: half of their root, within bounds that people can read.

    >>> count_for(50), count_for(714), count_for(1682), count_for(16859)
    (6, 13, 21, 24)
    """
    return int(min(max(round(items**0.5 / 2), _FEWEST), _MOST))


def group(vectors: Matrix, count: int, seed: int, before: Groups | None = None) -> Groups:
    """[n] the group of each vector, from 0 by falling size: a consensus of many k-means.

    1. Thirty k-means with one start each and `count` to twice as many groups.
    2. The table of items and all their groups, scaled by the root of a group's size, has `count`
       leading singular vectors, in which items that mostly were together are near (cluster
       ensembles: Strehl & Ghosh 2002; solved as Fern & Brodley 2004 do, by a spectral cut).
    3. K-means of these, the best of twenty starts. The groups of `before` count as ten more
       runs, and k-means begins with them instead where these fit nearly as well: a retraining
       moves what has moved.

    Args:
        vectors: [n, d].
        before: [n] the group of the last version, -1 where an item had none.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # several threads add in any order, which can move an item
        return _consensus(vectors, count, seed, before)


def _consensus(vectors: Matrix, count: int, seed: int, before: Groups | None) -> Groups:
    """`group`, on as many threads as there may be."""
    from scipy.sparse import csr_array
    from scipy.sparse.linalg import svds
    from sklearn.cluster import KMeans

    n, rng = len(vectors), np.random.default_rng(seed)
    count = min(count, len(np.unique(vectors, axis=0)) - 1)

    # 1. many k-means
    columns, width = [], 0
    for _ in range(_RUNS):
        some = min(int(rng.integers(count, 2 * count + 1)), n)
        run = KMeans(some, n_init=1, random_state=int(rng.integers(2**31))).fit_predict(vectors)
        columns.append(run + width)
        width += some

    if before is not None:
        # an item that is new has a group of its own in these runs
        newly = before.max() + 1 + np.arange(n)
        old_groups = np.unique(np.where(before >= 0, before, newly), return_inverse=True)[1]
        for _ in range(_VOTES):
            columns.append(old_groups + width)
            width += int(old_groups.max()) + 1

    # 2. in which items that mostly were together are near
    flat = np.concatenate(columns)
    size = np.bincount(flat, minlength=width)
    rows = np.tile(np.arange(n), len(columns))
    together = csr_array(((1 / np.sqrt(size[flat])).astype(np.float32), (rows, flat)), (n, width))
    left, values, _ = svds(together, count, random_state=seed)
    near = unit(left * values)

    # 3. the groups, the last version's where they still fit
    best = KMeans(count, n_init=_STARTS, random_state=seed).fit(near)
    chosen = best.labels_
    if before is not None and (old := np.unique(before[before >= 0])).size > 1:
        centres = np.stack([near[before == k].mean(0) for k in old])
        going_on = KMeans(len(centres), init=centres, n_init=1).fit(near)
        if going_on.inertia_ <= _AS_GOOD * best.inertia_:
            chosen = going_on.labels_
    by_size = np.argsort(-np.bincount(chosen), kind="stable")
    return np.asarray(np.argsort(by_size)[chosen], np.int64)


def overlaps(groups: Groups, before: Groups) -> dict[int, tuple[int, float]]:
    """Which old group each new one goes on: new -> (old, Jaccard overlap), one to one.

    The pairs have the largest sum of overlaps (Kuhn 1955), counted of the items that have a group
    in both; a pair with less than 0.3 is none.

    >>> overlaps(np.array([0, 0, 1, 1, 2]), np.array([5, 5, 3, 3, -1]))
    {0: (5, 1.0), 1: (3, 1.0)}
    """
    from scipy.optimize import linear_sum_assignment

    both = (groups >= 0) & (before >= 0)
    new, old = np.unique(groups[both]), np.unique(before[both])
    shared = np.array(
        [[np.sum((groups == i) & (before == j) & both) for j in old] for i in new], np.float64
    ).reshape(len(new), len(old))
    either = shared.sum(1)[:, None] + shared.sum(0)[None, :] - shared
    jaccard = shared / np.maximum(either, 1)
    pairs = zip(*linear_sum_assignment(-jaccard), strict=True)
    return {
        int(new[i]): (int(old[j]), round(float(jaccard[i, j]), 4))
        for i, j in pairs
        if jaccard[i, j] >= _SAME
    }


def positions_before(items: Sequence[str], name_of: Mapping[str, str]) -> tuple[Groups, list[str]]:
    """[n] the last version's group of each item, -1 where it had none, and the groups' names."""
    names = sorted(set(name_of.values()))
    number = {name: k for k, name in enumerate(names)}
    before = [number[name_of[item]] if item in name_of else -1 for item in items]
    return np.array(before, np.int64), names
