"""Peers that are linear in the history: one matrix of item-item weights, by which it folds in.

`feedback` says which events count, in what is fitted and in the history alike: those that say a
user likes an item, or all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.quality.method import Scorer, Settings
from benchmarks.quality.tasks import BLOCK_CELLS, Feedback, Matrix, Past, Rows
from tasteloop.recommender import collaborative
from tasteloop.recommender.collaborative import Table, as_dense, item_knn
from tasteloop.recommender.folding import row_blocks

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_LARGE = 3_000  # items from which EASE is solved in single precision: 2 to 3 times as fast


@dataclass(frozen=True)
class ItemToItem:
    """The history times item-item weights [J, J]."""

    weights: Table
    feedback: Feedback
    decay: float = 1.0

    def scores(self, rows: Rows) -> Matrix:
        product = rows.sparse(self.feedback, self.decay) @ self.weights
        return as_dense(product)


def events_of(past: Past, feedback: Feedback = "all") -> collaborative.Past:
    """The events as the library's recommender takes them."""
    known = past.events.of(feedback)
    user, events = past.user[known], past.events.take(known)
    order = np.lexsort((events.time, user))
    age = (past.cut - events.time[order]) / 86_400e6
    return collaborative.Past(
        user[order], events.item[order], age, events.liked[order], len(past.catalogue)
    )


# --- neighbours


def item_neighbours(past: Past, settings: Settings) -> Scorer:
    feedback = settings["feedback"]
    return ItemToItem(
        item_knn(past.matrix(feedback), settings["neighbours"], settings["shrink"]), feedback
    )


@dataclass(frozen=True)
class UserNeighbours:
    """Users who liked the same: shrunk cosine to the history, the nearest kept, weighted vote."""

    users: csr_array
    feedback: Feedback
    neighbours: int
    shrink: float

    def scores(self, rows: Rows) -> Matrix:
        users = self.users.shape[0]
        blocks = row_blocks((len(rows), users), BLOCK_CELLS)
        votes = [self._votes(rows.take(block)) for block in blocks]
        return np.concatenate([np.zeros((0, rows.shape[1]), np.float32), *votes])

    def _votes(self, rows: Rows) -> Matrix:
        from scipy.sparse import csr_array

        mine = rows.sparse(self.feedback)
        norm = np.sqrt(np.outer(mine.sum(1), self.users.sum(1)))
        near = (mine @ self.users.T).toarray() / (norm + self.shrink + 1e-9)
        known = np.flatnonzero(rows.user >= 0)
        near[known, rows.user[known]] = 0  # oneself
        if self.neighbours < near.shape[1]:
            least = np.partition(near, -self.neighbours, axis=1)[:, -self.neighbours, None]
            near[near < least] = 0
        votes = csr_array(near) @ self.users
        return np.asarray(votes.toarray(), np.float32)


def user_neighbours(past: Past, settings: Settings) -> Scorer:
    from scipy.sparse import csr_array

    feedback = settings["feedback"]
    return UserNeighbours(
        csr_array(past.matrix(feedback)), feedback, settings["neighbours"], settings["shrink"]
    )


# --- order


def covisitation(past: Past, settings: Settings) -> Scorer:
    """How often two items stood near each other in a history, as a share of all that stood near
    the first.
    """
    weights = _nearby(past, settings["feedback"], settings["reach"], settings["shrink"])
    return ItemToItem(weights, settings["feedback"], settings["decay"])


@lru_cache(maxsize=1)
def _nearby(past: Past, feedback: Feedback, reach: int, shrink: float) -> Matrix:
    return collaborative.nearby(events_of(past, feedback), reach, shrink)


@dataclass(frozen=True)
class Markov:
    """What comes next after the newest item: P(j | i) = (n_ij + m q_j) / (n_i + m).

    Attributes:
        following: [J, J] sparse, n_ij.
        share: [J] q_j, also what a history without a known item is answered by.
        pseudo_events: m.
    """

    following: csr_array
    share: Matrix
    pseudo_events: float
    feedback: Feedback

    def scores(self, rows: Rows) -> Matrix:
        which = rows.events.of(self.feedback)
        scores = np.tile(self.share, (len(rows), 1))
        for row, history in enumerate(rows.histories):
            known = history[which[history]]
            if len(known):
                begin, end = self.following.indptr[rows.events.item[known[-1]] + np.arange(2)]
                count = self.following.data[begin:end]
                scores[row] *= self.pseudo_events
                scores[row, self.following.indices[begin:end]] += count
                scores[row] /= self.pseudo_events + count.sum()
        return scores


def markov(past: Past, settings: Settings) -> Scorer:
    """First-order Markov chain: n_ij is how often j came next after i, q_j the share of j in all
    events, m `pseudo_events`.
    """
    from scipy.sparse import csr_array

    feedback = settings["feedback"]
    events = events_of(past, feedback)
    is_next = events.user[:-1] == events.user[1:]
    pairs = (events.item[:-1][is_next], events.item[1:][is_next])
    shape = (events.items, events.items)
    following = csr_array((np.ones(len(pairs[0]), np.float32), pairs), shape=shape)
    following.sum_duplicates()
    count = past.count(feedback)
    share = count / max(float(count.sum()), 1)
    return Markov(following, share, settings["pseudo_events"], feedback)


# --- linear models


def ease(past: Past, settings: Settings) -> Scorer:
    feedback = settings["feedback"]
    weights = _ease(past, feedback, settings["regularisation"])
    return ItemToItem(weights, feedback, settings.get("decay", 1.0))


@lru_cache(maxsize=1)
def _ease(past: Past, feedback: Feedback, regularisation: float) -> Matrix:
    table = past.matrix(feedback)
    if table.shape[1] < _LARGE:
        return collaborative.ease(table, regularisation)
    return ease_in_single_precision(table, regularisation)


def ease_in_single_precision(table: Table, regularisation: float) -> Matrix:
    """`collaborative.ease` in less time and a sixth of its memory: the inverse [J, J] by
    Cholesky's factor, in place.
    """
    from scipy.linalg import lapack

    gram = np.asfortranarray(as_dense(table.T @ table))
    gram[np.diag_indices(len(gram))] += np.float32(regularisation)
    factor, failed = lapack.spotrf(gram, lower=1, overwrite_a=1)
    assert not failed, "a regularised Gram matrix is positive definite"
    del gram
    precision, failed = lapack.spotri(factor, lower=1, overwrite_c=1)
    assert not failed, "the factor has no zero on its diagonal"
    del factor

    # the other triangle, then Steck's eq. 8: P_ij / -P_jj
    for row in range(len(precision)):
        precision[row, row + 1 :] = precision[row + 1 :, row]
    precision /= -np.diag(precision).copy()
    precision[np.diag_indices(len(precision))] = 0
    return np.ascontiguousarray(precision)


@lru_cache(maxsize=1)
def _gram(past: Past, feedback: Feedback) -> Matrix:
    """[J, J]: how many users met both of two items."""
    table = past.matrix(feedback)
    return as_dense(table.T @ table)


def slim(past: Past, settings: Settings) -> Scorer:
    """Sparse, non-negative item-item weights by coordinate descent on the Gram matrix.

    min ½|x_j - X w|² + l2/2 |w|² + l1 |w|₁ over w >= 0, w_j = 0, with the features of each item its
    nearest by cosine (fsSLIM; Ning & Karypis 2011). All items of a block take each step together.
    """
    from scipy.sparse import csr_array

    gram = _gram(past, settings["feedback"])
    items = len(gram)
    near = min(settings["neighbours"], items - 1)
    norm = np.sqrt(np.diag(gram)) + 1e-9
    features_of, weights_of = [], []
    for start in range(0, items, 256):
        # 1. the features of each item of the block [b, f], and how they go together [b, f, f]
        block = np.arange(start, min(start + 256, items))
        cosine = gram[block] / np.outer(norm[block], norm)
        cosine[np.arange(len(block)), block] = -1
        features = np.argpartition(-cosine, near - 1, axis=1)[:, :near]
        among = gram[features[:, :, None], features[:, None, :]]
        wanted = gram[features, block[:, None]]

        # 2. coordinate descent
        w = np.zeros_like(wanted)
        for _ in range(settings["sweeps"]):
            moved = 0.0
            for k in range(near):
                own = among[:, k, k]
                left = wanted[:, k] - np.einsum("bf,bf->b", among[:, k], w) + own * w[:, k]
                value = np.maximum(left - settings["l1"], 0) / (own + settings["l2"])
                moved = max(moved, float(np.abs(value - w[:, k]).max()))
                w[:, k] = value
            if moved < 1e-4:
                break
        features_of.append(features.ravel())
        weights_of.append(w.ravel())
    target = np.repeat(np.arange(items), near)
    weights = csr_array(
        (np.concatenate(weights_of), (np.concatenate(features_of), target)), shape=(items, items)
    )
    weights.eliminate_zeros()
    return ItemToItem(weights, settings["feedback"])


# --- SAR


def sar(past: Past, settings: Settings) -> Scorer:
    """Simple Algorithm for Recommendation of github.com/recommenders-team/recommenders, as its
    benchmark sets it: Jaccard similarity of items times ratings from 1 to 5 that halve every 30
    days.
    """
    together = _gram(past, "all")
    count = np.diag(together)
    either = count[:, None] + count[None, :] - together
    similarity = np.divide(together, either, out=np.zeros_like(together), where=either > 0)
    return Affinity(similarity, int(past.events.time.max()), settings["half_life_days"])


@dataclass(frozen=True)
class Affinity:
    similarity: Matrix
    now: int
    half_life_days: float

    def scores(self, rows: Rows) -> Matrix:
        affinity = np.zeros(rows.shape)
        for row, history in enumerate(rows.histories):
            events = rows.events.take(history[rows.events.item[history] >= 0])
            age = (self.now - events.time) / 86_400e6
            affinity[row, events.item] = (1 + 4 * np.nan_to_num(events.value, nan=1.0)) * 0.5 ** (
                age / self.half_life_days
            )
        return (affinity @ self.similarity).astype(np.float32)
