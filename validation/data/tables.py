"""The tables as the rules see them, with columns that exist for the rules alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import narwhals as nw

from tasteloop.behaviour import events as ev
from tasteloop.behaviour import items as it
from tasteloop.behaviour.kinds import KINDS, words_needing
from tasteloop.behaviour.partitions import DataSettings, count
from tasteloop.errors import TasteloopError
from tasteloop.files import as_mapping, read_json
from tasteloop.intervals import finite
from validation.data.checks import DataCheck
from validation.data.settings import ValidationSettings
from validation.markup.formats import plural

if TYPE_CHECKING:
    import polars as pl

_RECORD = "ingest.json"

# Columns that exist for the rules alone.
UNLISTED, POSITIVE, IS = "unlisted_item", "positive", "is_"
UNLABELLED, LABEL, LEARNABLE = "unlabelled_item", "label", "learnable_label"
REJECTED, UNCATALOGUED, LOST, NULL_WORDS = (
    "rejected_share",
    "uncatalogued_share",
    "lost_kinds",
    "null_words",
)
# of what people write: shares of the texts that there are
UNREADABLE_SEARCHES, UNREADABLE_OPINIONS, FOREIGN, LONG_SEARCHES = (
    "unreadable_searches",
    "unreadable_opinions",
    "foreign_texts",
    "long_searches",
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
SINCE = {"reviews": (it.SOURCE,)}  # columns that data sets made before do not have
# The scripts that are told apart. Japanese is written in three of them.
_SCRIPTS = (
    "Latin",
    "Han",
    "Hiragana",
    "Katakana",
    "Hangul",
    "Cyrillic",
    "Greek",
    "Arabic",
    "Hebrew",
    "Devanagari",
    "Thai",
)
_SPOKEN = 0.2  # of the catalogue's letters: from this share on it is written in a script
_DAMAGED = 10  # one damaged character in so many: a text that was decoded wrongly
SCHEMAS = {"events": ev.EVENTS_SCHEMA, "items": it.ITEMS_SCHEMA, "reviews": it.REVIEWS_SCHEMA}


def events_for_rules(
    events: pl.DataFrame, items: pl.DataFrame | None, settings: ValidationSettings
) -> pl.DataFrame:
    """The events with POSITIVE, a column for each kind whose share is bounded (1 where the event is
    of the kind) and, where there is a catalogue, UNLISTED: the item where the catalogue lacks it.
    """
    import polars as pl

    is_positive = ev.positive(settings.positive_threshold).alias(POSITIVE)
    kinds = [
        (pl.col(ev.KIND) == kind).cast(pl.Float64).alias(IS + kind) for kind in settings.kind_shares
    ]
    with_positive: pl.DataFrame = nw.from_native(events).with_columns(is_positive).to_native()
    frame = with_positive.with_columns(pl.col(POSITIVE).cast(pl.Float64), *kinds)
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
    is_positive = ev.positive(settings.positive_threshold).cast(nw.Float64()).alias(POSITIVE)
    kinds = [
        (nw.col(ev.KIND) == kind).cast(nw.Float64()).alias(IS + kind)
        for kind in settings.kind_shares
    ]
    return nw.from_native(events).with_columns(is_positive, *kinds).to_native().persist()


def items_for_rules(items: pl.DataFrame) -> pl.DataFrame:
    """The items with UNLABELLED: the id of an item that carries no label."""
    import polars as pl

    has_no_label = pl.col(it.LABELS).list.len() == 0
    return items.with_columns(pl.when(has_no_label).then(pl.col(it.ITEM)).alias(UNLABELLED))


def labels_of_items(items: pl.DataFrame, settings: ValidationSettings) -> pl.DataFrame:
    """One row for each label of an item, and the label again where a model could learn to tell it
    apart.
    """
    import polars as pl

    long = items.select(it.ITEM, pl.col(it.LABELS).alias(LABEL)).explode(LABEL)
    carried = long.drop_nulls(LABEL).unique().group_by(LABEL).len("items")
    has_support = pl.col("items") >= settings.min_label_items
    tells_apart = pl.col("items") < items[it.ITEM].n_unique()
    learnable = carried.filter(has_support & tells_apart)[LABEL]
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
    about = "items carry labels; without any, interests are discovered in behaviour and titles"
    return [DataCheck("items", "labels present", about, "warning", False, "no labels")]


def read_ingest(dataset: Path, checks: list[DataCheck]) -> Mapping[str, Any] | None:
    """ingest.json; None where it cannot be read or lacks its counts, which is a warning among
    `checks`.
    """
    about = "ingest.json says what ingest read and removed"
    try:
        record = read_json(dataset / _RECORD)
        rows_in, rows_out = (finite(record.get(key)) for key in ("rows_in", "rows_out"))
    except (TasteloopError, AttributeError) as error:
        checks.append(DataCheck("ingest", "record", about, "warning", False, str(error)[:300]))
        return None
    if not rows_in or rows_out is None:
        observed = f"rows_in {rows_in}, rows_out {rows_out}"
        checks.append(DataCheck("ingest", "record", about, "warning", False, observed))
        return None
    return as_mapping(record)


def joined_texts(dataset: Path) -> dict[str, Any]:
    """What ingest recorded of a file of texts about items; nothing where there was none."""
    try:
        return dict(as_mapping(as_mapping(read_json(dataset / _RECORD)).get("item_text")))
    except TasteloopError:  # of which `read_ingest` makes a check
        return {}


def text_columns(
    events: pl.DataFrame | pl.LazyFrame, items: pl.DataFrame | None, settings: ValidationSettings
) -> dict[str, list[Any]]:
    """What the rules look at, of what people wrote: shares of all searches and of all texts about
    items. A share of nothing is left out, and of data without texts so is all.
    """
    import polars as pl

    # 1. texts, and whether they can be read: whoever searches has written something. Signs that
    # join letters or turn their direction (Unicode's Cf) are ordinary writing
    text, is_search = pl.col(ev.TEXT), pl.col(ev.KIND).is_in(words_needing("text"))
    has_words = text.str.contains(r"[\p{L}\p{N}]")
    damaged = text.str.count_matches(r"[\p{Cc}\p{Co}\p{Cn}\x{FFFD}--\t\n\r]")
    is_readable = (has_words & (damaged * _DAMAGED < text.str.len_chars())).fill_null(value=False)
    is_about_item = text.is_not_null() & pl.col(ev.ITEM).is_not_null() & ~is_search

    # 2. letters of the scripts in which the catalogue is written
    own = _scripts(items)
    letters = text.str.count_matches(r"\p{L}")
    own_letters = text.str.count_matches("|".join(map(_letters_of, own)))
    has_letters = is_readable & (letters > 0)

    shares = {
        UNREADABLE_SEARCHES: (is_search, ~is_readable),
        UNREADABLE_OPINIONS: (is_about_item, ~is_readable),
        LONG_SEARCHES: (is_search & is_readable, text.str.len_chars() > settings.search_characters),
    }
    if own:
        shares[FOREIGN] = (has_letters, own_letters * 2 < letters)
    counts = {name: (of.sum(), (of & breaks).sum()) for name, (of, breaks) in shares.items()}
    row = (
        events.lazy()
        .select(
            expression.alias(f"{name} {n}")
            for name, pair in counts.items()
            for n, expression in enumerate(pair)
        )
        .collect(engine="streaming")
        .row(0)
    )
    pairs = zip(counts, row[::2], row[1::2], strict=True)
    return {name: [broken / of] for name, of, broken in pairs if of}


def _letters_of(script: str) -> str:
    """A pattern of the letters of a script."""
    return rf"\p{{{script}}}"


def _scripts(items: pl.DataFrame | None) -> list[str]:
    """The scripts, by their names in Unicode, of a fifth or more of the letters of titles, labels
    and texts; none without a catalogue.
    """
    import polars as pl

    if items is None:
        return []
    written = pl.concat(
        [items[it.TITLE], items[it.LABELS].explode(), items[it.TEXT]], how="vertical"
    ).drop_nulls()
    letters = int(written.str.count_matches(r"\p{L}").sum())
    counts = {name: int(written.str.count_matches(_letters_of(name)).sum()) for name in _SCRIPTS}
    return [name for name, count in counts.items() if count and count >= _SPOKEN * letters]


def ingest_columns(record: Mapping[str, Any], settings: ValidationSettings) -> dict[str, list[Any]]:
    """What the rules look at, from ingest's record of the source; what it does not say is left
    out.
    """
    # 1. shares of all rows
    table: dict[str, list[Any]] = {REJECTED: [1 - record["rows_out"] / record["rows_in"]]}
    unlisted = as_mapping(record.get("unlisted"))  # null where the source has no catalogue
    lacking, named = (finite(unlisted.get(key)) for key in ("events", "of"))
    if lacking is not None and named:
        table[UNCATALOGUED] = [lacking / named]

    # 2. kinds of which a rule of the cleaning removed most; reviews count as a kind
    if "kinds" in record:
        kinds = {kind: as_mapping(counts) for kind, counts in as_mapping(record["kinds"]).items()}
        kinds["reviews of reviews.parquet"] = _review_counts(record)
        table[LOST] = list(_lost(kinds, settings.max_lost)) or [NONE]

    # 3. ids that are words for a missing value
    if "null_words" in record:
        table[NULL_WORDS] = list(_null_words(as_mapping(record["null_words"]))) or [NONE]
    return table


def _review_counts(record: Mapping[str, Any]) -> dict[str, Any]:
    """The counts of reviews in the form in which ingest gives those of a kind."""
    removed = {
        rule: as_mapping(counts).get("removed")
        for rule, counts in as_mapping(record.get("reviews_rules")).items()
    }
    remaining = finite(record.get("reviews")) or 0
    return {
        "rows": remaining + sum(finite(rows) or 0 for rows in removed.values()),
        "removed": removed,
    }


def _null_words(words: Mapping[str, Any]) -> Iterator[str]:
    """Each such word of a column, with the rows that it stands in."""
    for column, counts in words.items():
        for word, number in as_mapping(counts).items():
            yield f"{column} {word!r} ({plural(int(finite(number) or 0), 'row')})"


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
        names = ("events", "users", "items", "labels", "reviews")
        return {name: int(stats[name]) for name in names if stats.get(name) is not None}
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
        stats["events"] = sum(counts.values())
        stats["users"] = count(events.lazy().select(ev.USER).unique())
        stats["kinds"] = {kind: counts.get(kind, 0) for kind in KINDS}
        stats["newest"] = events.lazy().select(ev.TIME).max().collect().item()
    if items is not None:
        stats["items"] = items.height
        stats["labels"] = items[it.LABELS].explode().drop_nulls().n_unique()
    if reviews is not None:
        stats["reviews"] = reviews.height
    return stats
