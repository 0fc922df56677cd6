"""Histories as rows over the catalogue: what the terms of the ranking are computed from.

A few histories are folded at once, as a server is asked (`FoldedHistories`). Many are kept as
tables of what they hold (`HistoryTable`), and folded a block of rows at a time.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tasteloop.behaviour.events import Event
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.text import TextSettings, in_order

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Matrix = NDArray[np.float32]

# Cells of a block of rows over the catalogue, 16 MB in single precision: what is computed for many
# histories is computed for so many at once.
BLOCK_CELLS = 2**22

# What a user thought of an item counts so much less with every act since.
OPINION_DECAY = 0.9


@dataclass(frozen=True)
class FoldedHistories:
    """Histories as rows over the J items, whatever else of the history is left out.

    Attributes:
        liked, seen: [n, J] of 0 and 1: positive events, and any.
        recent_liked, recent_seen: [n, J]: the decay to the power of how many events came after.
        opinions: [n, J] from -1 to 1: what the newest event with an opinion says of an item, less
            the more events came after.
        length: [n] events.
    """

    liked: Matrix
    seen: Matrix
    recent_liked: Matrix
    recent_seen: Matrix
    opinions: Matrix
    length: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        histories: Sequence[Sequence[Event]],
        catalogue: Catalogue,
        decay: float,
        text: TextSettings,
        opinions_count: bool = True,
    ) -> FoldedHistories:
        """Fold histories, as much of each as the text settings say; the newest event of an item
        counts.

        Args:
            opinions_count: False as it was before opinions: none has any, and what was rejected
                was seen.
        """
        shape = (len(histories), len(catalogue))
        liked, seen = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        opinions = np.zeros(shape, np.float32)
        for row, history in enumerate(histories):
            newest = _Newest.of(history, catalogue, text, opinions_count)
            for matrix, ranks in ((liked, newest.liked), (seen, newest.seen)):
                for position, rank in ranks.items():
                    matrix[row, position] = decay**rank
            for position, opinion in newest.opinions.items():
                opinions[row, position] = opinion
        return cls.decayed(liked, seen, opinions, _lengths(histories))

    @classmethod
    def decayed(
        cls,
        recent_liked: Matrix,
        recent_seen: Matrix,
        opinions: Matrix,
        length: NDArray[np.int64],
    ) -> FoldedHistories:
        """From the decayed matrices alone."""
        one = np.float32(1)
        return cls(
            np.where(recent_liked > 0, one, 0),
            np.where(recent_seen > 0, one, 0),
            recent_liked,
            recent_seen,
            opinions,
            length,
        )


class Histories(Protocol):
    """n histories over the J items, of which a block of rows is folded at a time."""

    @property
    def shape(self) -> tuple[int, int]:
        """n and J."""

    @property
    def length(self) -> NDArray[np.int64]:
        """[n] events of each."""

    def fold(self, decay: float, rows: slice) -> FoldedHistories:
        """Some rows, with this decay of their events."""

    def hidden(self, rows: slice) -> NDArray[np.bool_]:
        """[rows, J]: items that are not ranked for some rows."""


@dataclass(frozen=True)
class HistoryTable:
    """n histories over the J items, kept as what they hold: `Histories` in little memory.

    Attributes:
        liked, seen: [n, J] sparse, of positive events and of any: 1 + how many events came after
            the newest one of an item.
        opinions: [n, J] sparse, as `FoldedHistories` has them.
        consumed: [n, J] sparse, 1 where the history consumed an item.
        length: [n] events.
    """

    liked: csr_array
    seen: csr_array
    opinions: csr_array
    consumed: csr_array
    length: NDArray[np.int64]

    @classmethod
    def of(
        cls, histories: Sequence[Sequence[Event]], catalogue: Catalogue, text: TextSettings
    ) -> HistoryTable:
        """Read histories, as much of each as the text settings say."""
        liked, seen, consumed = _SparseRows(), _SparseRows(), _SparseRows()
        opinions = _SparseRows("f")
        for history in histories:
            newest = _Newest.of(history, catalogue, text)
            liked.append({position: 1 + rank for position, rank in newest.liked.items()})
            seen.append({position: 1 + rank for position, rank in newest.seen.items()})
            opinions.append(newest.opinions)
            consumed.append(dict.fromkeys(_consumed(history, catalogue), 1))
        items = len(catalogue)
        return cls(
            liked.table(items),
            seen.table(items),
            opinions.table(items),
            consumed.table(items),
            _lengths(histories),
        )

    @property
    def shape(self) -> tuple[int, int]:
        rows, items = self.seen.shape
        return rows, items

    def fold(self, decay: float, rows: slice) -> FoldedHistories:
        """`FoldedHistories.of` some rows."""
        return FoldedHistories.decayed(
            _decayed(self.liked[rows], decay),
            _decayed(self.seen[rows], decay),
            np.asarray(self.opinions[rows].toarray(), np.float32),
            self.length[rows],
        )

    def hidden(self, rows: slice) -> NDArray[np.bool_]:
        """`mark_seen` of some rows."""
        return np.asarray(self.consumed[rows].toarray() > 0)

    def liked_items(self, rows: slice) -> csr_array:
        """[rows, J] sparse, of 1 where an item was liked."""
        part = self.liked[rows]
        part.data = np.ones(part.nnz, np.float32)
        return part


@dataclass(frozen=True)
class OnlyNew:
    """Histories in which nobody has met the new items, and of which new items alone are ranked.

    Attributes:
        is_new: [J].
    """

    histories: Histories
    is_new: NDArray[np.bool_]

    @property
    def shape(self) -> tuple[int, int]:
        return self.histories.shape

    @property
    def length(self) -> NDArray[np.int64]:
        return self.histories.length

    def fold(self, decay: float, rows: slice) -> FoldedHistories:
        folded = self.histories.fold(decay, rows)
        return FoldedHistories.decayed(
            np.where(self.is_new, 0, folded.recent_liked),
            np.where(self.is_new, 0, folded.recent_seen),
            np.where(self.is_new, 0, folded.opinions),
            folded.length,
        )

    def hidden(self, rows: slice) -> NDArray[np.bool_]:
        return self.histories.hidden(rows) | ~self.is_new


def row_blocks(shape: tuple[int, int], cells: int | None = None) -> Iterator[slice]:
    """The rows of an [n, J] in blocks of at most so many cells (`BLOCK_CELLS` where None), of one
    row at least.
    """
    rows, items = shape
    size = max(1, (BLOCK_CELLS if cells is None else cells) // max(items, 1))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def mark_seen(histories: Sequence[Sequence[Event]], catalogue: Catalogue) -> NDArray[np.bool_]:
    """[n, J]: items that the history consumed; they are not recommended again."""
    marked = np.zeros((len(histories), len(catalogue)), np.bool_)
    for row, history in enumerate(histories):
        for position in _consumed(history, catalogue):
            marked[row, position] = True
    return marked


def _consumed(history: Sequence[Event], catalogue: Catalogue) -> Iterator[int]:
    """The positions of what a history consumed."""
    for event in history:
        position = catalogue.index.get(event.item or "")
        if position is not None and event.consumes:
            yield position


@dataclass(frozen=True)
class _Newest:
    """What a history says of items, by their positions.

    Attributes:
        liked, seen: how many events came after the newest positive event, and after the newest of
            any kind.
        opinions: what the newest event with an opinion says, decayed by how many came after.
    """

    liked: dict[int, int]
    seen: dict[int, int]
    opinions: dict[int, float]

    @classmethod
    def of(
        cls,
        history: Sequence[Event],
        catalogue: Catalogue,
        text: TextSettings,
        opinions_count: bool = True,
    ) -> _Newest:
        newest = cls({}, {}, {})
        newest_first = reversed(in_order(history, text.history_limit))
        for rank, event in enumerate(newest_first):
            position = catalogue.index.get(event.item or "")
            if position is None:
                continue
            opinion = event.opinion(text.positive, text.negative) if opinions_count else 0.0
            if opinion >= 0:
                newest.seen.setdefault(position, rank)
            if event.positive(text.positive):
                newest.liked.setdefault(position, rank)
            if opinion:
                newest.opinions.setdefault(position, opinion * OPINION_DECAY**rank)
        return newest


def _lengths(histories: Sequence[Sequence[Event]]) -> NDArray[np.int64]:
    """[n] acts: what was merely shown says nothing of how much is known of a user."""
    lengths = [sum(event.is_act for event in history) for history in histories]
    return np.array(lengths, np.int64)


class _SparseRows:
    """Rows of numbers over the items, put together one after the other; whole numbers where the
    type is "i", others where it is "f".
    """

    def __init__(self, typecode: str = "i") -> None:
        self.ends, self.items = array("q", [0]), array("i")
        self.values: array[Any] = array(typecode)

    def append(self, row: Mapping[int, float]) -> None:
        """Add a row of values by position."""
        self.items.extend(row.keys())
        self.values.extend(row.values())
        self.ends.append(len(self.items))

    def table(self, items: int) -> csr_array:
        """[rows, items]."""
        from scipy.sparse import csr_array

        arrays = (np.array(a) for a in (self.values, self.items, self.ends))
        return csr_array(tuple(arrays), shape=(len(self.ends) - 1, items))


def _decayed(ranks: csr_array, decay: float) -> Matrix:
    """[rows, J]: the decay to the power of the rank, where 1 + rank is given; 0 elsewhere."""
    powers = np.array([decay**rank for rank in range(int(ranks.data.max(initial=0)))], np.float32)
    out = np.zeros(ranks.shape, np.float32)
    row = np.repeat(np.arange(ranks.shape[0]), np.diff(ranks.indptr))
    out[row, ranks.indices] = powers[ranks.data - 1]
    return out
