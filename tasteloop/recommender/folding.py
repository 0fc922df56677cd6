"""Histories as rows over the catalogue: what the terms of the ranking are computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasteloop.behaviour.events import Event
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.text import TextSettings, in_order

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class FoldedHistories:
    """Histories as rows over the J items, whatever else of the history is left out.

    Attributes:
        liked, seen: [n, J] of 0 and 1: positive events, and any.
        recent_liked, recent_seen: [n, J]: the decay to the power of how many events came after.
        length: [n] events.
    """

    liked: Matrix
    seen: Matrix
    recent_liked: Matrix
    recent_seen: Matrix
    length: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        histories: Sequence[Sequence[Event]],
        catalogue: Catalogue,
        decay: float,
        text: TextSettings,
    ) -> FoldedHistories:
        """Fold histories, as much of each as the text settings say; the newest event of an item
        counts.
        """
        shape = (len(histories), len(catalogue))
        liked, seen = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        for row, history in enumerate(histories):
            newest_first = reversed(in_order(history, text.history_limit))
            for rank, event in enumerate(newest_first):
                position = catalogue.index.get(event.item or "")
                if position is not None:
                    seen[row, position] = seen[row, position] or decay**rank
                    if event.positive(text.positive):
                        liked[row, position] = liked[row, position] or decay**rank
        # What was merely shown says nothing of how much is known of a user.
        lengths = [sum(event.is_act for event in history) for history in histories]
        return cls.decayed(liked, seen, np.array(lengths))

    @classmethod
    def decayed(
        cls, recent_liked: Matrix, recent_seen: Matrix, length: NDArray[np.int64]
    ) -> FoldedHistories:
        """From the decayed matrices alone."""
        one = np.float32(1)
        return cls(
            np.where(recent_liked > 0, one, 0),
            np.where(recent_seen > 0, one, 0),
            recent_liked,
            recent_seen,
            length,
        )


def mark_seen(histories: Sequence[Sequence[Event]], catalogue: Catalogue) -> NDArray[np.bool_]:
    """[n, J]: items that the history consumed; they are not recommended again."""
    marked = np.zeros((len(histories), len(catalogue)), np.bool_)
    for row, history in enumerate(histories):
        for event in history:
            position = catalogue.index.get(event.item or "")
            if position is not None and event.consumes:
                marked[row, position] = True
    return marked
