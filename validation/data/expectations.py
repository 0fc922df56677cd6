"""What a data set must satisfy before anything is trained on it.

Each table has two suites of Great Expectations: the contract (columns, types, nulls), made from the
schemas in `tasteloop.behaviour.events` and `tasteloop.behaviour.items`, and, for a table that keeps
the contract, its rules (sets, ranges, uniqueness, references, volume, balance). A rule is an error,
which stops the pipeline, or a warning, which is reported. Some are both, at two levels: one
unlisted item is a warning, a tenth of all events is an error.

Nothing that data can be makes `validate` raise: what cannot be read or checked is an error with its
reason.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import narwhals as nw
from pydantic import BaseModel, Field, model_validator

from tasteloop.behaviour import events as ev
from tasteloop.behaviour import items as it
from tasteloop.behaviour.kinds import KINDS, words_needing
from tasteloop.behaviour.partitions import DataSettings, count, scan
from tasteloop.errors import TasteloopError
from tasteloop.files import as_mapping, read_json, read_parquet, write_json
from tasteloop.intervals import finite

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    from great_expectations.data_context.data_context.abstract_data_context import (
        AbstractDataContext,
    )
    from great_expectations.expectations.expectation import Expectation

log = logging.getLogger(__name__)

Severity = Literal["error", "warning"]
_LEVELS: tuple[Severity, ...] = ("error", "warning")
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Range = tuple[Share, Share]

_NOTHING = "null"
PSEUDONYM = r"^[0-9a-f]{32}$"  # what tasteloop.privacy.pseudonyms makes of a user id
SAMPLES = 5

# Columns made for the rules; they exist only here.
_UNLISTED, _POSITIVE, _IS = "unlisted_item", "positive", "is_"
_UNLABELLED, _LABEL, _LEARNABLE = "unlabelled_item", "label", "learnable_label"
_REJECTED, _UNCATALOGUED, _LOST, _NULL_WORDS = (
    "rejected_share",
    "uncatalogued_share",
    "lost_kinds",
    "null_words",
)
_NONE = "none"  # what a column of names holds where there is nothing to name

_TYPES: dict[Any, str] = {
    nw.String(): "str",
    nw.Int64(): "int64",
    nw.Int8(): "int8",
    nw.Float32(): "float32",
    nw.Date(): "datetime64[ms]",
    nw.List(nw.String()): "list",
}
_SPARK_TYPES = {"str": "StringType", "int64": "LongType", "float32": "FloatType"}  # of the events
_REQUIRED = {
    "events": (ev.USER, ev.KIND, ev.TIME),
    "items": (it.ITEM, it.LABELS),
    "reviews": (it.REVIEW, it.TEXT, it.SENTIMENT),
}
_SCHEMAS = {"events": ev.EVENTS_SCHEMA, "items": it.ITEMS_SCHEMA, "reviews": it.REVIEWS_SCHEMA}


class ValidationSettings(BaseModel, frozen=True, extra="forbid"):
    """Bounds of the rules; shares lie in [0, 1].

    Args:
        min_events, min_users, min_items, min_reviews, min_positive_events: the least a model can be
            learned from.
        min_labels: interest labels with support: carried by at least `min_label_items` items, and
            not by all of them; not asked where no item carries a label.
        max_unlisted: error above this share of events whose item is not in the catalogue; any is a
            warning.
        max_duplicates: error above this share of exact duplicates; any is a warning.
        max_untitled, max_unlabelled: error above this share of items without title or labels; any
            is a warning.
        max_rejected: error above this share of rows that ingest removed; a warning above a fifth of
            it.
        max_lost: warning above this share of a kind's rows, or of the reviews, that one rule of the
            cleaning removed.
        max_uncatalogued: error above this share of events whose item the source's own catalogue
            lacks; a warning above a tenth of it. Old behaviour outlives the products that it is
            about, so some are usual; of most of the events, the ids of the two files do not mean
            the same things.
        max_valueless: error above this share of ratings without a value; any is a warning.
        kind_shares: bounds of a kind's share of events, such as {"purchase": [0.001, 0.2]}.
        sentiment_balance: bounds of the share of positive reviews.
        positive_threshold: value from which a rating is positive, as in
            `tasteloop.behaviour.events.positive`.
        earliest, future_hours: no event lies before this day or further than this in the future.
        max_age_days: the newest event may not be older; None for historical data.
        volume: bounds of events, users, items and reviews against the last accepted data set; fewer
            is an error, more a warning.
        pseudonyms: user ids must be pseudonyms, so that no raw id goes further.
    """

    min_events: Annotated[int, Field(ge=1)] = 100
    min_users: Annotated[int, Field(ge=2)] = 10
    min_items: Annotated[int, Field(ge=2)] = 10
    min_reviews: Annotated[int, Field(ge=2)] = 50
    min_positive_events: Annotated[int, Field(ge=1)] = 20
    min_labels: Annotated[int, Field(ge=2)] = 2
    min_label_items: Annotated[int, Field(ge=1)] = 1
    max_unlisted: Share = 0.1
    max_duplicates: Share = 0.01
    max_untitled: Share = 0.05
    max_unlabelled: Share = 0.5
    max_rejected: Share = 0.5
    max_lost: Share = 0.5
    max_uncatalogued: Share = 0.5
    max_valueless: Share = 0.05
    kind_shares: dict[str, Range] = {}
    sentiment_balance: Range = (0.1, 0.9)
    positive_threshold: Share = 0.7
    earliest: date = date(1990, 1, 1)
    future_hours: Annotated[float, Field(ge=0)] = 24.0
    max_age_days: Annotated[float, Field(gt=0)] | None = None
    volume: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=1)]] = (0.5, 3.0)
    pseudonyms: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> ValidationSettings:
        if unknown := sorted(set(self.kind_shares) - set(KINDS)):
            raise ValueError(f"kind_shares names {unknown[0]!r}; known kinds: {', '.join(KINDS)}")
        for name, (low, high) in {
            **self.kind_shares,
            "sentiment_balance": self.sentiment_balance,
        }.items():
            if low > high:
                raise ValueError(f"{name}: the lower bound {low} lies above the upper bound {high}")
        return self


@dataclass(frozen=True)
class Check:
    """One rule on one table.

    Attributes:
        rule: its name within the table; about: what should hold, as a sentence.
        observed: what was found instead, or instead of rows (a mean, a count, a type).
        unexpected, rows: how many rows break the rule, of how many that it looks at; None for a
            rule on a whole column.
        samples: up to five values that break it, shortened; users are pseudonyms, free text is
            never shown.
    """

    table: str
    rule: str
    about: str
    severity: Severity
    passed: bool
    observed: str | None = None
    unexpected: int | None = None
    rows: int | None = None
    samples: tuple[str, ...] = ()
    expectation: str | None = None

    def __str__(self) -> str:
        found = self.found
        return f"{self.table}: {self.about}" + (f"; {found}" if found else "")

    @property
    def found(self) -> str:
        if self.unexpected is not None and self.rows:
            if not self.unexpected:
                return f"all {self.rows:,} rows"
            share = self.unexpected / self.rows
            text = f"{self.unexpected:,} of {self.rows:,} rows ({share:.2%}) break it"
            return text + (f", such as {', '.join(self.samples)}" if self.samples else "")
        return f"found {self.observed}" if self.observed is not None else ""


@dataclass(frozen=True)
class ValidationResult:
    passed: bool
    reason: str
    errors: int
    warnings: int


def validate(
    dataset: Path,
    settings: ValidationSettings,
    out: Path,
    previous: Path | None = None,
    data: DataSettings | None = None,
) -> ValidationResult:
    """Check a data set directory and write validation.json into `out`.

    Args:
        previous: a validation.json, or its "stats" alone, of the last accepted data set; where
            there is no such file yet, volume is not compared.
        data: the engine on which Great Expectations checks the events; the findings are the same.

    Returns:
        passed is False when any error was found; bad data never raises.
    """
    stats: dict[str, Any] = {}
    try:
        out.mkdir(parents=True, exist_ok=True)
        data = data or DataSettings()
        with data.work(out) as work:
            checks = _check(dataset, settings, previous, stats, data, work)
    # a check that cannot run is a failed check, whatever the data did to it
    except Exception as error:
        log.exception("validation of %s could not be completed", dataset)
        about, found = "the data can be checked", f"{type(error).__name__}: {error}"[:300]
        checks = [Check("data set", "checkable", about, "error", False, found)]
    failed = {
        severity: [c for c in checks if not c.passed and c.severity == severity]
        for severity in _LEVELS
    }
    errors, warnings = len(failed["error"]), len(failed["warning"])
    counts = f"{_plural(errors, 'error')}, {_plural(warnings, 'warning')} in {_plural(len(checks), 'check')}"
    reason = ". ".join([counts, *(str(check) for check in failed["error"] or failed["warning"])])
    result = ValidationResult(not errors, reason, errors, warnings)
    record = {
        "schema": 1,
        **asdict(result),
        "checks": [{**asdict(check), "found": check.found} for check in checks],
        "stats": stats,
        "settings": settings.model_dump(mode="json"),
    }
    write_json(out / "validation.json", record)
    if result.passed:
        log.info("data accepted: %s", reason)
    else:
        log.error("data refused: %s", reason)
    return result


def _check(
    dataset: Path,
    settings: ValidationSettings,
    previous: Path | None,
    stats: dict[str, Any],
    data: DataSettings,
    work: Path,
) -> list[Check]:
    """Of Spark, the events stay there; all other tables are small, and checked here."""
    import polars as pl

    checks: list[Check] = []
    before = _previous(previous, checks)
    frames: dict[str, pl.DataFrame | pl.LazyFrame] = {}
    for name in _SCHEMAS:
        path = dataset / f"{name}.parquet"
        if name == "reviews" and not path.exists():
            if before.get("reviews"):
                about = f"reviews are there, as the {before['reviews']:,} of the last accepted data set were"
                checks.append(Check(name, "present", about, "error", False, "no reviews"))
            continue
        try:
            frame = (
                scan(path) if data.engine == "spark" and name == "events" else read_parquet(path)
            )
            empty = frame.lazy().head(1).collect().is_empty()
        except (TasteloopError, pl.exceptions.PolarsError, OSError) as error:
            checks.append(
                Check(name, "readable", "the table can be read", "error", False, str(error)[:300])
            )
            continue
        if empty:
            checks.append(
                Check(name, "rows", "the table has rows", "error", False, "an empty table")
            )
        else:
            frames[name] = frame

    context = _context()
    sound: dict[str, Any] = {}
    for name, frame in frames.items():
        columns = frame.collect_schema().names()
        if isinstance(frame, pl.DataFrame):
            found = _run(context, f"{name} contract", _pandas(frame), _contract(name, columns))
        else:
            from tasteloop.behaviour import spark

            on_spark = spark.events(dataset / f"{name}.parquet", data, work)
            found = _run(
                context, f"{name} contract", on_spark, _contract(name, columns, _SPARK_TYPES)
            )
        found = [replace(check, table=name) for check in found]
        checks += found
        if all(check.passed or check.severity == "warning" for check in found):
            sound[name] = frame
    stats |= _stats(sound)
    rules: list[tuple[str, Any, Iterator[Expectation]]] = []
    if "events" in sound:
        items = sound.get("items")
        if isinstance(sound["events"], pl.DataFrame):
            seen = _pandas(_events(sound["events"], items, settings))
        else:
            seen = _events_on_spark(on_spark, items, settings, data, work)
        rules.append(("events", seen, _events_rules(settings, before, items is not None)))
    if "items" in sound:
        unlabelled = (
            pl.when(pl.col(it.LABELS).list.len() == 0).then(pl.col(it.ITEM)).alias(_UNLABELLED)
        )
        labelled = bool(stats["labels"])
        checks += _labels_present(labelled, before)
        items = _pandas(sound["items"].with_columns(unlabelled))
        rules.append(("items", items, _items_rules(settings, before, labelled)))
        if labelled:
            rules.append(
                ("labels", _pandas(_labels(sound["items"], settings)), _label_rules(settings))
            )
    if "reviews" in sound:
        rules.append(("reviews", _pandas(sound["reviews"]), _reviews_rules(settings, before)))
    if (record := _ingest(dataset, checks)) is not None:
        for column, values in _source(record, settings).items():
            rules.append(
                ("ingest", _pandas(pl.DataFrame({column: values})), _ingest_rules(settings, column))
            )
    for name, table, expectations in rules:
        checks += _run(context, name, table, expectations)
    return checks


# --- the tables as the rules see them


def _events(
    events: pl.DataFrame, items: pl.DataFrame | None, settings: ValidationSettings
) -> pl.DataFrame:
    import polars as pl

    wanted = nw.from_native(events).with_columns(
        ev.positive(settings.positive_threshold).alias(_POSITIVE)
    )
    frame = wanted.to_native().with_columns(
        pl.col(_POSITIVE).cast(pl.Float64),
        *[
            (pl.col(ev.KIND) == kind).cast(pl.Float64).alias(_IS + kind)
            for kind in settings.kind_shares
        ],
    )
    if items is not None:
        listed = pl.col(ev.ITEM).is_in(items[it.ITEM].implode())
        frame = frame.with_columns(pl.when(~listed).then(pl.col(ev.ITEM)).alias(_UNLISTED))
    return frame


def _events_on_spark(
    events: Any,
    items: pl.DataFrame | None,
    settings: ValidationSettings,
    data: DataSettings,
    work: Path,
) -> Any:
    """`_events` of a Spark frame."""
    from tasteloop.behaviour import spark

    if items is not None:
        events = spark.with_unlisted(events, items[it.ITEM], _UNLISTED, data, work)
    wanted = ev.positive(settings.positive_threshold).cast(nw.Float64()).alias(_POSITIVE)
    shares = [
        (nw.col(ev.KIND) == kind).cast(nw.Float64()).alias(_IS + kind)
        for kind in settings.kind_shares
    ]
    return nw.from_native(events).with_columns(wanted, *shares).to_native().persist()


def _labels(items: pl.DataFrame, settings: ValidationSettings) -> pl.DataFrame:
    """One row for each label of an item, and the label again where a model could learn to tell it
    apart.
    """
    import polars as pl

    long = items.select(it.ITEM, pl.col(it.LABELS).alias(_LABEL)).explode(_LABEL)
    carried = long.drop_nulls(_LABEL).unique().group_by(_LABEL).len("items")
    enough, all_items = pl.col("items") >= settings.min_label_items, items[it.ITEM].n_unique()
    learnable = carried.filter(enough & (pl.col("items") < all_items))[_LABEL]
    if not carried.is_empty():
        long = long.drop_nulls(_LABEL)
    return long.with_columns(
        pl.when(pl.col(_LABEL).is_in(learnable.implode())).then(pl.col(_LABEL)).alias(_LEARNABLE)
    )


def _labels_present(labelled: bool, before: Mapping[str, int]) -> list[Check]:
    """A catalogue without any label is data without interests; one that has lost its labels is an
    error.
    """
    if labelled:
        return []
    if before.get("labels"):
        about = f"items carry labels, as those of the last accepted data set did ({before['labels']:,} labels)"
        return [Check("items", "labels present", about, "error", False, "no labels")]
    about = "items carry labels; without any the model has no interests"
    return [Check("items", "labels present", about, "warning", False, "no labels")]


def _ingest(dataset: Path, checks: list[Check]) -> Mapping[str, Any] | None:
    """What ingest says that it read and removed."""
    about = "ingest.json says what ingest read and removed"
    try:
        record = read_json(dataset / "ingest.json")
        rows_in, rows_out = (finite(record.get(key)) for key in ("rows_in", "rows_out"))
    except (TasteloopError, AttributeError) as error:
        checks.append(Check("ingest", "record", about, "warning", False, str(error)[:300]))
        return None
    if not rows_in or rows_out is None:
        checks.append(
            Check(
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


def _source(record: Mapping[str, Any], settings: ValidationSettings) -> dict[str, list[Any]]:
    """What the rules look at, from ingest's record of the source; what it does not say is left
    out.
    """
    table: dict[str, list[Any]] = {_REJECTED: [1 - record["rows_out"] / record["rows_in"]]}
    unlisted = as_mapping(record.get("unlisted"))  # null where the source has no catalogue
    lacking, named = (finite(unlisted.get(key)) for key in ("events", "of"))
    if lacking is not None and named:
        table[_UNCATALOGUED] = [lacking / named]
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
        table[_LOST] = [*_lost(kinds, settings.max_lost)] or [_NONE]
    if "null_words" in record:
        words = {
            column: as_mapping(counts)
            for column, counts in as_mapping(record["null_words"]).items()
        }
        table[_NULL_WORDS] = [
            f"{column} {word!r} ({_plural(int(finite(rows) or 0), 'row')})"
            for column, counts in words.items()
            for word, rows in counts.items()
        ] or [_NONE]
    return table


def _lost(kinds: Mapping[str, Mapping[str, Any]], most: float) -> Iterator[str]:
    """The kinds of which one rule removed more than this share."""
    for kind, counts in kinds.items():
        rows = finite(counts.get("rows"))
        for rule, number in as_mapping(counts.get("removed")).items():
            removed = finite(number)
            if rows and removed and removed > most * rows:
                yield f"{kind}: {rule} removed {removed:,.0f} of {rows:,.0f} rows ({removed / rows:.0%})"


def _previous(path: Path | None, checks: list[Check]) -> dict[str, int]:
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
        checks.append(Check("data set", "previous", about, "warning", False, str(error)[:300]))
        return {}


def _stats(frames: Mapping[str, Any]) -> dict[str, Any]:
    """What the next data set is compared with; null where a table could not be used."""
    events, items, reviews = (frames.get(name) for name in _SCHEMAS)
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


# --- the suites

_ROWS, _DISTINCT = "ExpectTableRowCountToBeBetween", "ExpectColumnUniqueValueCountToBeBetween"
_MAX, _MEAN, _SUM = (
    "ExpectColumnMaxToBeBetween",
    "ExpectColumnMeanToBeBetween",
    "ExpectColumnSumToBeBetween",
)
_TYPE, _COLUMNS = "ExpectColumnValuesToBeOfType", "ExpectTableColumnsToMatchSet"
_PRESENT, _NULL = "ExpectColumnValuesToNotBeNull", "ExpectColumnValuesToBeNull"
_BETWEEN, _IN, _REGEX = (
    "ExpectColumnValuesToBeBetween",
    "ExpectColumnValuesToBeInSet",
    "ExpectColumnValuesToMatchRegex",
)
_NAMES = "ExpectColumnDistinctValuesToBeInSet"
_UNIQUE, _UNIQUE_ROWS = "ExpectColumnValuesToBeUnique", "ExpectCompoundColumnsToBeUnique"


def _expect(
    rule: str, about: str, kind: str, severity: Severity = "error", **bounds: Any
) -> Expectation:
    """An expectation that carries its rule's name and meaning; bounds are its own arguments."""
    from great_expectations import expectations
    from great_expectations.expectations.metadata_types import FailureSeverity

    level = FailureSeverity.CRITICAL if severity == "error" else FailureSeverity.WARNING
    made: Expectation = getattr(expectations, kind)(
        meta={"rule": rule, "about": about}, severity=level, **bounds
    )
    return made


def _mostly(rule: str, about: str, kind: str, most: float, **bounds: Any) -> Iterator[Expectation]:
    """A rule at two levels: a warning from the first row that breaks it, an error above the share
    `most`.
    """
    yield _expect(
        rule,
        f"{about}, at least {1 - most:.4%} of them".replace(".0000%", "%"),
        kind,
        mostly=1 - most,
        **bounds,
    )
    yield _expect(rule, about, kind, "warning", **bounds)


def _contract(
    name: str, columns: Sequence[str], types: Mapping[str, str] | None = None
) -> Iterator[Expectation]:
    """Columns, types and nulls from the schema; of a column that is missing only that is said.

    Args:
        types: what an engine other than pandas calls them.
    """
    wanted = list(_SCHEMAS[name])
    about = f"there are the columns {', '.join(wanted)}"
    yield _expect("columns", about, _COLUMNS, column_set=wanted, exact_match=False)
    for column, dtype in _SCHEMAS[name].items():
        if column in columns:
            kind = _TYPES[dtype]
            known = types[kind] if types else kind
            yield _expect(
                f"{column} type", f"{column} is {kind}", _TYPE, column=column, type_=known
            )
    for column in _REQUIRED[name]:
        if column in columns:
            yield _expect(f"{column} present", f"every row has {column}", _PRESENT, column=column)


def _events_rules(
    s: ValidationSettings, before: Mapping[str, int], listed: bool
) -> Iterator[Expectation]:
    from great_expectations.expectations.row_conditions import Column

    now = datetime.now(UTC)
    first = ev.microseconds(datetime(s.earliest.year, s.earliest.month, s.earliest.day, tzinfo=UTC))
    last = ev.microseconds(now + timedelta(hours=s.future_hours))
    rate = Column(ev.KIND).is_in(words_needing("value"))
    search = Column(ev.KIND).is_in(words_needing("text"))
    yield _expect(
        "enough events", f"at least {s.min_events:,} events", _ROWS, min_value=s.min_events
    )
    about = f"at least {s.min_users:,} users"
    yield _expect("enough users", about, _DISTINCT, column=ev.USER, min_value=s.min_users)
    about = f"at least {s.min_positive_events:,} events say that a user wants an item"
    yield _expect(
        "enough positives", about, _SUM, column=_POSITIVE, min_value=s.min_positive_events
    )
    about = f"kind is one of {', '.join(KINDS)}"
    yield _expect("kind known", about, _IN, column=ev.KIND, value_set=list(KINDS))
    about = f"time lies after {s.earliest} and not in the future"
    yield _expect("time possible", about, _BETWEEN, column=ev.TIME, min_value=first, max_value=last)
    about = "value lies in [0, 1]"
    yield _expect("value range", about, _BETWEEN, column=ev.VALUE, min_value=0.0, max_value=1.0)
    about, whole = "no event stands there twice", list(ev.EVENTS_SCHEMA)
    columns = {"column_list": whole, "ignore_row_if": "never"}
    yield from _mostly("no duplicates", about, _UNIQUE_ROWS, s.max_duplicates, **columns)
    about = "ratings have a value"
    yield from _mostly(about, about, _PRESENT, s.max_valueless, column=ev.VALUE, row_condition=rate)
    about = "searches have a text"
    yield _expect(about, about, _PRESENT, "warning", column=ev.TEXT, row_condition=search)
    if s.pseudonyms:
        about = "users are pseudonyms, 32 hexadecimal digits as ingest makes them"
        yield _expect("pseudonyms", about, _REGEX, column=ev.USER, regex=PSEUDONYM)
    if listed:
        about = "events name only items of the catalogue"
        yield from _mostly("items listed", about, _NULL, s.max_unlisted, column=_UNLISTED)
    for kind, (low, high) in s.kind_shares.items():
        about = f"the share of {kind} events lies in [{low:g}, {high:g}]"
        yield _expect(
            f"share of {kind}", about, _MEAN, column=_IS + kind, min_value=low, max_value=high
        )
    if s.max_age_days is not None:
        about = f"the newest event is at most {s.max_age_days:g} days old"
        oldest = ev.microseconds(now - timedelta(days=s.max_age_days))
        yield _expect("fresh", about, _MAX, column=ev.TIME, min_value=oldest)
    yield from _volume("events", s, before, _ROWS)
    yield from _volume("users", s, before, _DISTINCT, column=ev.USER)


def _items_rules(
    s: ValidationSettings, before: Mapping[str, int], labelled: bool
) -> Iterator[Expectation]:
    yield _expect("enough items", f"at least {s.min_items:,} items", _ROWS, min_value=s.min_items)
    yield _expect("item unique", "an item is listed once", _UNIQUE, column=it.ITEM)
    yield _expect("item not blank", "item ids are not blank", _REGEX, column=it.ITEM, regex=r"\S")
    yield from _mostly("titled", "items have a title", _PRESENT, s.max_untitled, column=it.TITLE)
    blank = {"column": it.TITLE, "regex": r"\S"}
    yield from _mostly("title not blank", "titles are not blank", _REGEX, s.max_untitled, **blank)
    if labelled:
        yield from _mostly(
            "labelled", "items carry a label", _NULL, s.max_unlabelled, column=_UNLABELLED
        )
    yield from _volume("items", s, before, _ROWS)


def _label_rules(s: ValidationSettings) -> Iterator[Expectation]:
    yield _expect("label not blank", "labels are not blank", _REGEX, column=_LABEL, regex=r"\S")
    about = "an item carries a label once"
    yield _expect("label once", about, _UNIQUE_ROWS, "warning", column_list=[it.ITEM, _LABEL])
    about = f"at least {s.min_labels} labels are carried by {s.min_label_items} or more items and not by all"
    yield _expect("enough labels", about, _DISTINCT, column=_LEARNABLE, min_value=s.min_labels)


def _reviews_rules(s: ValidationSettings, before: Mapping[str, int]) -> Iterator[Expectation]:
    low, high = s.sentiment_balance
    yield _expect(
        "enough reviews", f"at least {s.min_reviews:,} reviews", _ROWS, min_value=s.min_reviews
    )
    yield _expect("review unique", "a review id stands there once", _UNIQUE, column=it.REVIEW)
    yield _expect("text not blank", "texts are not blank", _REGEX, column=it.TEXT, regex=r"\S")
    yield _expect("text unique", "a text stands there once", _UNIQUE, "warning", column=it.TEXT)
    yield _expect(
        "sentiment known", "sentiment is 0 or 1", _IN, column=it.SENTIMENT, value_set=[0, 1]
    )
    about = f"the share of positive reviews lies in [{low:g}, {high:g}]"
    yield _expect("balance", about, _MEAN, column=it.SENTIMENT, min_value=low, max_value=high)
    yield from _volume("reviews", s, before, _ROWS)


def _ingest_rules(s: ValidationSettings, column: str) -> Iterator[Expectation]:
    """The rules of one column of `_source`."""
    if column == _REJECTED:
        most, about = s.max_rejected, "ingest removed at most {:g} of the rows that it read"
        yield _expect("few rejected", about.format(most), _MAX, column=column, max_value=most)
        yield _expect(
            "few rejected",
            about.format(most / 5),
            _MAX,
            "warning",
            column=column,
            max_value=most / 5,
        )
    elif column == _UNCATALOGUED:
        most, about = (
            s.max_uncatalogued,
            "at most {:g} of the events name an item that the source's catalogue lacks",
        )
        yield _expect("items catalogued", about.format(most), _MAX, column=column, max_value=most)
        yield _expect(
            "items catalogued",
            about.format(most / 10),
            _MAX,
            "warning",
            column=column,
            max_value=most / 10,
        )
    elif column == _LOST:
        about = f"no rule of the cleaning removed more than {s.max_lost:g} of a kind's rows"
        yield _expect("kinds kept", about, _NAMES, "warning", column=column, value_set=[_NONE])
    else:
        about = "no id is a word that programs write for a missing value"
        yield _expect("no null words", about, _NAMES, "warning", column=column, value_set=[_NONE])


def _volume(
    what: str, s: ValidationSettings, before: Mapping[str, int], kind: str, **where: Any
) -> Iterator[Expectation]:
    """Against the last accepted data set: too few is an error, too many a warning."""
    if count := before.get(what):
        low, high = s.volume
        then = f"of the {count:,} {what} of the last accepted data set"
        least, most = math.ceil(low * count), math.floor(high * count)
        yield _expect(f"{what} kept", f"at least {low:g} {then}", kind, min_value=least, **where)
        yield _expect(
            f"{what} grown",
            f"at most {high:g} times {then[3:]}",
            kind,
            "warning",
            max_value=most,
            **where,
        )


# --- running Great Expectations


def _context() -> AbstractDataContext:
    """An in-memory GX context that sends nothing and draws nothing."""
    logging.getLogger("great_expectations").setLevel(logging.WARNING)  # it narrates its own start
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context


def _pandas(frame: pl.DataFrame) -> pd.DataFrame:
    """The frame as GX can check it.

    pandas has one missing value where Polars has null and NaN, and GX passes missing values in
    ranges: NaN
        becomes infinite first, so that a range refuses it. Integers stay integers beside nulls,
        lists become Python lists.
    """
    import pandas as pd
    import polars as pl
    from polars import selectors as cs

    whole = frame.with_columns(cs.float().fill_nan(float("inf")))
    made = whole.to_pandas()
    for name, dtype in frame.schema.items():
        if dtype.is_integer() and frame[name].null_count():
            values = frame[name]
            made[name] = (
                pd.Series(values.fill_null(0).to_numpy())
                .astype(str(dtype))
                .mask(values.is_null().to_numpy())
            )
        elif dtype == pl.List(pl.String):
            made[name] = pd.Series(frame[name].to_list(), dtype=object)
    return made


def _run(
    context: AbstractDataContext, name: str, frame: Any, made: Iterable[Expectation]
) -> list[Check]:
    """Check a table of pandas or Spark; results come in the order of the rules, the two levels of a
    rule as one.
    """
    import pandas as pd
    from great_expectations.core.expectation_suite import ExpectationSuite

    expectations = list(made)
    if isinstance(frame, pd.DataFrame):
        batch = context.data_sources.pandas_default.read_dataframe(frame)
    else:
        asset = context.data_sources.add_or_update_spark("spark").add_dataframe_asset(name)
        batch = asset.add_batch_definition_whole_dataframe(name).get_batch({"dataframe": frame})
    result = batch.validate(
        ExpectationSuite(name=name, expectations=expectations),
        result_format={"result_format": "SUMMARY", "partial_unexpected_count": SAMPLES},
    )
    found: dict[str, Check] = {
        expectation.meta["rule"]: _NOT_RUN for expectation in expectations if expectation.meta
    }
    for one in result.results:  # in GX's order, which is not the suite's
        check = _outcome(name, one.to_json_dict())
        if _weight(check) >= _weight(found[check.rule]):
            found[check.rule] = check
    return [
        check if check is not _NOT_RUN else replace(check, table=name, rule=rule)
        for rule, check in found.items()
    ]


_NOT_RUN = Check(
    "", "", "the rule was checked", "error", False, "no result from Great Expectations"
)


def _weight(check: Check) -> int:
    """Of a rule's levels the one that tells most: a failed error, then a failed warning, then what
    passed.
    """
    if check is _NOT_RUN:
        return -1
    return (2 if check.severity == "error" else 1) if not check.passed else 0


def _outcome(name: str, result: Mapping[str, Any]) -> Check:
    config, found = result["expectation_config"], result["result"]
    meta, column = config["meta"], config["kwargs"].get("column")
    check = Check(
        table=name,
        rule=meta["rule"],
        about=meta["about"],
        severity="error" if config["severity"] == "critical" else "warning",
        passed=bool(result["success"]),
        expectation=config["type"],
    )
    if raised := _raised(result.get("exception_info") or {}):
        return replace(check, passed=False, observed=f"a check that could not run: {raised[:200]}")
    if "element_count" in found:
        samples = dict.fromkeys(
            _shown(column, value) for value in found.get("partial_unexpected_list") or ()
        )
        return replace(
            check,
            unexpected=found["unexpected_count"],
            rows=found["element_count"],
            samples=tuple(sample for sample in samples if sample != _NOTHING),
        )
    observed = found.get("observed_value")
    # of a rule on the distinct values of a column
    if names := found.get("partial_unexpected_list"):
        more = found["unexpected_count"] - len(names)
        observed = ", ".join(map(str, names)) + (f" and {more:,} more" if more else "")
    if column == ev.TIME and isinstance(observed, int):
        observed = _day(observed)
    if isinstance(observed, float):
        observed = f"{observed:.4g}"
    if isinstance(observed, list):  # columns
        missing = found.get("details", {}).get("mismatched", {}).get("missing")
        observed = f"no {', '.join(missing)}" if missing else None if check.passed else observed
    if observed is None:
        observed = "all" if check.passed else "nothing"
    return replace(check, observed=str(observed)) if found else check


def _raised(info: Mapping[str, Any]) -> str | None:
    """GX reports an exception either flat or under the id of the metric that raised it."""
    for one in (info, *info.values()):
        if isinstance(one, Mapping) and one.get("raised_exception"):
            return str(one.get("exception_message") or "unknown error")
    return None


def _shown(column: str | None, value: Any) -> str:
    """A value that breaks a rule, for people: short, no free text, no raw user id."""
    import re

    if isinstance(value, Mapping):
        return " ".join(
            _shown(key, entry)
            for key, entry in value.items()
            if entry is not None and key != ev.TEXT
        )
    if column == ev.USER and not (isinstance(value, str) and re.match(PSEUDONYM, value)):
        return "(hidden)" if value is not None else _NOTHING
    if column == ev.TIME and isinstance(value, int):
        return _day(value)
    if column in (ev.TEXT, it.REVIEW) and isinstance(value, str) and value.strip():
        return f"(a text of {len(value):,} characters)" if column == ev.TEXT else value[:40]
    if value is None:
        return _NOTHING
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _day(micros: int) -> str:
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
    except OverflowError:
        return f"{micros} µs"
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
