"""What others' behaviour says of an item, in closed form or nearly: arrays fitted on a table of who
met what.

Nothing here knows of texts, labels or how the parts are weighed (`tasteloop.recommender.recommend`,
`tasteloop.recommender.fitting`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasteloop.behaviour.events import ITEM, TIME, USER, positive
from tasteloop.behaviour.snapshots import Snapshots
from tasteloop.behaviour.times import SECOND

if TYPE_CHECKING:
    import polars as pl

Matrix = NDArray[np.float32]
_DAY = 86_400 * SECOND


@dataclass(frozen=True)
class Past:
    """Events with an item before a cut, by user and time.

    Attributes:
        user: [m] from 0; item: [m] positions; age: [m] days before the cut; positive: [m].
        items: J.
        names: [U] of the users, where they come from snapshots.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    age: NDArray[np.float64]
    positive: NDArray[np.bool_]
    items: int
    names: Sequence[str] = ()

    @classmethod
    def before(cls, cut: int, data: Snapshots) -> Past:
        import narwhals as nw

        past = nw.from_native(data.events).filter(
            nw.col(TIME) < cut, nw.col(ITEM).is_in(data.catalogue.items)
        )
        events: pl.DataFrame = past.with_columns(positive=positive(data.text.positive)).to_native()
        names, user = np.unique(events[USER].to_numpy(), return_inverse=True)
        return cls(
            user.astype(np.int64),
            np.array([data.catalogue.index[i] for i in events[ITEM].to_list()], np.int64),
            (cut - events[TIME].to_numpy()) / _DAY,
            events["positive"].to_numpy().astype(np.bool_),
            len(data.catalogue),
            names.tolist(),
        )

    @cached_property
    def seen(self) -> Matrix:
        """[U, J] of 0 and 1: any event."""
        return self._matrix(np.ones(len(self.user), np.bool_))

    @cached_property
    def matrix(self) -> Matrix:
        """[U, J] of 0 and 1: positive events."""
        return self._matrix(self.positive)

    def _matrix(self, which: NDArray[np.bool_]) -> Matrix:
        users = int(self.user.max()) + 1 if len(self.user) else 1
        out = np.zeros((users, self.items), np.float32)
        out[self.user[which], self.item[which]] = 1
        return out

    def without(self, new: NDArray[np.bool_]) -> Past:
        """As if nobody had met these items [J]."""
        kept = ~new[self.item]
        return Past(
            self.user[kept], self.item[kept], self.age[kept], self.positive[kept], self.items
        )

    def popularity(self, half_life: float) -> Matrix:
        """[J]: log(1 + positive events), each halved in weight every `half_life` days."""
        weight = 0.5 ** (self.age[self.positive] / half_life)
        return np.log1p(np.bincount(self.item[self.positive], weight, minlength=self.items)).astype(
            np.float32
        )

    def count(self, days: float = np.inf) -> Matrix:
        """[J]: positive events of the last days."""
        which = self.positive & (self.age <= days)
        return np.bincount(self.item[which], minlength=self.items).astype(np.float32)


def ease(matrix: Matrix, regularisation: float) -> Matrix:
    """Item-item weights [J, J] with zero diagonal, in closed form (Steck 2019, eq. 8).

    With fewer users than items the inverse is taken of [U, U]: by Woodbury's identity the weights
    are `Q_ij / (1 - Q_jj)` of `Q = Xᵀ (X Xᵀ + λ)⁻¹ X`.
    """
    if len(matrix) < matrix.shape[1]:
        users = matrix.astype(np.float64) @ matrix.T
        users[np.diag_indices(len(users))] += regularisation
        root = np.linalg.solve(np.linalg.cholesky(users), matrix)
        explained: Matrix = (root.T @ root).astype(np.float32)
        explained /= (1 - (root**2).sum(0)).astype(np.float32)
        explained[np.diag_indices(len(explained))] = 0
        return explained
    gram = matrix.T.astype(np.float64) @ matrix
    gram[np.diag_indices(len(gram))] += regularisation
    precision = np.linalg.inv(gram)
    weights = precision / -np.diag(precision)
    weights[np.diag_indices(len(weights))] = 0
    return weights.astype(np.float32)


def item_knn(matrix: Matrix, neighbours: int, shrink: float) -> Matrix:
    """Item-item weights [J, J]: shrunk cosine, each item's `neighbours` strongest kept (Deshpande &
    Karypis 2004).
    """
    together = matrix.T @ matrix
    norm = np.sqrt(np.diag(together))
    similarity = together / (np.outer(norm, norm) + shrink + 1e-9)
    similarity[np.diag_indices(len(similarity))] = 0
    if neighbours < len(similarity):
        cut = np.partition(similarity, -neighbours, axis=0)[-neighbours]
        similarity[similarity < cut] = 0
    return similarity.astype(np.float32)


def nearby(past: Past, reach: int, shrink: float = 20) -> Matrix:
    """Item-item weights [J, J]: how often two items stood near each other in a history, d places
    apart counting exp(-d/3), as a share of everything that stood near the first.
    """
    together = np.zeros((past.items, past.items), np.float32)
    for places in range(1, reach + 1):
        first, second = past.item[:-places], past.item[places:]
        one = (past.user[:-places] == past.user[places:]) & (first != second)
        np.add.at(together, (first[one], second[one]), np.float32(np.exp(-places / 3)))
    together += together.T
    share: Matrix = together / (together.sum(1, keepdims=True) + np.float32(shrink))
    return share


def als(matrix: Matrix, width: int, alpha: float, regularisation: float, iterations: int) -> Matrix:
    """Item factors [J, width] of implicit ALS; an event weighs `alpha` beside no event (Hu et al.
    2008).
    """
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):  # it has threads of its own
        model = AlternatingLeastSquares(
            width, regularisation, alpha, iterations=iterations, random_state=0
        )
        model.fit(csr_matrix(matrix), show_progress=False)
    return np.asarray(model.item_factors, np.float32)


def spectral(matrix: Matrix, width: int) -> tuple[Matrix, Matrix]:
    """The leading right singular vectors [J, f] of D_u^-½ X D_j^-½, and D_j [J], at least 1."""
    from scipy.sparse.linalg import svds

    users, activity = np.maximum(matrix.sum(1, keepdims=True), 1), np.maximum(matrix.sum(0), 1)
    normal = matrix / np.sqrt(users) / np.sqrt(activity)
    smallest = min(normal.shape)
    if width < smallest:
        vectors = svds(normal, width, random_state=0)[2].T
    else:
        vectors = np.linalg.svd(normal, full_matrices=False)[2].T
    return np.ascontiguousarray(vectors, np.float32), activity.astype(np.float32)
