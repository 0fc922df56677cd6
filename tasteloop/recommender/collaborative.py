"""What others' behaviour says of an item, in closed form or nearly: arrays fitted on a table of who
met what.

Nothing here knows of texts, labels or how the parts are weighed (`tasteloop.recommender.recommend`,
`tasteloop.recommender.fitting`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasteloop.behaviour.events import ITEM, TIME, USER, positive
from tasteloop.behaviour.snapshots import Snapshots
from tasteloop.behaviour.times import SECOND

if TYPE_CHECKING:
    import polars as pl
    from scipy.sparse import csr_array

Matrix = NDArray[np.float32]
Table: TypeAlias = "Matrix | csr_array"  # who met what

# Cells of the largest dense matrix, 128 MB in single precision; a larger one is sparse. ml-100k
# (943 users, 1,682 items) and ml-1m (6,040 users, 3,883 items) are dense: BLAS is fastest with it.
DENSE_CELLS = 2**25
_BLOCK_CELLS = 2**22  # of a block of columns of a matrix between all items
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
        import polars as pl

        # a lazy table, so that only what is selected is filtered
        past = (
            nw.from_native(data.events.lazy())
            .filter(nw.col(TIME) < cut, nw.col(ITEM).is_in(data.catalogue.items))
            .select(USER, ITEM, TIME, positive=positive(data.text.positive))
        )
        events: pl.DataFrame = past.collect().to_native()
        # An enumeration numbers the strings without a Python object for each event.
        names = events[USER].unique().sort()
        user = events[USER].cast(pl.Enum(names)).to_physical()
        item = events[ITEM].cast(pl.Enum(data.catalogue.items)).to_physical()
        return cls(
            user.to_numpy().astype(np.int64),
            item.to_numpy().astype(np.int64),
            (cut - events[TIME].to_numpy()) / _DAY,
            events["positive"].to_numpy().astype(np.bool_),
            len(data.catalogue),
            names.to_list(),
        )

    @cached_property
    def seen(self) -> Table:
        """[U, J] of 0 and 1: any event; sparse where it has more than `DENSE_CELLS` cells."""
        return self._table(np.ones(len(self.user), np.bool_))

    @cached_property
    def matrix(self) -> Table:
        """[U, J] of 0 and 1: positive events; sparse where it has more than `DENSE_CELLS` cells."""
        return self._table(self.positive)

    def _table(self, which: NDArray[np.bool_]) -> Table:
        users = int(self.user.max()) + 1 if len(self.user) else 1
        return mark(self.user[which], self.item[which], (users, self.items))

    def without(self, new: NDArray[np.bool_]) -> Past:
        """As if nobody had met these items [J]."""
        known = ~new[self.item]
        return Past(
            self.user[known], self.item[known], self.age[known], self.positive[known], self.items
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


def mark(row: NDArray[np.int64], item: NDArray[np.integer[Any]], shape: tuple[int, int]) -> Table:
    """A table of this shape with 1 at each (row, item) and 0 elsewhere; sparse where it has more
    than `DENSE_CELLS` cells.
    """
    if shape[0] * shape[1] <= DENSE_CELLS:
        dense = np.zeros(shape, np.float32)
        dense[row, item] = 1
        return dense
    from scipy.sparse import csr_array

    sparse = csr_array((np.ones(len(row), np.float32), (row, item)), shape=shape)
    sparse.sum_duplicates()
    sparse.data[:] = 1
    return sparse


def as_dense(table: Table) -> Matrix:
    """The table with all its cells."""
    return table if isinstance(table, np.ndarray) else np.asarray(table.toarray(), np.float32)


def keep_rows(table: Table, selected: NDArray[np.bool_]) -> Table:
    """The table with zeros in the rows [U] that are not selected."""
    if isinstance(table, np.ndarray):
        return table * selected[:, None]
    return table.multiply(selected[:, None]).tocsr()


def ease(table: Table, regularisation: float) -> Matrix:
    """Item-item weights [J, J] with zero diagonal, in closed form (Steck 2019, eq. 8).

    With fewer users than items the inverse is taken of [U, U]: by Woodbury's identity the weights
    are `Q_ij / (1 - Q_jj)` of `Q = Xᵀ (X Xᵀ + λ)⁻¹ X`.
    """
    if table.shape[0] < table.shape[1]:
        matrix = as_dense(table)
        users = matrix.astype(np.float64) @ matrix.T
        users[np.diag_indices(len(users))] += regularisation
        root = np.linalg.solve(np.linalg.cholesky(users), matrix)
        explained: Matrix = (root.T @ root).astype(np.float32)
        explained /= (1 - (root**2).sum(0)).astype(np.float32)
        explained[np.diag_indices(len(explained))] = 0
        return explained
    gram = _gram(table)
    gram[np.diag_indices(len(gram))] += regularisation
    precision = np.linalg.inv(gram)
    del gram
    precision /= -np.diag(precision).copy()
    precision[np.diag_indices(len(precision))] = 0
    return precision.astype(np.float32)


def _gram(table: Table) -> NDArray[np.float64]:
    """XᵀX [J, J]: how many users met both of two items."""
    if isinstance(table, np.ndarray):
        return np.asarray(table.T.astype(np.float64) @ table)
    together = (table.T @ table).toarray()  # whole numbers: exact in single precision
    return np.asarray(together, np.float64)


def item_knn(table: Table, neighbours: int, shrink: float) -> Table:
    """Item-item weights [J, J]: shrunk cosine, each item's `neighbours` strongest kept (Deshpande &
    Karypis 2004). Computed in blocks of columns; sparse where [J, J] has more than `DENSE_CELLS`
    cells.
    """
    items = table.shape[1]
    if items**2 <= DENSE_CELLS:
        similarity = np.empty((items, items), np.float32)
        for columns in _column_blocks(items):
            similarity[:, columns] = _similarity(table, columns, neighbours, shrink)
        return similarity
    from scipy.sparse import csc_array, hstack

    blocks = [
        csc_array(_similarity(table, columns, neighbours, shrink))
        for columns in _column_blocks(items)
    ]
    return hstack(blocks, format="csr")


def _column_blocks(items: int) -> Iterator[slice]:
    width = max(1, _BLOCK_CELLS // items)
    for start in range(0, items, width):
        yield slice(start, min(start + width, items))


def _similarity(table: Table, columns: slice, neighbours: int, shrink: float) -> Matrix:
    """Some columns of `item_knn`, [J, columns]."""
    items = table.shape[1]
    together = as_dense(table.T @ table[:, columns])
    norm = np.sqrt(_squares(table))
    similarity = np.asarray(together / (np.outer(norm, norm[columns]) + shrink + 1e-9), np.float32)
    places = np.arange(items)[columns]
    similarity[places, places - places[0]] = 0
    if neighbours < items:
        cut = np.partition(similarity, -neighbours, axis=0)[-neighbours]
        similarity[similarity < cut] = 0
    return similarity


def _squares(table: Table) -> Matrix:
    """[J]: sum of squares of each column."""
    squares = table**2 if isinstance(table, np.ndarray) else table.multiply(table)
    return np.asarray(squares.sum(0), np.float32)


def nearby(
    past: Past, reach: int, shrink: float = 20, compared: NDArray[np.int32] | None = None
) -> Matrix:
    """Item-item weights [E, E] between the compared items: how often two items stood near each
    other in a history, d places apart counting exp(-d/3), as a share of everything that stood near
    the first, compared or not.

    Args:
        compared: [E] positions; None for all items.
    """
    if compared is None:
        compared = np.arange(past.items, dtype=np.int32)
    place = np.full(past.items, -1)
    place[compared] = np.arange(len(compared))
    at = place[past.item]

    # 1. pairs of compared items, and what else stood near a compared one
    together = np.zeros((len(compared), len(compared)), np.float32)
    others = np.zeros(len(compared))
    for places in range(1, reach + 1):
        weight = np.exp(-places / 3)
        first, second = at[:-places], at[places:]
        is_pair = (past.user[:-places] == past.user[places:]) & (
            past.item[:-places] != past.item[places:]
        )
        both = is_pair & (first >= 0) & (second >= 0)
        np.add.at(together, (first[both], second[both]), np.float32(weight))
        for one, other in ((first, second), (second, first)):
            alone = one[is_pair & (one >= 0) & (other < 0)]
            others += weight * np.bincount(alone, minlength=len(compared))

    # 2. shares
    _symmetrise(together)
    total = together.sum(1) + others.astype(np.float32)
    together /= (total + np.float32(shrink))[:, None]
    return together


def _symmetrise(square: Matrix) -> None:
    """Add the transpose in place."""
    for row in range(len(square)):
        square[row, row:] += square[row:, row]
        square[row:, row] = square[row, row:]


def als(table: Table, width: int, alpha: float, regularisation: float, iterations: int) -> Matrix:
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
        model.fit(csr_matrix(table), show_progress=False)
    return np.asarray(model.item_factors, np.float32)


def spectral(table: Table, width: int) -> tuple[Matrix, Matrix]:
    """The leading right singular vectors [J, f] of D_u^-½ X D_j^-½, and D_j [J], at least 1."""
    from scipy.sparse.linalg import svds

    users, activity = np.maximum(table.sum(1), 1), np.maximum(table.sum(0), 1)
    normal: Table
    if isinstance(table, np.ndarray):
        normal = table / np.sqrt(users)[:, None] / np.sqrt(activity)
    else:
        from scipy.sparse import diags_array

        normal = diags_array(1 / np.sqrt(users)) @ table @ diags_array(1 / np.sqrt(activity))
    smallest = min(normal.shape)
    if width < smallest:
        vectors = svds(normal, width, random_state=0)[2].T
    else:
        vectors = np.linalg.svd(as_dense(normal), full_matrices=False)[2].T
    return np.ascontiguousarray(vectors, np.float32), activity.astype(np.float32)
