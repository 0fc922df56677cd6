"""The step that takes snapshots: a data set becomes `snapshots.parquet` and what is beside it.

The events of each user are put in order, `tasteloop.behaviour.snapshots.take` looks at them, and
what it takes is split. Polars does this here; Spark in `tasteloop.behaviour.spark`.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import narwhals as nw
import polars as pl

from tasteloop.answers import tasks_of_data
from tasteloop.behaviour.events import ITEM, KIND, TEXT, TIME, USER, positive
from tasteloop.behaviour.interests import CatalogueInterests, Discover
from tasteloop.behaviour.items import INFERRED, LABELS, SENTIMENT, SOURCE, Catalogue
from tasteloop.behaviour.kinds import words_that_are_no_acts
from tasteloop.behaviour.partitions import DataSettings, count, scan, split, write_rows
from tasteloop.behaviour.snapshots import (
    EVENTS,
    ITEMS,
    META,
    REVIEWS,
    SNAPSHOTS,
    SPLIT,
    SPLITS,
    TABLE,
    TEST,
    TRAIN,
    VALIDATION,
    PrepareSettings,
    Windows,
    present_labels,
    take,
)
from tasteloop.behaviour.times import SECOND
from tasteloop.errors import TasteloopError
from tasteloop.files import atomic_directory, read_json, read_parquet, write_json, write_parquet

log = logging.getLogger(__name__)

_PART = "_part"
# what splits are by, by what the source knows of times (`tasteloop.datasets.reading.Times`)
_SPLIT_BY = {"given": "time", "order": "leave last out", "none": "users at random"}

# splitmix64 (Steele, Lea & Flood 2014): the step, and by what a state is shifted and multiplied
_STEP = 0x9E3779B97F4A7C15
_MIXERS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LEAST_POSITIVE = (
    3  # acts of a user of whom the last is left out: one to test, to validate, to know
)
_DRAWN_FROM, _WINDOW = 946_684_800 * SECOND, 1 << 47  # from 2000 on, three times four years


@dataclass(frozen=True)
class PrepareResult:
    """How many snapshots and reviews each split got."""

    snapshots: dict[str, int]
    reviews: dict[str, int]
    labels: list[str]


def prepare(
    dataset: Path,
    settings: PrepareSettings,
    out: Path,
    data: DataSettings | None = None,
    discover: Discover | None = None,
) -> PrepareResult:
    """Take snapshots of a data set, split them by time, and write each history as text.

    Of a data set whose rows are in order without times, each user's last positive act is left out
    to test and the one before it to validate. One without times or order is split at random, which
    the log says. `split_by` of snapshots.json says what a data set is split by.

    Args:
        dataset: what ingest wrote.
        settings: positions, horizon, shares.
        out: directory: snapshots.parquet, reviews.parquet (where there are any), events.parquet,
            items.parquet, snapshots.json.
        data: the engine; each writes the same bytes.
        discover: finds the interests of a catalogue as `settings.interests` say, such as
            `tasteloop.interests.discovery.find_interests`; it sees the positive acts before the
            validation window. None: the catalogue's own labels are the interests.

    Raises:
        TasteloopError: a split would be empty.
    """
    data = data or DataSettings()
    # 1. the acts, and the times at which they are split
    catalogue, source = Catalogue.read(dataset / ITEMS), read_json(dataset / "ingest.json")
    times = source.get("times", "given")
    rows = scan(dataset / EVENTS)
    if times == "none":
        rows, windows = _in_drawn_order(rows, settings)
        log.warning(
            "the data have no times: the split is random, of users drawn with prepare.seed %d, "
            "and not by time; what is measured on it says nothing of how the future is foreseen",
            settings.seed,
        )
    rows = rows.filter(~pl.col(KIND).is_in(words_that_are_no_acts()))
    if times == "order":
        rows, windows = _with_last_left_out(rows, catalogue, settings)
    elif times == "given":
        windows = _windows(rows.select(TIME).collect(engine="streaming").to_series(), settings)
    interests = None
    if discover is not None:
        interests = discover(
            catalogue, _before(rows, windows, catalogue, settings), settings.interests
        )
        catalogue = replace(catalogue, labels=interests.labels)
    with atomic_directory(out) as directory:
        # 2. events by user, and the snapshots of each user
        tally = _Tally(catalogue, settings.label_share)
        with data.work(directory) as work:
            if data.engine == "spark":
                from tasteloop.behaviour import spark

                events, snapshots = spark.take(
                    rows, count(rows), catalogue, settings, windows, data, work
                )
            else:
                events = _by_user(rows, data, work)
                snapshots = _take_in_parts(directory / EVENTS, catalogue, settings, windows, data)
            write_rows(directory / EVENTS, events, rows.collect_schema())
            write_rows(directory / SNAPSHOTS, map(tally.count, snapshots), TABLE)

        # 3. what can be learned of them
        if missing := [split for split in SPLITS if not tally.splits[split]]:
            remedy = (
                f"bring users with {_LEAST_POSITIVE} positive acts and more, or lower prepare.minimum_future "
                f"(now {settings.minimum_future})"
                if windows.leave_last_out
                else "bring more users or a longer time, or lower prepare.minimum_future "
                f"(now {settings.minimum_future}) or prepare.horizon (now {settings.horizon})"
            )
            raise TasteloopError(
                f"no snapshots for {', '.join(missing)}: {count(rows.select(USER).unique())} users with {count(rows)} "
                f"events give {dict(tally.splits)}; {remedy}"
            )

        labels = tally.learnable()
        reviews = _split_reviews(dataset / REVIEWS, settings)
        review_counts: dict[str, int] = dict(Counter(reviews[SPLIT])) if reviews is not None else {}

        # 4. what is beside the snapshots
        _write_items(dataset / ITEMS, interests, directory / ITEMS)
        if reviews is not None:
            write_parquet(directory / REVIEWS, reviews)
        write_json(
            directory / META,
            {
                "labels": labels,
                "interests": interests.record if interests else {"origin": "labels"},
                "split_by": _SPLIT_BY[times],
                "validation_from": windows.validation_from,
                "test_from": windows.test_from,
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


def _before(
    rows: pl.LazyFrame, windows: Windows, catalogue: Catalogue, settings: PrepareSettings
) -> pl.LazyFrame:
    """USER and ITEM of the positive acts on known items before the validation window, unread."""
    past = rows.filter(pl.col(TIME) < windows.validation_from, pl.col(ITEM).is_in(catalogue.items))
    liked: pl.LazyFrame = nw.from_native(past).filter(positive(settings.text.positive)).to_native()
    return liked.select(USER, ITEM)


def _write_items(source: Path, interests: CatalogueInterests | None, out: Path) -> None:
    """The items of a data set; where labels were discovered or inferred with these, and marked."""
    if interests is None or not any(interests.inferred):
        shutil.copyfile(source, out)
        return
    labels = pl.Series(LABELS, interests.labels, pl.List(pl.String))
    marked = read_parquet(source).with_columns(labels, pl.Series(INFERRED, interests.inferred))
    write_parquet(out, marked)


def _in_drawn_order(rows: pl.LazyFrame, settings: PrepareSettings) -> tuple[pl.LazyFrame, Windows]:
    """The rows with times that are drawn at random, and where validation and test begin.

    Each user is drawn into one of three windows, one a split, with the shares of the settings as
    probabilities (strong generalisation: Liang et al. 2018, section 4.2); their acts lie there in a
    random order. The same rows and seed give the same times, in any number of parts.
    """
    row, window = "row", "window"
    users = rows.select(USER).unique().collect(engine="streaming")[USER].sort()
    drawn_users = pl.LazyFrame({USER: users, window: [_window(u, settings) for u in users]})
    state = (pl.col(row).cast(pl.UInt64) + 1) * pl.lit(_STEP, pl.UInt64)
    state = state ^ pl.lit(settings.seed * _STEP % (1 << 64), pl.UInt64)
    for shift, factor in _MIXERS:
        state = (state ^ (state // (1 << shift))) * pl.lit(factor, pl.UInt64)
    drawn = _DRAWN_FROM + pl.col(window) * _WINDOW + (state % _WINDOW).cast(pl.Int64)
    columns = rows.collect_schema().names()
    ordered = (
        rows.with_row_index(row)
        .join(drawn_users, on=USER, how="left", maintain_order="left")
        .with_columns(drawn.alias(TIME))
        .select(columns)
    )
    return ordered, Windows(_DRAWN_FROM + _WINDOW, _DRAWN_FROM + 2 * _WINDOW)


def _window(user: str, settings: PrepareSettings) -> int:
    """0 to train, 1 to validate, 2 to test."""
    share = _uniform(f"{settings.seed}\0{user}")
    if share < settings.train_share:
        return 0
    return 1 if share < settings.train_share + settings.validation_share else 2


def _uniform(text: str) -> float:
    """A number in [0, 1) that is always the same of the same text."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64


def _with_last_left_out(
    rows: pl.LazyFrame, catalogue: Catalogue, settings: PrepareSettings
) -> tuple[pl.LazyFrame, Windows]:
    """The rows with times at which each user's last positive act lies in the test window, the one
    before it in the validation window, and what came before both in the training window.

    An act that is not positive lies in the window of the positive one before it. Who has fewer than
    three positive acts is only trained on (as in the code of Kang & McAuley 2018). Within a window
    the times keep their distances: the second and the third window begin as much later as all the
    times take.
    """
    row, validated, tested = "row", "validated", "tested"
    numbered = rows.with_row_index(row)
    is_positive: pl.LazyFrame = (
        nw.from_native(numbered).filter(positive(settings.text.positive)).to_native()
    )
    positive_rows = is_positive.filter(pl.col(ITEM).is_in(catalogue.items))
    last_two = (
        positive_rows.group_by(USER)
        .agg(pl.len(), pl.col(row).top_k(2).min().alias(validated), pl.col(row).max().alias(tested))
        .filter(pl.col("len") >= _LEAST_POSITIVE)
        .select(USER, validated, tested)
        .collect(engine="streaming")
    )
    ends = rows.select(first=pl.col(TIME).min(), last=pl.col(TIME).max())
    first, last = ends.collect(engine="streaming").row(0)
    span = last - first + SECOND
    window = (pl.col(row) >= pl.col(validated)).cast(pl.Int64) + (
        pl.col(row) >= pl.col(tested)
    ).cast(pl.Int64)
    shifted = (
        numbered.join(last_two.lazy(), on=USER, how="left", maintain_order="left")
        .with_columns(pl.col(TIME) + window.fill_null(0) * span)
        .select(rows.collect_schema().names())
    )
    return shifted, Windows(first + span, first + 2 * span, leave_last_out=True)


def _windows(times: pl.Series, settings: PrepareSettings) -> Windows:
    """The windows of events at these times: quantiles of them."""
    first = times.quantile(settings.train_share, "lower")
    second = times.quantile(settings.train_share + settings.validation_share, "lower")
    assert first is not None and second is not None, "a validated data set has events"
    return Windows(int(first), int(second))


def _by_user(rows: pl.LazyFrame, data: DataSettings, work: Path) -> Iterator[pl.DataFrame]:
    """The events by user and time; a part of the users in memory at a time."""
    row, height = "row", count(rows)
    parts = [rows.with_row_index(row)]
    if height > data.rows_a_part:
        joined = parts[0].join(_users(rows, data).select(USER, _PART).lazy(), on=USER, how="left")
        parts = split(joined, pl.col(_PART), -(-height // data.rows_a_part), work / "users")
    for part in parts:
        yield part.select(row, *rows.collect_schema()).collect().sort(USER, TIME, row).drop(row)


def _users(events: pl.LazyFrame, data: DataSettings) -> pl.DataFrame:
    """USER in order, how many events each has ("len"), and the part that they belong to."""
    users = events.group_by(USER).len().collect(engine="streaming").sort(USER)
    before = pl.col("len").cum_sum() - pl.col("len")
    return users.with_columns((before // data.rows_a_part).alias(_PART))


def _take_in_parts(
    path: Path,
    catalogue: Catalogue,
    settings: PrepareSettings,
    windows: Windows,
    data: DataSettings,
) -> Iterator[pl.DataFrame]:
    """The snapshots of the events by user and time at `path`; a part of the users in memory at a
    time.
    """
    events = pl.scan_parquet(path, hive_partitioning=False, glob=False)
    parts = _users(events, data).group_by(_PART, maintain_order=True)
    first = 0
    for height in parts.agg(pl.col("len").sum())["len"]:
        yield take(events.slice(first, height).collect(), first, catalogue, settings, windows)
        first += height


class _Tally:
    """Counts of the snapshots of each split, and of the labels that are present in the training
    ones; tables are counted while they are written.
    """

    def __init__(self, catalogue: Catalogue, share: float) -> None:
        self.splits: Counter[str] = Counter()
        self._catalogue, self._share = catalogue, share
        self._labels = [0.0] * len(catalogue.label_names)

    def count(self, table: pl.DataFrame) -> pl.DataFrame:
        """Add the snapshots of a table to the counts; returns the table."""
        self.splits.update(table[SPLIT])
        training = table.filter(table[SPLIT] == TRAIN)
        present = present_labels(
            training, self._catalogue, self._catalogue.label_names, self._share
        )
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
    """The reviews, split by a hash of the text; None where there are none.

    So a text that is repeated is in one split, and a new review moves no earlier one.
    """
    if not path.exists():
        return None
    reviews = read_parquet(path)
    test, validation = settings.reviews_test_share, settings.reviews_validation_share

    def split_of(text: str) -> str:
        u = _uniform(" ".join(text.lower().split()))
        if u < test:
            return TEST
        return VALIDATION if u < test + validation else TRAIN

    splits = [split_of(text) for text in reviews[TEXT].to_list()]
    source = pl.col(SOURCE) if SOURCE in reviews.columns else pl.lit(None, pl.String).alias(SOURCE)
    return reviews.select(TEXT, SENTIMENT, pl.Series(SPLIT, splits, dtype=pl.String), source)
