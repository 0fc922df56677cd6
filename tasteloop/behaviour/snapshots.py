"""Time splits: (user, time) -> the history before it, and what followed.

A snapshot's history is every event up to its time and its truth the positive events that come
strictly after it, so events of one instant never stand on both sides. Splits are by global time: a
training snapshot's horizon ends before the validation window begins, a validation one's before the
test window; what straddles a cut is dropped.
"""

from __future__ import annotations

import logging
import shutil
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import BaseModel, Field, model_validator

from tasteloop.behaviour.events import ITEM, KIND, TEXT, TIME, USER, VALUE, Event
from tasteloop.behaviour.items import SENTIMENT, Catalogue
from tasteloop.behaviour.kinds import words_that_are_no_acts
from tasteloop.behaviour.partitions import DataSettings, count, scan, split, write_rows
from tasteloop.behaviour.text import Retold, TextSettings
from tasteloop.errors import TasteloopError
from tasteloop.files import atomic_directory, read_json, read_parquet, write_json, write_parquet
from tasteloop.tasks import tasks_of_data

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

_PART = "_part"

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
    minimum_future: int = Field(3, ge=1, description="With fewer, no snapshot is taken.")
    label_share: float = Field(
        0.25, gt=0, le=1, description="An interest: this share of the horizon's items bear it."
    )
    reviews_test_share: float = Field(0.2, gt=0, lt=1)
    reviews_validation_share: float = Field(0.08, gt=0, lt=1)

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
class PrepareResult:
    """How many snapshots and reviews each split got."""

    snapshots: dict[str, int]
    reviews: dict[str, int]
    labels: list[str]


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
    def text(self) -> TextSettings:
        return TextSettings.model_validate(self.meta["settings"]["text"])

    def split(self, name: str) -> pl.DataFrame:
        """The rows of one split."""
        return self.table.filter(self.table[SPLIT] == name)

    def truth(self, rows: pl.DataFrame) -> NDArray[np.float32]:
        """Interest labels [n, K] of rows: 1 where enough of the future's items bear the label."""
        return _present(rows, self.catalogue, self.labels, self.meta["settings"]["label_share"])

    @cached_property
    def events(self) -> pl.DataFrame:
        """The events table: users and times ascending."""
        return read_parquet(self.directory / EVENTS)

    @cached_property
    def _event_rows(self) -> list[Event]:
        return _events(self.events)

    def histories(self, rows: pl.DataFrame) -> list[list[Event]]:
        """The events behind each row, oldest first; history holds row numbers of the events
        table.
        """
        return [[self._event_rows[i] for i in history] for history in rows[HISTORY].to_list()]

    def reviews(self) -> pl.DataFrame | None:
        """text, sentiment, split; None where the data set has no reviews."""
        path = self.directory / REVIEWS
        return read_parquet(path) if path.exists() else None


def prepare(
    dataset: Path, settings: PrepareSettings, out: Path, data: DataSettings | None = None
) -> PrepareResult:
    """Take snapshots of a data set, split them by time, and tell each as text.

    Args:
        dataset: what ingest wrote.
        settings: positions, horizon, shares.
        out: directory: snapshots.parquet, reviews.parquet (where there are any), events.parquet,
            items.parquet, snapshots.json.
        data: the engine; each writes the same bytes.

    Raises:
        TasteloopError: a split would be empty.
    """
    data = data or DataSettings()
    is_act = ~pl.col(KIND).is_in(words_that_are_no_acts())
    rows = scan(dataset / EVENTS).filter(is_act)
    catalogue, source = Catalogue.read(dataset / ITEMS), read_json(dataset / "ingest.json")
    cuts = _cuts(rows.select(TIME).collect(engine="streaming").to_series(), settings)
    with atomic_directory(out) as directory:
        tally = _Tally(catalogue, settings.label_share)
        with data.work(directory) as work:
            if data.engine == "spark":
                from tasteloop.behaviour import spark

                events, taken = spark.take(rows, count(rows), catalogue, settings, cuts, data, work)
            else:
                events = _by_user(rows, data, work)
                taken = _take_in_parts(directory / EVENTS, catalogue, settings, cuts, data)
            write_rows(directory / EVENTS, events, rows.collect_schema())
            write_rows(directory / SNAPSHOTS, map(tally.counted, taken), TABLE)
        if missing := [split for split in SPLITS if not tally.splits[split]]:
            raise TasteloopError(
                f"no snapshots for {', '.join(missing)}: {count(rows.select(USER).unique())} users with {count(rows)} "
                f"events give {dict(tally.splits)}; bring more users or a longer time, or lower prepare.minimum_future "
                f"(now {settings.minimum_future}) or prepare.horizon (now {settings.horizon})"
            )
        labels = tally.learnable()
        reviews = _split_reviews(dataset / REVIEWS, settings)
        review_counts: dict[str, int] = dict(Counter(reviews[SPLIT])) if reviews is not None else {}
        shutil.copyfile(dataset / ITEMS, directory / ITEMS)
        if reviews is not None:
            write_parquet(directory / REVIEWS, reviews)
        write_json(
            directory / META,
            {
                "labels": labels,
                "validation_from": cuts[0],
                "test_from": cuts[1],
                "snapshots": dict(tally.splits),
                "reviews": review_counts,
                "data": source.get("sha256"),
                "source": source.get("source"),
                "reviews_source": source.get("reviews_source"),
                "settings": settings.model_dump(mode="json"),
            },
        )
        users = count(pl.scan_parquet(directory / SNAPSHOTS).select(USER).unique())
    log.info("snapshots %s of %d users; reviews %s", dict(tally.splits), users, review_counts)
    log.info("tasks: %s", ", ".join(tasks_of_data(labels, reviews is not None)))
    return PrepareResult(dict(tally.splits), review_counts, labels)


def _cuts(times: pl.Series, settings: PrepareSettings) -> tuple[int, int]:
    """Where the validation and the test window begin, µs: quantiles of the events' times."""
    first = times.quantile(settings.train_share, "lower")
    second = times.quantile(settings.train_share + settings.validation_share, "lower")
    assert first is not None and second is not None, "a validated data set has events"
    return int(first), int(second)


def _events(table: pl.DataFrame) -> list[Event]:
    return [Event(*row) for row in table.select(KIND, ITEM, TIME, VALUE, TEXT).iter_rows()]


def _by_user(rows: pl.LazyFrame, data: DataSettings, work: Path) -> Iterator[pl.DataFrame]:
    """The events by user and time; a part of the users in memory at a time."""
    row, height = "row", count(rows)
    parts = [rows.with_row_index(row)]
    if height > data.rows_a_part:
        joined = parts[0].join(_users(rows, data).select(USER, _PART).lazy(), on=USER, how="left")
        parts = split(joined, pl.col(_PART), -(-height // data.rows_a_part), work / "users")
    for one in parts:
        yield one.select(row, *rows.collect_schema()).collect().sort(USER, TIME, row).drop(row)


def _users(events: pl.LazyFrame, data: DataSettings) -> pl.DataFrame:
    """USER in order, how many events each has ("len"), and the part that they belong to."""
    users = events.group_by(USER).len().collect(engine="streaming").sort(USER)
    before = pl.col("len").cum_sum() - pl.col("len")
    return users.with_columns((before // data.rows_a_part).alias(_PART))


def _take_in_parts(
    path: Path,
    catalogue: Catalogue,
    settings: PrepareSettings,
    cuts: tuple[int, int],
    data: DataSettings,
) -> Iterator[pl.DataFrame]:
    """The snapshots of the events by user and time at `path`; a part of the users in memory at a
    time.
    """
    events = pl.scan_parquet(path, hive_partitioning=False, glob=False)
    first = 0
    for height in (
        _users(events, data).group_by(_PART, maintain_order=True).agg(pl.col("len").sum())["len"]
    ):
        yield take(events.slice(first, height).collect(), first, catalogue, settings, cuts)
        first += height


def take(
    table: pl.DataFrame,
    first: int,
    catalogue: Catalogue,
    settings: PrepareSettings,
    cuts: tuple[int, int],
) -> pl.DataFrame:
    """One row a snapshot, users and times ascending, in the schema `TABLE`.

    Args:
        table: all events of some users, users and times ascending.
        first: how many events all users before them have; history: rows of the whole table, newest
            `history_limit`.
    """
    import pyarrow as pa

    events, times, users = _events(table), table[TIME].to_list(), table[USER].to_list()
    told = Retold(events, catalogue, settings.text)
    wanted = [e.item in catalogue.index and e.positive(settings.text.positive) for e in events]
    starts = [i for i in range(len(users)) if i == 0 or users[i] != users[i - 1]] + [len(users)]
    seen: list[tuple[int, int]] = []  # begin and end of each history
    futures: list[int] = []  # items, one snapshot's after the other's
    ends = [0]
    taken: dict[str, list[Any]] = {name: [] for name in (USER, TIME, SPLIT, TEXT, EVENTS_SEEN)}
    for begin, end in pairwise(starts):
        liked = [i for i in range(begin, end) if wanted[i]]
        for cut in _positions(times[begin:end], settings):
            after = bisect_left(liked, begin + cut)
            future = liked[after : after + settings.horizon]
            if len(future) < settings.minimum_future:
                break
            now, last = times[begin + cut - 1], times[future[-1]]
            side = _split(now, last, cuts)
            if side is None:
                continue
            seen.append((max(begin, begin + cut - settings.text.history_limit), begin + cut))
            futures += [catalogue.index[events[i].item or ""] for i in future]
            ends.append(len(futures))
            for name, value in zip(
                taken, (users[begin], now, side, told.text(*seen[-1]), cut), strict=True
            ):
                taken[name].append(value)
    frame = pl.DataFrame(taken, schema={name: TABLE[name] for name in taken})
    bounds = pl.DataFrame(seen, schema={"from": pl.Int64, "to": pl.Int64}, orient="row") + first
    history = bounds.select(pl.int_ranges("from", "to", dtype=pl.Int32).alias(HISTORY))
    lists = pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), pa.array(futures, pa.int32()))
    return frame.with_columns(history[HISTORY], pl.Series(FUTURE, lists)).select(TABLE.names())


def _positions(times: list[int], settings: PrepareSettings) -> list[int]:
    """History lengths to look at, moved forward to where the next event is strictly later."""
    wanted = [
        *settings.positions,
        *range(max(settings.positions, default=0) + settings.stride, len(times), settings.stride),
    ]
    out: list[int] = []
    for cut in sorted(set(wanted)):
        while 0 < cut < len(times) and times[cut] == times[cut - 1]:
            cut += 1
        if 0 < cut < len(times) and cut not in out:
            out.append(cut)
    return out


def _split(now: int, last: int, cuts: tuple[int, int]) -> str | None:
    validation_from, test_from = cuts
    if last < validation_from:
        return TRAIN
    if validation_from <= now and last < test_from:
        return VALIDATION
    return TEST if now >= test_from else None


def _present(
    rows: pl.DataFrame, catalogue: Catalogue, labels: list[str], share: float
) -> NDArray[np.float32]:
    """[rows, labels]: 1 where at least this share of a row's future items bear the label."""
    import numpy as np

    lengths = rows[FUTURE].list.len().cast(pl.Int64).to_numpy()
    if not len(lengths):
        return np.zeros((0, len(labels)), np.float32)
    bears = catalogue.membership(labels)[rows[FUTURE].explode(empty_as_null=False).to_numpy()]
    counts = np.add.reduceat(bears, np.cumsum(lengths) - lengths, axis=0)
    return (counts / lengths[:, None].astype(np.float32) >= share - 1e-9).astype(np.float32)


class _Tally:
    """Counts of snapshots and, of the training ones, of the labels that are present, as they go
    by.
    """

    def __init__(self, catalogue: Catalogue, share: float) -> None:
        self.splits: Counter[str] = Counter()
        self._catalogue, self._share = catalogue, share
        self._labels = [0.0] * len(catalogue.label_names)

    def counted(self, table: pl.DataFrame) -> pl.DataFrame:
        self.splits.update(table[SPLIT])
        training = table.filter(table[SPLIT] == TRAIN)
        for rows in training.iter_slices(1 << 16):
            present = _present(rows, self._catalogue, self._catalogue.label_names, self._share)
            self._labels = [n + float(m) for n, m in zip(self._labels, present.sum(0), strict=True)]
        return table

    def learnable(self) -> list[str]:
        """Labels that some training snapshots have and others lack: only those can be learned.

        None where the catalogue has none. Where it has some and none can be learned, that is an
        error: whoever labels items wants interests.
        """
        names, rows = self._catalogue.label_names, self.splits[TRAIN]
        labels = [name for name, n in zip(names, self._labels, strict=True) if 0 < n < rows]
        if dropped := [name for name in names if name not in labels]:
            log.info(
                "labels never or always seen in training snapshots, left out: %s",
                ", ".join(dropped),
            )
        if names and not labels:
            raise TasteloopError(
                f"no interest label can be learned: of {len(names)} labels none is present in some training snapshots "
                "and absent in others; give items more than one label, or no item any: then interests are no task"
            )
        return labels


def _split_reviews(path: Path, settings: PrepareSettings) -> pl.DataFrame | None:
    """Split by a hash of the text, so that a text repeated is on one side and a new review moves no
    old one.
    """
    if not path.exists():
        return None
    reviews = read_parquet(path)
    test, validation = settings.reviews_test_share, settings.reviews_validation_share

    def side(text: str) -> str:
        u = (
            int.from_bytes(
                blake2b(" ".join(text.lower().split()).encode(), digest_size=8).digest(), "big"
            )
            / 2**64
        )
        return TEST if u < test else VALIDATION if u < test + validation else TRAIN

    splits = [side(text) for text in reviews[TEXT].to_list()]
    return reviews.select(TEXT, SENTIMENT).with_columns(pl.Series(SPLIT, splits, dtype=pl.String))
