"""Time splits: (user, time) -> the history before it, and what followed.

A snapshot's history is every event up to its time and its truth the positive events that come strictly after it, so
events of one instant never stand on both sides. Splits are by global time: a training snapshot's horizon ends before
the validation window begins, a validation one's before the test window; what straddles a cut is dropped.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, model_validator

from tasteloop.errors import TasteloopError
from tasteloop.events import ITEM, KIND, TEXT, TIME, USER, VALUE, Event
from tasteloop.files import atomic_directory, read_json, read_parquet, write_json, write_parquet
from tasteloop.items import SENTIMENT, Catalogue
from tasteloop.text import TextSettings, behaviour_text

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)
SPLIT, HISTORY, FUTURE, EVENTS_SEEN = "split", "history", "future", "events_seen"
SNAPSHOTS, REVIEWS, ITEMS, EVENTS, META = (
    "snapshots.parquet", "reviews.parquet", "items.parquet", "events.parquet", "snapshots.json",
)  # fmt: skip


class PrepareSettings(BaseModel, frozen=True, extra="forbid"):
    """How snapshots are taken and split."""

    text: TextSettings = TextSettings()
    train_share: float = Field(0.7, gt=0, lt=1, description="Share of events before the validation window.")
    validation_share: float = Field(0.1, gt=0, lt=1, description="Share of events inside it; the rest tests.")
    positions: tuple[int, ...] = Field(
        (1, 2, 3, 5, 8), description="History lengths at which a young user is looked at."
    )
    stride: int = Field(10, ge=1, description="After those, one snapshot every so many events.")
    horizon: int = Field(10, ge=1, description="The next so many positive events are the truth.")
    minimum_future: int = Field(3, ge=1, description="With fewer, no snapshot is taken.")
    label_share: float = Field(0.25, gt=0, le=1, description="An interest: this share of the horizon's items bear it.")
    reviews_test_share: float = Field(0.2, gt=0, lt=1)
    reviews_validation_share: float = Field(0.08, gt=0, lt=1)

    @model_validator(mode="after")
    def _leave_a_test(self) -> PrepareSettings:
        if self.train_share + self.validation_share >= 1:
            raise ValueError("train_share + validation_share must leave a share for the test window")
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
        labels: the K interest labels.
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
        """The events behind each row, oldest first; history holds row numbers of the events table."""
        return [[self._event_rows[i] for i in history] for history in rows[HISTORY].to_list()]

    def reviews(self) -> pl.DataFrame | None:
        """text, sentiment, split; None where the data set has no reviews."""
        path = self.directory / REVIEWS
        return read_parquet(path) if path.exists() else None


def prepare(dataset: Path, settings: PrepareSettings, out: Path) -> PrepareResult:
    """Take snapshots of a data set, split them by time, and tell each as text.

    Args:
        dataset: what ingest wrote.
        settings: positions, horizon, shares.
        out: directory: snapshots.parquet, reviews.parquet (where there are any), events.parquet, items.parquet,
            snapshots.json.

    Raises:
        TasteloopError: a split would be empty.
    """
    import polars as pl

    events = read_parquet(dataset / EVENTS)
    events = events.with_row_index("row").sort(USER, TIME, "row").drop("row")
    catalogue, source = Catalogue.read(dataset / ITEMS), read_json(dataset / "ingest.json")
    cuts = _cuts(events[TIME], settings)
    records = _take(events, catalogue, settings, cuts)
    counts = Counter(record[SPLIT] for record in records)
    if missing := [split for split in SPLITS if not counts[split]]:
        raise TasteloopError(
            f"no snapshots for {', '.join(missing)}: {events[USER].n_unique()} users with {len(events)} events give "
            f"{dict(counts)}; bring more users or a longer time, or lower prepare.minimum_future "
            f"(now {settings.minimum_future}) or prepare.horizon (now {settings.horizon})"
        )
    table = pl.DataFrame(
        records,
        schema={
            USER: pl.String, TIME: pl.Int64, SPLIT: pl.String, TEXT: pl.String, EVENTS_SEEN: pl.Int32,
            HISTORY: pl.List(pl.Int32), FUTURE: pl.List(pl.Int32),
        },
    )  # fmt: skip
    labels = _learnable(table, catalogue, settings)
    reviews = _split_reviews(dataset / REVIEWS, settings)
    review_counts: dict[str, int] = dict(Counter(reviews[SPLIT])) if reviews is not None else {}
    with atomic_directory(out) as directory:
        write_parquet(directory / SNAPSHOTS, table)
        write_parquet(directory / EVENTS, events)
        shutil.copyfile(dataset / ITEMS, directory / ITEMS)
        if reviews is not None:
            write_parquet(directory / REVIEWS, reviews)
        write_json(
            directory / META,
            {
                "labels": labels,
                "validation_from": cuts[0],
                "test_from": cuts[1],
                "snapshots": dict(counts),
                "reviews": review_counts,
                "data": source.get("sha256"),
                "source": source.get("source"),
                "settings": settings.model_dump(mode="json"),
            },
        )
    log.info("snapshots %s of %d users; reviews %s", dict(counts), table[USER].n_unique(), review_counts)
    return PrepareResult(dict(counts), review_counts, labels)


def _cuts(times: pl.Series, settings: PrepareSettings) -> tuple[int, int]:
    """Where the validation and the test window begin, µs: quantiles of the events' times."""
    first = times.quantile(settings.train_share, "lower")
    second = times.quantile(settings.train_share + settings.validation_share, "lower")
    assert first is not None and second is not None, "a validated data set has events"
    return int(first), int(second)


def _events(table: pl.DataFrame) -> list[Event]:
    return [Event(*row) for row in table.select(KIND, ITEM, TIME, VALUE, TEXT).iter_rows()]


def _take(
    table: pl.DataFrame, catalogue: Catalogue, settings: PrepareSettings, cuts: tuple[int, int]
) -> list[dict[str, Any]]:
    """One record a snapshot, users and times ascending; history: rows of the table, newest `history_limit`."""
    events, times = _events(table), table[TIME].to_list()
    users = table[USER].to_list()
    starts = [i for i in range(len(users)) if i == 0 or users[i] != users[i - 1]] + [len(users)]
    records = []
    for begin, end in pairwise(starts):
        liked = [
            (i, catalogue.index[events[i].item or ""])
            for i in range(begin, end)
            if events[i].positive(settings.text.positive) and events[i].item in catalogue.index
        ]
        for cut in _positions(times[begin:end], settings):
            future = [pair for pair in liked if pair[0] >= begin + cut][: settings.horizon]
            if len(future) < settings.minimum_future:
                break
            now, last = times[begin + cut - 1], times[future[-1][0]]
            split = _split(now, last, cuts)
            if split is None:
                continue
            history = range(max(begin, begin + cut - settings.text.history_limit), begin + cut)
            records.append(
                {
                    USER: users[begin],
                    TIME: now,
                    SPLIT: split,
                    TEXT: behaviour_text([events[i] for i in history], catalogue, settings.text),
                    EVENTS_SEEN: cut,
                    HISTORY: list(history),
                    FUTURE: [position for _, position in future],
                }
            )
    return records


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


def _present(rows: pl.DataFrame, catalogue: Catalogue, labels: list[str], share: float) -> NDArray[np.float32]:
    """[rows, labels]: 1 where at least this share of a row's future items bear the label."""
    import numpy as np

    membership = catalogue.membership(labels)
    present = [membership[future].mean(0) >= share - 1e-9 for future in rows[FUTURE].to_list()]
    return np.array(present, np.float32).reshape(len(rows), len(labels))


def _learnable(table: pl.DataFrame, catalogue: Catalogue, settings: PrepareSettings) -> list[str]:
    """Labels that some training snapshots have and others lack: only those can be learned."""
    names = catalogue.label_names
    share = _present(table.filter(table[SPLIT] == TRAIN), catalogue, names, settings.label_share).mean(0)
    labels = [name for name, p in zip(names, share, strict=True) if 0 < p < 1]
    if dropped := [name for name in names if name not in labels]:
        log.info("labels never or always seen in training snapshots, left out: %s", ", ".join(dropped))
    if not labels:
        raise TasteloopError(
            f"no interest label can be learned: of {len(names)} labels none is present in some training snapshots "
            "and absent in others; give items more than one label"
        )
    return labels


def _split_reviews(path: Path, settings: PrepareSettings) -> pl.DataFrame | None:
    """Split by a hash of the text, so that a text repeated is on one side and a new review moves no old one."""
    import polars as pl

    if not path.exists():
        return None
    reviews = read_parquet(path)
    test, validation = settings.reviews_test_share, settings.reviews_validation_share

    def side(text: str) -> str:
        u = int.from_bytes(blake2b(" ".join(text.lower().split()).encode(), digest_size=8).digest(), "big") / 2**64
        return TEST if u < test else VALIDATION if u < test + validation else TRAIN

    splits = [side(text) for text in reviews[TEXT].to_list()]
    return reviews.select(TEXT, SENTIMENT).with_columns(pl.Series(SPLIT, splits, dtype=pl.String))
