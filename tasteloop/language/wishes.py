"""What the users behind histories have asked for, kept up to date text by text.

Texts are heard in order, and a later one has the last word: what is wanted now is no longer
refused, and what is refused now no longer wanted. A wish fades with every act after it; a refusal
hardly does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasteloop.behaviour.events import Event
from tasteloop.behaviour.text import in_order
from tasteloop.language.reader import Reader, Reading

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Matrix = NDArray[np.float32]

# So much of their weight wishes and refusals keep with each act after them: what someone searched
# for ten acts ago counts a third; what they refused then is still refused.
WISH_DECAY, REFUSAL_DECAY = 0.9, 0.99
TEXTS = 24  # the newest texts of a history that are read
_FAINT = 0.02  # less is nothing


@dataclass(frozen=True)
class Wishes:
    """What n users want and refuse, of K labels and J items.

    Attributes:
        wanted, refused: [n, K] from 0 to 1.
        direction: [n, d] where the meaning of what they want lies, as long as the wish is strong.
        titles, refused_titles: [n, J] sparse, from 0 to 1: items that they name.
    """

    wanted: Matrix
    refused: Matrix
    direction: Matrix
    titles: csr_array
    refused_titles: csr_array

    def __len__(self) -> int:
        return len(self.wanted)

    @property
    def any(self) -> NDArray[np.bool_]:
        """[n] whether something was asked for or refused."""
        return np.asarray(
            (self.wanted.max(1, initial=0) > 0)
            | (self.refused.max(1, initial=0) > 0)
            | (np.abs(self.direction).max(1, initial=0) > 0)
            | (np.diff(self.titles.indptr) > 0)
            | (np.diff(self.refused_titles.indptr) > 0)
        )

    @property
    def strength(self) -> NDArray[np.float64]:
        """[n, 1] from 0 to 1: how sure it is that something is wanted."""
        return np.asarray(np.linalg.norm(self.direction, axis=1, keepdims=True), np.float64)

    def take(self, rows: slice) -> Wishes:
        """Some of the users."""
        return Wishes(
            self.wanted[rows],
            self.refused[rows],
            self.direction[rows],
            self.titles[rows],
            self.refused_titles[rows],
        )

    @classmethod
    def none(cls, users: int, labels: int, items: int, width: int) -> Wishes:
        """Of users who asked for nothing."""
        from scipy.sparse import csr_array

        nothing = csr_array((users, items), dtype=np.float32)
        of_labels = np.zeros((users, labels), np.float32)
        return cls(of_labels, of_labels, np.zeros((users, width), np.float32), nothing, nothing)

    @classmethod
    def of(
        cls,
        histories: Sequence[Sequence[Event]],
        reader: Reader,
        read: Callable[[Sequence[str]], Sequence[Reading]],
        limit: int,
    ) -> Wishes:
        """What histories say.

        Args:
            read: `reader.read` with its encoder and head; it may know texts from before.
            limit: the newest events that count as the history at all.
        """
        labels, width = reader.items.shape
        said = [sayings(history, limit) for history in histories]
        texts = list(dict.fromkeys(text for each in said for text, _ in each))
        if not texts:
            return cls.none(len(histories), labels, len(reader.titles.names), width)
        reading_of = dict(zip(texts, read(texts), strict=True))
        users = [_User(labels, width) for _ in histories]
        for user, each in zip(users, said, strict=True):
            for text, later in each:
                user.hear(reading_of[text], later)
        return cls(
            np.stack([user.wanted for user in users]),
            np.stack([user.refused for user in users]),
            np.stack([user.direction for user in users]),
            _rows([user.titles for user in users], len(reader.titles.names)),
            _rows([user.refused_titles for user in users], len(reader.titles.names)),
        )


@dataclass(frozen=True)
class Origins:
    """Which of one user's texts each wish and refusal comes from.

    What is wanted or refused of a label or a title is what one text says, the strongest that is
    left; the direction is a sum over texts.

    Attributes:
        texts: what was said, oldest first.
        wanted_by, refused_by: [K] the text, -1 where nothing is wanted or refused of the label.
        directions: [texts, d], which add up to the direction of the wishes.
        titles_by, refused_titles_by: the text by the position of a title.
    """

    texts: tuple[str, ...]
    wanted_by: NDArray[np.int64]
    refused_by: NDArray[np.int64]
    directions: Matrix
    titles_by: dict[int, int]
    refused_titles_by: dict[int, int]

    @classmethod
    def of(
        cls,
        history: Sequence[Event],
        reader: Reader,
        read: Callable[[Sequence[str]], Sequence[Reading]],
        limit: int,
    ) -> Origins:
        """Of one history; the arguments are those of `Wishes.of`."""
        labels, width = reader.items.shape
        said = sayings(history, limit)
        texts = tuple(text for text, _ in said)
        unique = list(dict.fromkeys(texts))
        reading_of = dict(zip(unique, read(unique), strict=True)) if unique else {}
        user = _TracedUser(labels, width)
        for text, later in said:
            user.hear(reading_of[text], later)
        directions = np.array(user.directions, np.float32).reshape(-1, width)
        return cls(
            texts,
            user.wanted_by,
            user.refused_by,
            directions,
            user.titles_by,
            user.refused_titles_by,
        )


def is_saying(event: Event) -> bool:
    """Whether a user wrote something that is about no item, such as a search."""
    return event.item is None and bool(event.text)


def sayings(history: Sequence[Event], limit: int) -> list[tuple[str, int]]:
    """What a user wrote that is about no item, oldest first, and how many acts came after each.

    >>> sayings([Event("search", text="westerns"), Event("click", "50")], limit=200)
    [('westerns', 1)]
    """
    acts = in_order(history, limit)
    found = [
        (event.text, len(acts) - 1 - n)
        for n, event in enumerate(acts)
        if is_saying(event) and event.text
    ]
    return found[-TEXTS:]


class _User:
    """What one user wants by what was heard so far."""

    def __init__(self, labels: int, width: int) -> None:
        self.wanted = np.zeros(labels, np.float32)
        self.refused = np.zeros(labels, np.float32)
        self.direction = np.zeros(width, np.float32)
        self.titles: dict[int, float] = {}
        self.refused_titles: dict[int, float] = {}

    def hear(self, reading: Reading, later: int) -> None:
        """Hear the next text, after which so many acts follow."""
        wish, refusal = WISH_DECAY**later, REFUSAL_DECAY**later
        wanted, refused = wish * reading.wanted, refusal * reading.refused
        self.wanted = np.maximum(self.wanted * (1 - reading.refused), wanted)
        self.refused = np.maximum(self.refused * (1 - reading.wanted), refused)
        self.direction = self.direction + wish * reading.wish
        length = float(np.linalg.norm(self.direction))
        if length > 1:
            self.direction /= length
        for kept, found, weight in (
            (self.titles, reading.titles, wish),
            (self.refused_titles, reading.refused_titles, refusal),
        ):
            for position, probability in found.items():
                if weight * probability >= _FAINT:
                    kept[position] = max(kept.get(position, 0.0), weight * probability)


class _TracedUser(_User):
    """A user of whom it is kept which text each wish comes from."""

    def __init__(self, labels: int, width: int) -> None:
        super().__init__(labels, width)
        self.wanted_by = np.full(labels, -1)
        self.refused_by = np.full(labels, -1)
        self.directions: list[Matrix] = []
        self.titles_by: dict[int, int] = {}
        self.refused_titles_by: dict[int, int] = {}

    def hear(self, reading: Reading, later: int) -> None:
        # 1. what is left of earlier texts, before this one
        text = len(self.directions)
        wanted = self.wanted * (1 - reading.refused)
        refused = self.refused * (1 - reading.wanted)
        titles, refused_titles = dict(self.titles), dict(self.refused_titles)
        added = WISH_DECAY**later * reading.wish
        length = max(1.0, float(np.linalg.norm(self.direction + added)))

        super().hear(reading, later)

        # 2. what this one changed, comes from it
        self.wanted_by[self.wanted > wanted] = text
        self.refused_by[self.refused > refused] = text
        self.directions = [each / length for each in (*self.directions, added)]
        for now, before, by in (
            (self.titles, titles, self.titles_by),
            (self.refused_titles, refused_titles, self.refused_titles_by),
        ):
            by.update({at: text for at, value in now.items() if value > before.get(at, 0.0)})


def _rows(rows: Sequence[dict[int, float]], items: int) -> csr_array:
    """[n, J] of values by position."""
    from scipy.sparse import csr_array

    ends = np.cumsum([0, *(len(row) for row in rows)])
    positions = np.array([position for row in rows for position in sorted(row)], np.int64)
    values = np.array([row[position] for row in rows for position in sorted(row)], np.float32)
    return csr_array((values, positions, ends), shape=(len(rows), items))
