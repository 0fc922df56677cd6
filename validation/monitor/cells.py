"""The cells of shares that several measures have: which cell a value lies in, and cells' names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from validation.monitor.sampling import Codebook
from validation.monitor.statistics import Array

if TYPE_CHECKING:
    import polars as pl

# of the reference's items by popularity; an item that it did not have is one more cell
TENTHS = 10


def cells_of(values: pl.Series, known: Mapping[str, int], other: int) -> Array:
    """The cell of each value; `other` for one that is not known."""
    import polars as pl

    if not known:
        return np.full(len(values), other)
    return values.replace_strict(dict(known), default=other, return_dtype=pl.Int64).to_numpy()


def names_of_labels(book: Codebook) -> list[str]:
    return list(book.labels)


def names_of_tenths(_: Codebook) -> list[str]:
    names = [f"tenth {number}" for number in range(1, TENTHS + 1)]
    return ["most popular tenth", *names[1:], "new items"]
