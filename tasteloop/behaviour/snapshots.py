"""Time splits: (user, time) -> the history before it, and what followed.

A snapshot's history is every event up to its time and its truth the positive events that come
strictly after it, so events of one instant never stand on both sides. Splits are by global time: a
training snapshot's horizon ends before the validation window begins, a validation one's before the
test window; what straddles a cut is dropped.

Of data without times, `tasteloop.behaviour.prepare` makes the times up, so that the cuts are times
here too. Where the order of the acts is known each user's last positive act is tested, the one
before it validates, and what came before both trains (leave last out). Where it is not, users are
drawn into the windows at random. `split_by` of snapshots.json says which it was.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import polars as pl
from pydantic import BaseModel, Field, model_validator

from tasteloop.answers import tasks_of_data
from tasteloop.behaviour.events import ITEM, KIND, TEXT, TIME, USER, VALUE, Event
from tasteloop.behaviour.interests import InterestSettings
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.text import TextSettings, TextsOfEvents
from tasteloop.files import read_json, read_parquet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)
SPLIT, HISTORY, FUTURE, EVENTS_SEEN = "split", "history", "future", "events_seen"
SNAPSHOTS, REVIEWS, ITEMS, EVENTS, META = (
    "snapshots.parquet",
    "reviews.parquet",
    "items.parquet",
    "events.parquet",
    "snapshots.json",
)

_EARLIER_WINDOWS = 2  # before the validation window, on which λ are fitted too
_BLOCK = 1024  # rows whose events, or whose future items, are looked at at once

TABLE = pl.Schema(
    {
        USER: pl.String(),
        TIME: pl.Int64(),
        SPLIT: pl.String(),
        TEXT: pl.String(),
        EVENTS_SEEN: pl.Int32(),
        HISTORY: pl.List(pl.Int32()),
        FUTURE: pl.List(pl.Int32()),
    }
)


class PrepareSettings(BaseModel, frozen=True, extra="forbid"):
    """How snapshots are taken and split."""

    text: TextSettings = TextSettings()
    train_share: float = Field(
        0.7, gt=0, lt=1, description="Share of events before the validation window."
    )
    validation_share: float = Field(
        0.1, gt=0, lt=1, description="Share of events inside it; the rest tests."
    )
    positions: tuple[int, ...] = Field(
        (1, 2, 3, 5, 8), description="History lengths at which a young user is looked at."
    )
    stride: int = Field(10, ge=1, description="After those, one snapshot every so many events.")
    horizon: int = Field(10, ge=1, description="The next so many positive events are the truth.")
    minimum_future: int = Field(
        3,
        ge=1,
        description="With fewer, no snapshot is taken; where the last act is left out, none to train on.",
    )
    label_share: float = Field(
        0.25, gt=0, le=1, description="An interest: this share of the horizon's items bear it."
    )
    reviews_test_share: float = Field(0.2, gt=0, lt=1)
    reviews_validation_share: float = Field(0.08, gt=0, lt=1)
    seed: int = Field(
        0, ge=0, description="Of the random split of data without times; else unused."
    )
    interests: InterestSettings = InterestSettings()

    @model_validator(mode="after")
    def _leave_a_test(self) -> PrepareSettings:
        if self.train_share + self.validation_share >= 1:
            raise ValueError(
                "train_share + validation_share must leave a share for the test window"
            )
        if self.reviews_test_share + self.reviews_validation_share >= 1:
            raise ValueError("the shares of reviews must leave some to train on")
        return self


@dataclass(frozen=True)
class Windows:
    """The windows of time that snapshots are split by.

    Attributes:
        validation_from, test_from: where the second and the third begin, µs.
        leave_last_out: whether a user has one act to validate and one to test, the first of their
            acts in these windows, and all that came before an act is its history.
    """

    validation_from: int
    test_from: int
    leave_last_out: bool = False


@dataclass(frozen=True)
class Snapshots:
    """What `prepare` wrote, read back.

    Attributes:
        table: one row a snapshot: user, time, split, text, events_seen, history, future.
        labels: the K interest labels; none where no item of the catalogue carries one.
        catalogue: the items.
        meta: snapshots.json.
    """

    table: pl.DataFrame
    labels: list[str]
    catalogue: Catalogue
    meta: dict[str, Any]
    directory: Path

    @classmethod
    def read(cls, directory: Path) -> Snapshots:
        meta = read_json(directory / META)
        return cls(
            read_parquet(directory / SNAPSHOTS),
            meta["labels"],
            Catalogue.read(directory / ITEMS),
            meta,
            directory,
        )

    @property
    def tasks(self) -> tuple[str, ...]:
        """What can be learned from this data."""
        return tasks_of_data(self.labels, (self.directory / REVIEWS).exists())

    @property
    def origin_of_interests(self) -> str:
        """Whose the labels are: labels (the catalogue's), discovered, completed or none."""
        return str(self.meta.get("interests", {}).get("origin", "labels"))

    @property
    def text(self) -> TextSettings:
        return TextSettings.model_validate(self.meta["settings"]["text"])

    def split(self, name: str) -> pl.DataFrame:
        """The rows of one split."""
        return self.table.filter(self.table[SPLIT] == name)

    def earlier_windows(self) -> list[tuple[int, pl.DataFrame]]:
        """Windows of the training window, each as wide as the validation window and just before the
        one after it, the latest first: where each begins, in µs, and its snapshots.

        Only of data that are split by time, and only where half of what may be trained on is before
        them; one without snapshots is left out.
        """
        import polars as pl

        if self.meta.get("split_by", "time") != "time":
            return []
        settings = PrepareSettings.model_validate(self.meta["settings"])
        train, until = self.split(TRAIN), self.meta["validation_from"]
        windows: list[tuple[int, pl.DataFrame]] = []
        for number in range(1, _EARLIER_WINDOWS + 1):
            share = settings.train_share - number * settings.validation_share
            if share < settings.train_share / 2:
                break
            begins = self.events[TIME].quantile(share, "lower")
            assert begins is not None, "snapshots are of events"
            begins = int(begins)
            rows = train.filter((pl.col(TIME) >= begins) & (pl.col(TIME) < until))
            if len(rows):
                windows.append((begins, rows))
            until = begins
        return windows

    def truth(self, rows: pl.DataFrame) -> NDArray[np.float32]:
        """Interest labels [n, K] of rows: 1 where enough of the future's items bear the label."""
        return present_labels(
            rows, self.catalogue, self.labels, self.meta["settings"]["label_share"]
        )

    @cached_property
    def events(self) -> pl.DataFrame:
        """The events table: users and times ascending."""
        return read_parquet(self.directory / EVENTS)

    def with_events(self, events: pl.DataFrame) -> Snapshots:
        """The same snapshots of events that are known better: as many, in the same order."""
        known = replace(self)
        known.__dict__["events"] = events  # where the cached property keeps it
        return known

    def histories(self, rows: pl.DataFrame) -> StoredHistories:
        """The events behind each row, oldest first."""
        return StoredHistories(self.events, rows[HISTORY])

    def reviews(self) -> pl.DataFrame | None:
        """text, sentiment, split, source; None where the data set has no reviews."""
        path = self.directory / REVIEWS
        return read_parquet(path) if path.exists() else None


class StoredHistories(Sequence[list[Event]]):
    """Histories as row numbers of the events table: their events are made when they are asked for,
    a block of histories at a time, and let go with them.
    """

    def __init__(self, events: pl.DataFrame, numbers: pl.Series) -> None:
        self._events, self._numbers = events, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[list[Event]]:
        for start in range(0, len(self), _BLOCK):
            yield from self[start : start + _BLOCK]

    @overload
    def __getitem__(self, at: int) -> list[Event]: ...

    @overload
    def __getitem__(self, at: slice) -> list[list[Event]]: ...

    def __getitem__(self, at: int | slice) -> list[Event] | list[list[Event]]:
        import numpy as np

        if not isinstance(at, slice):
            number = range(len(self))[at]
            return self[number : number + 1][0]
        numbers = self._numbers[at]

        # an event that several histories hold is made once
        held, place = np.unique(
            numbers.explode(empty_as_null=False).to_numpy(), return_inverse=True
        )
        events = _events(self._events[held])
        lengths = numbers.list.len().cast(pl.Int64).to_numpy()
        ends = np.cumsum(lengths)
        return [
            [events[i] for i in place[start:end].tolist()]
            for start, end in zip(ends - lengths, ends, strict=True)
        ]


def _events(table: pl.DataFrame) -> list[Event]:
    """The rows as events; those of one kind or item share its string."""
    strings: dict[str, str] = {}
    events = []
    for kind, item, time, value, text in table.select(KIND, ITEM, TIME, VALUE, TEXT).iter_rows():
        shared_item = None if item is None else strings.setdefault(item, item)
        events.append(Event(strings.setdefault(kind, kind), shared_item, time, value, text))
    return events


def take(
    table: pl.DataFrame,
    first: int,
    catalogue: Catalogue,
    settings: PrepareSettings,
    windows: Windows,
) -> pl.DataFrame:
    """One row a snapshot, users and times ascending, in the schema `TABLE`.

    Args:
        table: all events of some users, users and times ascending.
        first: how many events all users before them have; history: rows of the whole table, newest
            `history_limit`.
    """
    import pyarrow as pa

    # 1. what is positive, and where each user's events begin
    events, times, users = _events(table), table[TIME].to_list(), table[USER].to_list()
    texts = TextsOfEvents(events, catalogue, settings.text)
    is_liked = [e.item in catalogue.index and e.positive(settings.text.positive) for e in events]
    starts = [i for i in range(len(users)) if i == 0 or users[i] != users[i - 1]] + [len(users)]

    # 2. snapshots, user by user
    split_user = _leave_last_out if windows.leave_last_out else _split_by_time
    columns: dict[str, list[Any]] = {name: [] for name in (USER, TIME, SPLIT, TEXT, EVENTS_SEEN)}
    histories: list[tuple[int, int]] = []  # begin and end of each
    futures: list[int] = []  # items, one snapshot's after the other's
    ends = [0]  # of each snapshot's items among them
    for begin, end in pairwise(starts):
        liked = [i - begin for i in range(begin, end) if is_liked[i]]
        for length, future, split in split_user(times[begin:end], liked, settings, windows):
            cut = begin + length
            history = max(begin, cut - settings.text.history_limit), cut
            histories.append(history)
            futures += [catalogue.index[events[begin + i].item or ""] for i in future]
            ends.append(len(futures))
            columns[USER].append(users[begin])
            columns[TIME].append(times[cut - 1])
            columns[SPLIT].append(split)
            columns[TEXT].append(texts.text(*history))
            columns[EVENTS_SEEN].append(length)

    # 3. the table; lists of row numbers and of items are built without Python objects
    frame = pl.DataFrame(columns, schema={name: TABLE[name] for name in columns})
    bounds = (
        pl.DataFrame(histories, schema={"from": pl.Int64, "to": pl.Int64}, orient="row") + first
    )
    rows = bounds.select(pl.int_ranges("from", "to", dtype=pl.Int32).alias(HISTORY))
    lists = pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), pa.array(futures, pa.int32()))
    return frame.with_columns(rows[HISTORY], pl.Series(FUTURE, lists)).select(TABLE.names())


# The snapshots of one user: how many events each looks back on, the numbers of the events that are
# its future, and its split.
_UserSnapshots = Iterator[tuple[int, list[int], str]]


def _split_by_time(
    times: list[int], liked: list[int], settings: PrepareSettings, windows: Windows
) -> _UserSnapshots:
    """The snapshots of a user whose acts are at `times`, the `liked` ones of them positive."""
    for length in history_lengths(times, settings):
        after = bisect_left(liked, length)
        future = liked[after : after + settings.horizon]
        if len(future) < settings.minimum_future:
            break
        split = _split(times[length - 1], times[future[-1]], windows)
        if split is not None:
            yield length, future, split


def _leave_last_out(
    times: list[int], liked: list[int], settings: PrepareSettings, windows: Windows
) -> _UserSnapshots:
    """As `_split_by_time`, where the last positive act is alone in the test window, and the one
    before it in the validation window.
    """
    validated = bisect_left(times, windows.validation_from)
    tested = bisect_left(times, windows.test_from)
    training = liked[: bisect_left(liked, validated)]
    for length in history_lengths(times[:validated], settings):
        after = bisect_left(training, length)
        future = training[after : after + settings.horizon]
        if len(future) < settings.minimum_future:
            break
        yield length, future, TRAIN
    if validated < tested:
        yield validated, [validated], VALIDATION
    if tested < len(times):
        yield tested, [tested], TEST


def history_lengths(times: list[int], settings: PrepareSettings) -> list[int]:
    """History lengths to look at, moved forward to where the next event is strictly later."""
    first_stride = max(settings.positions, default=0) + settings.stride
    positions = {*settings.positions, *range(first_stride, len(times), settings.stride)}
    lengths: list[int] = []
    for length in sorted(positions):
        while 0 < length < len(times) and times[length] == times[length - 1]:
            length += 1
        if 0 < length < len(times) and length not in lengths:
            lengths.append(length)
    return lengths


def _split(now: int, last: int, windows: Windows) -> str | None:
    """The split of a snapshot at `now` with a truth until `last`; None where it straddles a cut."""
    if last < windows.validation_from:
        return TRAIN
    if windows.validation_from <= now and last < windows.test_from:
        return VALIDATION
    return TEST if now >= windows.test_from else None


def present_labels(
    rows: pl.DataFrame, catalogue: Catalogue, labels: list[str], share: float
) -> NDArray[np.float32]:
    """[rows, labels]: 1 where at least this share of a row's future items bear the label."""
    import numpy as np

    membership = catalogue.membership(labels)
    present = np.zeros((len(rows), len(labels)), np.float32)
    for start in range(0, len(rows), _BLOCK):
        futures = rows[FUTURE][start : start + _BLOCK]
        lengths = futures.list.len().cast(pl.Int64).to_numpy()
        bears = membership[futures.explode(empty_as_null=False).to_numpy()]
        counts = np.add.reduceat(bears, np.cumsum(lengths) - lengths, axis=0)
        is_present = counts / lengths[:, None].astype(np.float32) >= share - 1e-9
        present[start : start + _BLOCK] = is_present
    return present


def draw_rows(count: int, most: int) -> NDArray[np.int64]:
    """The numbers of so many rows at most, ascending: all, or as many drawn at random, the same
    each time.
    """
    import numpy as np

    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, most, replace=False))
