"""A task: all that a method may see, in one form.

What may be fitted before each window is a `Past`, and the rows it is then asked about are `Rows`.
Nothing in a `Past` is later than its cut, or on the hidden side of its split; a row's history is
what its user had done when the question was put, and what may not be recommended is in `hidden`.
Tables of users and items are sparse where dense ones would be large, and what is [rows, items] is
asked for a block of rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tasteloop.behaviour.events import Event
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.snapshots import PrepareSettings
from tasteloop.behaviour.text import TextSettings
from tasteloop.recommender.collaborative import Table, mark
from tasteloop.recommender.folding import OPINION_DECAY, row_blocks

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from benchmarks.quality.protocols import Protocol

Matrix = NDArray[np.float32]
Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]
Feedback = Literal["liked", "all", "unrejected", "judged"]

BLOCK_CELLS = 2**25  # of scores that are held at once: 128 MB in single precision


@dataclass(frozen=True, eq=False)
class Interactions:
    """Events as columns, each [n].

    Attributes:
        user: number by first appearance in the data set, so that it does not depend on pseudonyms.
        item: position in the catalogue, -1 where the event has none.
        time: µs since 1970 UTC.
        value: in [0, 1], NaN where there is none.
        liked: what `tasteloop.behaviour.events.positive` says.
    """

    user: Numbers
    item: Numbers
    time: Numbers
    value: Matrix
    kind: NDArray[np.str_]
    liked: Mask

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: Any) -> Interactions:
        """The events of these row numbers, or where a mask is true."""
        return Interactions(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    @cached_property
    def opinion(self) -> Matrix:
        """[n] what each event says of its item, from -1 to 1: `Event.opinion`."""
        text = TextSettings()
        opinions = [
            Event(kind, "", None, None if np.isnan(value) else value).opinion(
                text.positive, text.negative
            )
            for kind, value in zip(self.kind.tolist(), self.value.tolist(), strict=True)
        ]
        return np.array(opinions, np.float32)

    def of(self, feedback: Feedback) -> Mask:
        """[n]: has an item and is of this feedback: liked, all, what does not reject the item, or
        what has an opinion of it.
        """
        which: Mask = self.item >= 0
        if feedback == "liked":
            return which & self.liked
        if feedback == "unrejected":
            return which & (self.opinion >= 0)
        return which & (self.opinion != 0) if feedback == "judged" else which


@dataclass(frozen=True, eq=False)
class Past:
    """What may be fitted. Compared by identity, so that what was computed of it can be kept.

    Attributes:
        events: by time.
        cut: the moment, in µs, before which all of it happened.
        users: the data set's numbers of the U users in it, ascending; user u of the matrix is
            `users[u]`.
    """

    events: Interactions
    catalogue: Catalogue
    cut: int
    users: Numbers

    @classmethod
    def of(cls, events: Interactions, catalogue: Catalogue, cut: int) -> Past:
        return cls(
            events.take(np.argsort(events.time, kind="stable")),
            catalogue,
            cut,
            np.unique(events.user),
        )

    @cached_property
    def user(self) -> Numbers:
        """[n]: row of the matrix of each event."""
        return np.searchsorted(self.users, self.events.user)

    @lru_cache(maxsize=2)  # noqa: B019  (a task has two of these, and lives as long as the process)
    def matrix(self, feedback: Feedback = "liked") -> Table:
        """[U, J] of 0 and 1; sparse where it has more cells than `collaborative.DENSE_CELLS`."""
        which = self.events.of(feedback)
        shape = (max(1, len(self.users)), len(self.catalogue))
        return mark(self.user[which], self.events.item[which], shape)

    def count(self, feedback: Feedback = "liked", days: float = np.inf) -> Matrix:
        """[J]: events of the last days before the cut."""
        which = self.events.of(feedback) & (self.cut - self.events.time <= days * 86_400e6)
        return np.bincount(self.events.item[which], minlength=len(self.catalogue)).astype(
            np.float32
        )


@dataclass(frozen=True, eq=False)
class Rows:
    """What is asked: to rank the items of the catalogue for each of n histories.

    Attributes:
        events: the table that histories are row numbers of.
        histories: n arrays, oldest event first.
        relevant: n arrays of item positions.
        consumed: n arrays of the items that are not recommended again.
        ranked: [J] the items that the protocol ranks.
        user: [n] row of the past's matrix where that holds exactly this history, -1 where the past
            does not know it.
        group: [n] the data set's number of the user; a bootstrap draws a user's rows together.
        time: [n] µs, when the question is put.
        seen: [n] events that the user had had by then.
    """

    events: Interactions
    histories: list[Numbers]
    relevant: list[Numbers]
    consumed: list[Numbers]
    ranked: Mask
    user: Numbers
    group: Numbers
    time: Numbers
    seen: Numbers

    def __len__(self) -> int:
        return len(self.histories)

    @property
    def shape(self) -> tuple[int, int]:
        """n and J."""
        return len(self.histories), len(self.ranked)

    @property
    def hidden(self) -> Mask:
        """[n, J] what may not be recommended: what was consumed, and what is not ranked."""
        hidden = np.tile(~self.ranked, (len(self), 1))
        for row, items in enumerate(self.consumed):
            hidden[row, items] = True
        return hidden

    def take(self, which: Any) -> Rows:
        """The rows of these numbers, or where a mask is true."""
        numbers = np.arange(len(self))[which]
        columns = {name: getattr(self, name)[numbers] for name in ("user", "group", "time", "seen")}
        lists = {
            name: [getattr(self, name)[n] for n in numbers]
            for name in ("histories", "relevant", "consumed")
        }
        return replace(self, **lists, **columns)

    def blocks(self, width: int = 0) -> Iterator[slice]:
        """The rows, in order, so many at once that [rows, J] and [rows, width] fit into a block."""
        return row_blocks((len(self), max(width, len(self.ranked))), BLOCK_CELLS)

    def sparse(self, feedback: Feedback = "liked", decay: float = 1.0) -> csr_array:
        """[n, J]: each item of the history with `decay` to the power of how many events came after
        its newest.
        """
        return self._newest(feedback, decay, np.ones(len(self.events), np.float32))

    def opinions(self) -> Matrix:
        """[n, J]: what the newest event with an opinion says of an item, as `FoldedHistories` has
        it.
        """
        newest = self._newest("judged", OPINION_DECAY, self.events.opinion)
        return np.asarray(newest.toarray(), np.float32)

    def _newest(self, feedback: Feedback, decay: float, of_event: Matrix) -> csr_array:
        """[n, J]: `of_event` at an item's newest event, decayed by how many events came after."""
        from scipy.sparse import csr_array

        length = np.array([len(h) for h in self.histories], np.int64)
        flat = np.concatenate([*self.histories, np.zeros(0, np.int64)])
        row = np.repeat(np.arange(len(self)), length)
        after = np.repeat(np.cumsum(length), length) - 1 - np.arange(len(flat))

        which = np.flatnonzero(self.events.of(feedback)[flat])[::-1]  # the newest first
        cell = row[which] * len(self.ranked) + self.events.item[flat[which]]
        _, newest = np.unique(cell, return_index=True)
        which = which[newest]
        value = (decay ** after[which] * of_event[flat[which]]).astype(np.float32)
        return csr_array((value, (row[which], self.events.item[flat[which]])), shape=self.shape)

    def matrix(self, feedback: Feedback = "liked", decay: float = 1.0) -> Matrix:
        """`sparse` with all its cells."""
        return np.asarray(self.sparse(feedback, decay).toarray(), np.float32)

    def event_lists(self, catalogue: Catalogue) -> list[list[Event]]:
        """The histories as the library's own events."""
        e = self.events

        def event(i: int) -> Event:
            item = catalogue.items[e.item[i]] if e.item[i] >= 0 else None
            value = None if np.isnan(e.value[i]) else float(e.value[i])
            return Event(str(e.kind[i]), item, int(e.time[i]), value)

        return [[event(i) for i in history] for history in self.histories]


@dataclass(frozen=True, eq=False)
class Task:
    """A method is tuned by `validation` after fitting `tune`, then fitted on `fit` and asked about
    `test`.

    Attributes:
        drawn_from: how many validation and test rows there were before some were drawn.
        earlier: windows before the validation window, each with what may be fitted before it, for a
            method that chooses on several.
    """

    protocol: Protocol
    catalogue: Catalogue
    tune: Past
    validation: Rows
    fit: Past
    test: Rows
    prepared: PrepareSettings | None = None
    drawn_from: tuple[int, int] | None = None
    earlier: tuple[tuple[Past, Rows], ...] = ()

    @cached_property
    def slices(self) -> dict[str, Mask]:
        """Named parts of the test rows [n]; the empty ones are left out."""
        seen = self.test.seen
        bounds = {
            "1 event": (1, 1),
            "2-5 events": (2, 5),
            "6-20 events": (6, 20),
            "over 20 events": (21, np.inf),
        }
        masks = {name: (seen >= low) & (seen <= high) for name, (low, high) in bounds.items()}
        return {name: mask for name, mask in masks.items() if mask.any()}

    @cached_property
    def is_all_liked(self) -> bool:
        """Whether liked events are all events, so that one kind of feedback is both."""
        return all(
            np.array_equal(events.of("liked"), events.of("all"))
            for events in (self.tune.events, self.validation.events)
        )

    def thinned(self, every: int) -> Task:
        """The rows of one user in `every`."""

        def thin(rows: Rows) -> Rows:
            return rows.take(rows.group % every == 0)

        return replace(
            self,
            validation=thin(self.validation),
            test=thin(self.test),
            earlier=tuple((past, thin(rows)) for past, rows in self.earlier),
        )

    def drawn(self, validation: int, test: int) -> Task:
        """With so many rows of each window at most, drawn at random; the same for every method. Of
        an earlier window as many as of the validation window.
        """
        return replace(
            self,
            validation=_draw(self.validation, validation),
            test=_draw(self.test, test),
            drawn_from=(len(self.validation), len(self.test)),
            earlier=tuple((past, _draw(rows, validation)) for past, rows in self.earlier),
        )


def _draw(rows: Rows, most: int) -> Rows:
    if len(rows) <= most:
        return rows
    return rows.take(np.sort(np.random.default_rng(0).choice(len(rows), most, replace=False)))
