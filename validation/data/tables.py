"""The tables as the rules see them, with columns that are made for the rules alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import narwhals as nw

from tasteloop.behaviour import events as ev
from tasteloop.behaviour import items as it
from tasteloop.behaviour.kinds import KINDS
from tasteloop.behaviour.partitions import DataSettings, count
from tasteloop.errors import TasteloopError
from tasteloop.files import as_mapping, read_json
from tasteloop.intervals import finite
from validation.data.checks import DataCheck
from validation.data.settings import ValidationSettings
from validation.markup.formats import plural

if TYPE_CHECKING:
    import polars as pl

# Columns made for the rules; they exist only here.
UNLISTED, POSITIVE, IS = "unlisted_item", "positive", "is_"
UNLABELLED, LABEL, LEARNABLE = "unlabelled_item", "label", "learnable_label"
REJECTED, UNCATALOGUED, LOST, NULL_WORDS = (
    "rejected_share",
    "uncatalogued_share",
    "lost_kinds",
    "null_words",
)
NONE = "none"  # what a column of names holds where there is nothing to name

TYPES: dict[Any, str] = {
    nw.String(): "str",
    nw.Int64(): "int64",
    nw.Int8(): "int8",
    nw.Float32(): "float32",
    nw.Date(): "datetime64[ms]",
    nw.List(nw.String()): "list",
}
SPARK_TYPES = {"str": "StringType", "int64": "LongType", "float32": "FloatType"}  # of the events
REQUIRED = {
    "events": (ev.USER, ev.KIND, ev.TIME),
    "items": (it.ITEM, it.LABELS),
    "reviews": (it.REVIEW, it.TEXT, it.SENTIMENT),
}
SCHEMAS = {"events": ev.EVENTS_SCHEMA, "items": it.ITEMS_SCHEMA, "reviews": it.REVIEWS_SCHEMA}


def events_for_rules(
    events: pl.DataFrame, items: pl.DataFrame | None, settings: ValidationSettings
) -> pl.DataFrame:
    import polars as pl

    wanted = nw.from_native(events).with_columns(
        ev.positive(settings.positive_threshold).alias(POSITIVE)
    )
    frame = wanted.to_native().with_columns(
        pl.col(POSITIVE).cast(pl.Float64),
        *[
            (pl.col(ev.KIND) == kind).cast(pl.Float64).alias(IS + kind)
            for kind in settings.kind_shares
        ],
    )
    if items is not None:
        listed = pl.col(ev.ITEM).is_in(items[it.ITEM].implode())
        frame = frame.with_columns(pl.when(~listed).then(pl.col(ev.ITEM)).alias(UNLISTED))
    return frame


def events_on_spark(
    events: Any,
    items: pl.DataFrame | None,
    settings: ValidationSettings,
    data: DataSettings,
    work: Path,
) -> Any:
    """`events_for_rules` of a Spark frame."""
    from tasteloop.behaviour import spark

    if items is not None:
        events = spark.with_unlisted(events, items[it.ITEM], UNLISTED, data, work)
    wanted = ev.positive(settings.positive_threshold).cast(nw.Float64()).alias(POSITIVE)
    shares = [
        (nw.col(ev.KIND) == kind).cast(nw.Float64()).alias(IS + kind)
        for kind in settings.kind_shares
    ]
    return nw.from_native(events).with_columns(wanted, *shares).to_native().persist()


def labels_of_items(items: pl.DataFrame, settings: ValidationSettings) -> pl.DataFrame:
    """One row for each label of an item, and the label again where a model could learn to tell it
    apart.
    """
    import polars as pl

    long = items.select(it.ITEM, pl.col(it.LABELS).alias(LABEL)).explode(LABEL)
    carried = long.drop_nulls(LABEL).unique().group_by(LABEL).len("items")
    enough, all_items = pl.col("items") >= settings.min_label_items, items[it.ITEM].n_unique()
    learnable = carried.filter(enough & (pl.col("items") < all_items))[LABEL]
    if not carried.is_empty():
        long = long.drop_nulls(LABEL)
    return long.with_columns(
        pl.when(pl.col(LABEL).is_in(learnable.implode())).then(pl.col(LABEL)).alias(LEARNABLE)
    )


def labels_present(labelled: bool, before: Mapping[str, int]) -> list[DataCheck]:
    """A catalogue without any label is data without interests; one that has lost its labels is an
    error.
    """
    if labelled:
        return []
    if before.get("labels"):
        about = f"items carry labels, as those of the last accepted data set did ({before['labels']:,} labels)"
        return [DataCheck("items", "labels present", about, "error", False, "no labels")]
    about = "items carry labels; without any the model has no interests"
    return [DataCheck("items", "labels present", about, "warning", False, "no labels")]


def read_ingest(dataset: Path, checks: list[DataCheck]) -> Mapping[str, Any] | None:
    """What ingest says that it read and removed."""
    about = "ingest.json says what ingest read and removed"
    try:
        record = read_json(dataset / "ingest.json")
        rows_in, rows_out = (finite(record.get(key)) for key in ("rows_in", "rows_out"))
    except (TasteloopError, AttributeError) as error:
        checks.append(DataCheck("ingest", "record", about, "warning", False, str(error)[:300]))
        return None
    if not rows_in or rows_out is None:
        checks.append(
            DataCheck(
                "ingest",
                "record",
                about,
                "warning",
                False,
                f"rows_in {rows_in}, rows_out {rows_out}",
            )
        )
        return None
    return as_mapping(record)


def ingest_columns(record: Mapping[str, Any], settings: ValidationSettings) -> dict[str, list[Any]]:
    """What the rules look at, from ingest's record of the source; what it does not say is left
    out.
    """
    table: dict[str, list[Any]] = {REJECTED: [1 - record["rows_out"] / record["rows_in"]]}
    unlisted = as_mapping(record.get("unlisted"))  # null where the source has no catalogue
    lacking, named = (finite(unlisted.get(key)) for key in ("events", "of"))
    if lacking is not None and named:
        table[UNCATALOGUED] = [lacking / named]
    kinds = {kind: as_mapping(counts) for kind, counts in as_mapping(record.get("kinds")).items()}
    removed = {
        rule: as_mapping(counts).get("removed")
        for rule, counts in as_mapping(record.get("reviews_rules")).items()
    }
    said = sum(finite(count) or 0 for count in removed.values())
    kinds["reviews of reviews.parquet"] = {
        "rows": (finite(record.get("reviews")) or 0) + said,
        "removed": removed,
    }
    if "kinds" in record:
        table[LOST] = [*_lost(kinds, settings.max_lost)] or [NONE]
    if "null_words" in record:
        words = {
            column: as_mapping(counts)
            for column, counts in as_mapping(record["null_words"]).items()
        }
        table[NULL_WORDS] = [
            f"{column} {word!r} ({plural(int(finite(rows) or 0), 'row')})"
            for column, counts in words.items()
            for word, rows in counts.items()
        ] or [NONE]
    return table


def _lost(kinds: Mapping[str, Mapping[str, Any]], most: float) -> Iterator[str]:
    """The kinds of which one rule removed more than this share."""
    for kind, counts in kinds.items():
        rows = finite(counts.get("rows"))
        for rule, number in as_mapping(counts.get("removed")).items():
            removed = finite(number)
            if rows and removed and removed > most * rows:
                yield f"{kind}: {rule} removed {removed:,.0f} of {rows:,.0f} rows ({removed / rows:.0%})"


def previous_counts(path: Path | None, checks: list[DataCheck]) -> dict[str, int]:
    """Counts of the last accepted data set; empty when there is none."""
    if path is None or not path.exists():
        return {}
    about = "the last accepted data set's counts can be read, so that volume is compared"
    try:
        record = read_json(path)
        stats = record.get("stats", record)
        counted = ("events", "users", "items", "labels", "reviews")
        return {k: int(stats[k]) for k in counted if stats.get(k) is not None}
    except (TasteloopError, AttributeError, TypeError, ValueError, OverflowError) as error:
        checks.append(DataCheck("data set", "previous", about, "warning", False, str(error)[:300]))
        return {}


def statistics(frames: Mapping[str, Any]) -> dict[str, Any]:
    """What the next data set is compared with; null where a table could not be used."""
    events, items, reviews = (frames.get(name) for name in SCHEMAS)
    stats: dict[str, Any] = dict.fromkeys(
        ("events", "users", "kinds", "newest", "items", "labels", "reviews")
    )
    if events is not None:
        counts = dict(events.lazy().group_by(ev.KIND).len().collect().iter_rows())
        stats["events"], stats["users"] = (
            sum(counts.values()),
            count(events.lazy().select(ev.USER).unique()),
        )
        stats["kinds"] = {kind: counts.get(kind, 0) for kind in KINDS}
        stats["newest"] = events.lazy().select(ev.TIME).max().collect().item()
    if items is not None:
        stats["items"], stats["labels"] = (
            items.height,
            items[it.LABELS].explode().drop_nulls().n_unique(),
        )
    if reviews is not None:
        stats["reviews"] = reviews.height
    return stats
