"""The arithmetic of terms: each is standardised over the catalogue and weighed by its λ.

A term is evaluated at all items or at some. Its mean and deviation over the J items come from the
few numbers that it is a product or a sparse row of, so no [n, J] is gone over for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Matrix = NDArray[np.float32]
Positions = NDArray[np.integer[Any]] | slice
Weights = dict[str, NDArray[np.float64]]  # λ of each term for each row [n, 1]

_MIDDLING = 3.5  # log(1 + n) of a history of middling length, about which λ turn
_SPARSE = 50  # times fewer weights than cells, from which on BLAS is slower than a sparse product
_CONSTANT = 1e-7  # a deviation below it is rounding


class Term(Protocol):
    """A standardised term of n histories."""

    def __call__(self, weight: NDArray[np.float64], at: Positions) -> Matrix:
        """`weight` [n, 1] times the term at some items, [n, positions]."""


@dataclass(frozen=True)
class ProductTerm:
    """`standardise(x @ items)`: a few numbers of a history times a fixed array.

    Attributes:
        scaled: [n, d], x over the deviation of its product.
        shift: [n, 1], the mean over the items of `scaled @ items`.
        items: [d, J].
        scale: [n, 1], what x was multiplied by.
    """

    scaled: NDArray[np.float64]
    shift: NDArray[np.float64]
    items: Matrix
    scale: NDArray[np.float64]

    def __call__(self, weight: NDArray[np.float64], at: Positions) -> Matrix:
        weighed = (weight * self.scaled).astype(np.float32)
        return weighed @ self.items[:, at] - as_single(weight * self.shift)

    def times(self, strength: NDArray[np.float64]) -> ProductTerm:
        """The term as strong as `strength` [n, 1] says."""
        return replace(
            self,
            scaled=strength * self.scaled,
            shift=strength * self.shift,
            scale=strength * self.scale,
        )


@dataclass(frozen=True)
class SparseTerm:
    """`standardise` of rows that are 0 at all but E items.

    Attributes:
        scaled: [n, E], the values at those items over the row's deviation.
        shift: [n, 1], the row's mean over its deviation.
        positions: [E] of those items; position_of_item: [J] where an item stands among them, -1
            where it does not.
        scale: [n, 1], 1 over the row's deviation.
    """

    scaled: Matrix
    shift: NDArray[np.float64]
    positions: NDArray[np.int32]
    position_of_item: NDArray[np.int64]
    scale: NDArray[np.float64]

    def __call__(self, weight: NDArray[np.float64], at: Positions) -> Matrix:
        place = self.position_of_item[at]
        term = np.repeat(as_single(-weight * self.shift), len(place), 1)
        if isinstance(at, slice):
            term[:, self.positions] += as_single(weight) * self.scaled
        else:
            compared = np.flatnonzero(place >= 0)
            term[:, compared] += as_single(weight) * self.scaled[:, place[compared]]
        return term

    def times(self, strength: NDArray[np.float64]) -> SparseTerm:
        """The term as strong as `strength` [n, 1] says."""
        return replace(
            self,
            scaled=as_single(strength) * self.scaled,
            shift=strength * self.shift,
            scale=strength * self.scale,
        )


@dataclass(frozen=True)
class ListedTerm:
    """Rows that are 0 at all but a few items, as they are: not standardised.

    Attributes:
        values: [n, J] sparse.
    """

    values: csr_array

    def __call__(self, weight: NDArray[np.float64], at: Positions) -> Matrix:
        here = self.values if isinstance(at, slice) else self.values[:, at]
        return as_single(weight) * np.asarray(here.toarray(), np.float32)


@dataclass(frozen=True)
class SumTerm:
    """Several terms with one weight."""

    terms: tuple[Term, ...]

    def __call__(self, weight: NDArray[np.float64], at: Positions) -> Matrix:
        return reduce(np.add, (term(weight, at) for term in self.terms))


@dataclass(frozen=True)
class SharedTerm:
    """A standardised row [1, J] that is the same for every history."""

    standardised: Matrix

    def __call__(self, weight: NDArray[np.float64], at: Positions) -> Matrix:
        return as_single(weight) * self.standardised[:, at]


@dataclass(frozen=True)
class Factors:
    """A fixed array [d, J] that a term multiplies d numbers of a history with, and its moments over
    the J items.

    The variance of a product is a quadratic form: var(x @ items) = x C xᵀ with the items'
    covariance C [d, d].
    """

    items: Matrix
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    @classmethod
    def of(cls, items: Matrix) -> Factors:
        mean = items.mean(1, dtype=np.float64)
        covariance = np.zeros((len(items), len(items)))
        for start in range(0, items.shape[1], 8192):
            centred = items[:, start : start + 8192] - mean[:, None]
            covariance += centred @ centred.T
        return cls(items, mean, covariance / items.shape[1])

    def per_deviation(self, x: Matrix) -> NDArray[np.float64]:
        """1 over the deviation of `x @ items` [n, 1], 0 where that is constant."""
        exact = x.astype(np.float64)
        return inverse_root(((exact @ self.covariance) * exact).sum(1, keepdims=True))

    def term(self, x: Matrix) -> ProductTerm:
        """`standardise(x @ items)`, x [n, d]."""
        scale = self.per_deviation(x)
        scaled = scale * x
        return ProductTerm(scaled, scaled @ self.mean[:, None], self.items, scale)

    def plain(self, x: Matrix) -> ProductTerm:
        """`x @ items`, x [n, d], as it is: what is small stays small."""
        exact = x.astype(np.float64)
        return ProductTerm(exact, np.zeros((len(x), 1)), self.items, np.ones((len(x), 1)))


def standardise(scores: NDArray[Any]) -> Matrix:
    """Mean 0 and deviation 1 over each row's items; a constant row becomes 0."""
    centred: Matrix = scores.astype(np.float32)
    centred = centred - centred.mean(1, keepdims=True)
    deviation = centred.std(1, keepdims=True)
    out: Matrix = np.divide(
        centred, deviation, out=np.zeros_like(centred), where=deviation > _CONSTANT
    )
    return out


def standardise_sparse(
    values: Matrix, position_of_item: NDArray[np.int64], compared_items: NDArray[np.int32]
) -> SparseTerm:
    """`standardise` of what is `values` [n, E] at the compared items and 0 at all others.

    Args:
        position_of_item: [J] where an item stands among the compared, -1 where it does not.
        compared_items: [E] their positions in the catalogue.
    """
    scale, shift = sparse_scale(values, len(position_of_item))
    return SparseTerm(as_single(scale) * values, shift, compared_items, position_of_item, scale)


def sparse_scale(values: Matrix, items: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and shift [n, 1] with which scale · x - shift is the standardised x over `items` items,
    of which `values` [n, E] are all that are not 0.
    """
    mean = values.mean(1, dtype=np.float64, keepdims=True) * (values.shape[1] / items)
    square = np.einsum("ij,ij->i", values, values, dtype=np.float64)[:, None] / items
    scale = inverse_root(square - mean**2)
    return scale, scale * mean


def inverse_root(variance: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / deviation; 0 where there is none."""
    deviation = np.sqrt(np.maximum(variance, 0))
    return np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > _CONSTANT)


def centre_length(length: NDArray[np.int64]) -> NDArray[np.float64]:
    """How much is known of histories of so many events: log(1 + n) beside a middling one's."""
    known: NDArray[np.float64] = np.log1p(length) - _MIDDLING
    return known


def evaluate_weights(
    weights: Mapping[str, tuple[float, float]], known: NDArray[np.float64]
) -> Weights:
    """λ = a + b · known of each term for each row [n, 1], by `centre_length`."""
    return {name: a + b * known for name, (a, b) in weights.items()}


def as_single(x: NDArray[np.float64]) -> Matrix:
    return x.astype(np.float32)


def rows_product(weights: Matrix, rows: Matrix) -> Matrix:
    """`weights @ rows`, [n, m] by [m, d]. Where few rows have a weight only those are read;
    where few weights are not 0 only those are multiplied.
    """
    used = np.flatnonzero(weights.any(0))
    product: Matrix
    if 4 * len(used) <= weights.shape[1]:
        product = weights[:, used] @ rows[used]
    elif np.count_nonzero(weights) * _SPARSE < weights.size:
        from scipy.sparse import csr_array

        product = csr_array(weights) @ rows
    else:
        product = weights @ rows
    return product
