"""Columns as they were written, and how ids, times, numbers and texts are read out of them, for
every reader alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import polars as pl

from tasteloop.behaviour.cleaning import ROW, TIME_WRITTEN, VALUE_WRITTEN
from tasteloop.behaviour.events import ITEM, KIND, TEXT, TIME, USER, VALUE
from tasteloop.behaviour.items import DOMAIN, ITEMS_SCHEMA, LABELS, RELEASED, SENTIMENT, TITLE
from tasteloop.behaviour.times import (
    ISO,
    PER_UNIT,
    SECOND,
    UNIT_NAMES,
    Unit,
    in_words,
    likely_range,
)
from tasteloop.datasets.tables import collect, whole_table
from tasteloop.errors import TasteloopError

TimeUnit = Literal["iso", "s", "ms", "us", "ns"]

Times = Literal["given", "order", "none"]
"""What tells when a row happened: its own time, its place in the file, or nothing."""

# Rows without times get times that are made up, in the order of the file: from 2000 on, and far
# enough from each other that no row is taken for a repetition of the one before.
FIRST_MADE_UP, BETWEEN_ROWS = 946_684_800 * SECOND, 2 * SECOND

_SAMPLE = 1_000  # rows that say in which unit all times are: a file is written by one program

Table = TypeVar("Table", pl.DataFrame, pl.LazyFrame)


@dataclass(frozen=True)
class Behaviour:
    """A source before cleaning.

    Attributes:
        rows: what `tasteloop.behaviour.cleaning.clean` takes, read when it is asked for; users are
            still raw ids.
        items: the items table, or None where the source has none.
        scale: the lowest and the highest value.
        truth: tables beside the data set, by path, that only a synthetic source has; a column USER
            in them holds raw ids too.
        hidden: users are pseudonyms already, and stay what they are.
        times: whether the times are the source's own.
        path: the file that the rows are in, where they are in one.
    """

    rows: pl.LazyFrame
    items: pl.DataFrame | None
    scale: tuple[float, float]
    terms: str
    truth: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    hidden: bool = False
    times: Times = "given"
    path: Path | None = None

    @property
    def events(self) -> pl.DataFrame:
        """All rows in memory."""
        return collect(self.rows, self.path)


# what a column may hold


def _is_text(dtype: pl.DataType) -> bool:
    return dtype in (pl.String, pl.Categorical, pl.Enum, pl.Binary, pl.Null)


def _is_number(dtype: pl.DataType) -> bool:
    return dtype.is_numeric()  # decimals too


def _is_boolean(dtype: pl.DataType) -> bool:
    return dtype == pl.Boolean


def _is_moment(dtype: pl.DataType) -> bool:
    return dtype in (pl.Datetime, pl.Date)


def _is_list(dtype: pl.DataType) -> bool:
    return isinstance(dtype, pl.List | pl.Array) and (
        _is_text(_inner(dtype)) or _is_number(_inner(dtype))
    )


def _inner(dtype: pl.List | pl.Array) -> pl.DataType:
    inner = dtype.inner
    return inner if isinstance(inner, pl.DataType) else inner()


_ALLOWED = {
    USER: ("text or whole numbers", (_is_text, _is_number)),
    ITEM: ("text or whole numbers", (_is_text, _is_number)),
    KIND: ("text, whole numbers or booleans", (_is_text, _is_number, _is_boolean)),
    TIME: ("dates, dates with a time, numbers or text", (_is_text, _is_number, _is_moment)),
    VALUE: ("numbers, or text that is one", (_is_text, _is_number)),
    TEXT: ("text or numbers", (_is_text, _is_number)),
    TITLE: ("text or numbers", (_is_text, _is_number)),
    LABELS: ("text, or a list of texts", (_is_text, _is_number, _is_list)),
    DOMAIN: ("text", (_is_text, _is_number)),
    RELEASED: ("dates, text or years", (_is_text, _is_number, _is_moment)),
    SENTIMENT: ("text, numbers or booleans", (_is_text, _is_number, _is_boolean)),
}
"""By our name of a column, what it may hold in words and as types."""


def check_types(table: pl.DataFrame | pl.LazyFrame, path: Path) -> None:
    """Raise TasteloopError where a column of `scan_table` holds what cannot be read as what it
    is.
    """
    schema = table.collect_schema()
    for name, dtype in schema.items():
        if name in _ALLOWED and not any(holds(dtype) for holds in _ALLOWED[name][1]):
            raise TasteloopError(
                f"{path}: the column for {name} holds {dtype}, not single values of a type that can be read; allowed: "
                f"{_ALLOWED[name][0]}"
            )
    for name in (name for name in schema if schema[name] == pl.Binary):
        with whole_table(path):
            try:
                table.lazy().select(pl.col(name).cast(pl.String).str.len_bytes().sum()).collect(
                    engine="streaming"
                )
            except pl.exceptions.ComputeError as error:
                if "utf" not in str(error):
                    raise
                raise TasteloopError(
                    f"{path}: the column for {name} holds Binary that is not UTF-8 text; write it as text"
                ) from None


def as_events(
    table: Table,
    path: Path,
    *,
    kind: str | None = None,
    kinds: Mapping[str, str] | None = None,
    unit: TimeUnit = "iso",
    zone: str = "UTC",
    times: Times = "given",
) -> Table:
    """The frame that cleaning takes, from the columns of `read_table` or `scan_table`.

    Args:
        path: what errors call the table.
        kind: of every row, where the table has no kind column.
        kinds: their word -> our kind; other words stay as they are.
        unit: of numeric times; "iso" reads ISO 8601 text.
        zone: IANA name of the zone in which times that name none were written.
        times: where they are not "given", the table has no TIME, and each row gets one that is made
            up from its place in the file.

    Raises:
        TasteloopError: a column holds what cannot be read, or the times are of another unit.
    """
    check_types(table, path)
    schema = table.collect_schema()
    if times == "given":
        check_unit(table, path, unit)
        time, time_written = (
            read_times(pl.col(TIME), schema[TIME], unit, zone),
            read_text(pl.col(TIME)),
        )
    else:
        time = FIRST_MADE_UP + pl.col(ROW) * BETWEEN_ROWS
        time_written = pl.col(ROW).cast(pl.String)
    number = read_value(schema)
    words = pl.lit(kind) if kind is not None else read_ids(KIND, schema)
    return table.select(
        ROW,
        *(read_ids(c, schema).alias(c) for c in (USER, ITEM)),
        (words.replace(dict(kinds)) if kinds else words).alias(KIND),
        read_text(pl.col(TEXT)) if TEXT in schema else pl.lit(None, pl.String).alias(TEXT),
        time.alias(TIME),
        pl.when(number.is_finite()).then(number).alias(VALUE),
        time_written.alias(TIME_WRITTEN),
        (read_text(pl.col(VALUE)) if VALUE in schema else pl.lit(None, pl.String)).alias(
            VALUE_WRITTEN
        ),
    )


def as_items(
    table: pl.DataFrame, path: Path, *, separator: str = "|", domain: str | None = None
) -> pl.DataFrame:
    """The items table from the columns of `read_table`: ITEM and any of the others.

    Labels are a list or text split at `separator`; `released` is a date, an ISO date or a year. A
    missing title is the id. Of rows with the same id the first counts; rows without an id do not.

    Raises:
        TasteloopError: a column of `path` holds what cannot be read.
    """
    check_types(table, path)
    schema = table.schema
    none = pl.lit(None, pl.String)

    def text(column: str) -> pl.Expr:
        return read_text(pl.col(column)) if column in schema else none.alias(column)

    if LABELS not in schema:
        labels = pl.lit([], pl.List(pl.String))
    elif _is_list(schema[LABELS]):
        labels = pl.col(LABELS).cast(pl.List(pl.String))
    else:
        labels = pl.col(LABELS).cast(pl.String).str.split(separator)
    labels = labels.list.eval(read_text(pl.element()).drop_nulls()).list.unique(maintain_order=True)
    written = text(RELEASED).str.replace(r"^(\d{4})(\.0)?$", "$1-01-01").str.head(10)
    return (
        table.select(
            read_ids(ITEM, schema),
            pl.coalesce(text(TITLE), read_ids(ITEM, schema)).alias(TITLE),
            labels.fill_null([]).alias(LABELS),
            text(TEXT),
            pl.coalesce(text(DOMAIN), pl.lit(domain, pl.String)).alias(DOMAIN),
            written.str.to_date("%Y-%m-%d", strict=False).alias(RELEASED),
        )
        .filter(pl.col(ITEM).is_not_null())
        .unique(ITEM, keep="first", maintain_order=True)
        .cast(ITEMS_SCHEMA.to_polars())
    )


def read_text(column: pl.Expr) -> pl.Expr:
    """As stripped text; blank is null, and so is what is no UTF-8."""
    stripped = column.cast(pl.String, strict=False).str.strip_chars()
    return pl.when(stripped != "").then(stripped)


# How programs write whole numbers that they keep as floats, because some are missing: 114.0, 1e+16.
_WHOLE, _LARGE = r"^(-?[0-9]+)\.0+$", r"^(-?[0-9](?:\.[0-9]+)?e\+[0-9]{2})$"


def _without_fractions(ids: pl.Series) -> pl.Series:
    """Text ids with `_WHOLE` and `_LARGE` as integers; nearly always there are none, and to see
    that is quick.
    """
    if not ids.str.contains(f"{_WHOLE}|{_LARGE}").any():
        return ids
    large = (
        ids.str.extract(_LARGE)
        .cast(pl.Float64, strict=False)
        .cast(pl.Int128, strict=False)
        .cast(pl.String)
    )
    return (
        ids.to_frame()
        .select(pl.coalesce(pl.first().str.extract(_WHOLE), large, pl.first()))
        .to_series()
    )


def read_ids(name: str, schema: Mapping[str, pl.DataType]) -> pl.Expr:
    """Ids as text; a whole number is the same id whether it was kept as an integer, a float or text
    of either.
    """
    if name not in schema:
        return pl.lit(None, pl.String).alias(name)
    column = pl.col(name)
    if schema[name].is_integer():
        return column.cast(pl.String)
    if schema[name].is_float():
        is_whole = (column == column.round()) & (column.abs() < 1e38)
        number = pl.when(is_whole).then(column).cast(pl.Int128, strict=False).cast(pl.String)
        return pl.coalesce(number, pl.when(column.is_not_nan()).then(column).cast(pl.String)).alias(
            name
        )
    return (
        read_text(column)
        .map_batches(_without_fractions, return_dtype=pl.String, is_elementwise=True)
        .alias(name)
    )


def read_value(schema: Mapping[str, pl.DataType]) -> pl.Expr:
    """Values as float64; null where there is no number."""
    if VALUE not in schema:
        return pl.lit(None, pl.Float64).alias(VALUE)
    # of a float32 its text says what was meant
    exact = schema[VALUE].is_integer() or schema[VALUE] == pl.Float64
    return (pl.col(VALUE) if exact else read_text(pl.col(VALUE))).cast(pl.Float64, strict=False)


def check_unit(table: pl.DataFrame | pl.LazyFrame, path: Path, unit: TimeUnit) -> None:
    """Raise TasteloopError where the first times are mostly numbers of another unit than is
    said.
    """
    dtype = table.collect_schema()[TIME]
    if _is_moment(dtype):
        return
    with whole_table(path):
        sample = table.lazy().select(TIME).head(_SAMPLE).collect().to_series().drop_nulls()
    numbers = sample.cast(pl.String, strict=False).str.strip_chars().cast(pl.Float64, strict=False)
    for other in PER_UNIT:
        alike = numbers.filter(numbers.is_between(*likely_range(other), closed="left"))
        if other != unit and 2 * len(alike) > len(sample):
            unit_name = "ISO 8601" if unit == "iso" else UNIT_NAMES[unit]
            raise TasteloopError(
                f"{path}: the times are to be {unit_name}, and these look like {UNIT_NAMES[other]} ({alike[0]:.0f} "
                f"would be {in_words(alike[0], other)}); a mapping says so by `time: {{unit: {other}}}`, elsewhere "
                "convert them"
            )


def read_times(column: pl.Expr, dtype: pl.DataType, unit: TimeUnit, zone: str = "UTC") -> pl.Expr:
    """Times as int64 µs since 1970 UTC; null where they cannot be read or do not exist in their
    zone.

    Of the two moments that one local time means when clocks are set back, the earlier is taken.
    """
    if _is_moment(dtype):
        if getattr(dtype, "time_zone", None):
            return column.dt.timestamp("us")
        return _in_zone(column.cast(pl.Datetime("us")), zone)
    if unit == "iso":
        return _read_iso(read_text(column), zone)
    return _read_numbers(column if dtype.is_integer() else read_text(column), unit)


def _read_numbers(written: pl.Expr, unit: Unit) -> pl.Expr:
    times, per = PER_UNIT[unit]
    integer, number = written.cast(pl.Int64, strict=False), written.cast(pl.Float64, strict=False)
    near = number.is_finite() & (number.abs() < 2.0**62 / times)  # no overflow in what follows
    exact = pl.when(near).then(integer) * times // per
    rough = (pl.when(near).then(number) * times / per).round().cast(pl.Int64, strict=False)
    return pl.coalesce(exact, rough)


def _read_iso(written: pl.Expr, zone: str) -> pl.Expr:
    """As `tasteloop.behaviour.times.parse_iso`, in a zone."""
    parts = written.str.extract_groups(ISO).struct
    date, time = [
        [parts.field(name) for name in names] for names in (("year", "month", "day"), _CLOCK)
    ]
    offset, fraction = parts.field("offset"), parts.field("fraction")
    local = pl.concat_str(*date, *(part.fill_null("00") for part in time)).str.to_datetime(
        "%Y%m%d%H%M%S", time_unit="us", strict=False
    )
    micros = fraction.str.pad_end(6, "0").cast(pl.Int64, strict=False).fill_null(0)
    hours = offset.str.slice(1, 2).cast(pl.Int64, strict=False)
    minutes = (
        offset.str.slice(3).str.strip_chars_start(":").cast(pl.Int64, strict=False).fill_null(0)
    )
    ahead = (hours * 60 + minutes) * 60_000_000
    ahead = pl.when(offset.str.starts_with("-")).then(-ahead).otherwise(ahead).fill_null(0)
    return (
        pl.when(offset.is_null())
        .then(_in_zone(local, zone))
        .otherwise(local.dt.timestamp("us") - ahead)
        + micros
    )


_CLOCK = ("hour", "minute", "second")


def _in_zone(naive: pl.Expr, zone: str) -> pl.Expr:
    return naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.timestamp(
        "us"
    )
