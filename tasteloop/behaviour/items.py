"""The items table and its interest labels, and the reviews table that sentiment is learned from."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import narwhals as nw

from tasteloop.files import read_parquet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ITEM = "item"
TITLE = "title"
LABELS = "labels"
TEXT = "text"
DOMAIN = "domain"
RELEASED = "released"
INFERRED = (
    "inferred"  # of snapshots whose labels the catalogue lacked: whether an item's are not its own
)

ITEMS_SCHEMA = nw.Schema(
    {
        ITEM: nw.String(),
        TITLE: nw.String(),
        LABELS: nw.List(nw.String()),
        TEXT: nw.String(),
        DOMAIN: nw.String(),
        RELEASED: nw.Date(),
    }
)

REVIEW = "review"
SENTIMENT = "sentiment"
SOURCE = "source"

REVIEWS_SCHEMA = nw.Schema(
    {
        REVIEW: nw.String(),
        TEXT: nw.String(),
        SENTIMENT: nw.Int8(),
        ITEM: nw.String(),
        SOURCE: nw.String(),
    }
)


@dataclass(frozen=True)
class Catalogue:
    """The items table by position: item *j* is row *j*, everywhere an item is a number."""

    items: list[str]
    titles: list[str]
    labels: list[list[str]]
    texts: list[str | None]
    released: list[date | None] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Catalogue:
        """From an items table on disk.

        Raises:
            TasteloopError: no complete Parquet file.
        """
        table = read_parquet(path)
        return cls(*(table[column].to_list() for column in (ITEM, TITLE, LABELS, TEXT, RELEASED)))

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def index(self) -> dict[str, int]:
        """Item id -> position."""
        return {item: position for position, item in enumerate(self.items)}

    @cached_property
    def label_names(self) -> list[str]:
        """Every label that an item bears, sorted."""
        return sorted({label for labels in self.labels for label in labels})

    def membership(self, names: list[str]) -> NDArray[np.float32]:
        """[items, labels]: 1 where an item bears the label.

        The matrix is computed once for the same names, and is read-only.
        """
        import numpy as np

        computed = self._memberships.get(tuple(names))
        if computed is not None:
            return computed
        column = {name: k for k, name in enumerate(names)}
        matrix = np.zeros((len(self), len(names)), np.float32)
        for position, labels in enumerate(self.labels):
            for label in labels:
                if label in column:
                    matrix[position, column[label]] = 1
        matrix.flags.writeable = False
        self._memberships[tuple(names)] = matrix
        return matrix

    @cached_property
    def _memberships(self) -> dict[tuple[str, ...], NDArray[np.float32]]:
        return {}
