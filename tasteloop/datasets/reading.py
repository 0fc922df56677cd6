"""Files as they were written: tables of strings, and how times and numbers are read out of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import polars as pl

from tasteloop.errors import TasteloopError
from tasteloop.events import (
    EVENTS_SCHEMA,
    ITEM,
    KIND,
    ROW,
    TEXT,
    TIME,
    TIME_WRITTEN,
    USER,
    VALUE,
    VALUE_WRITTEN,
)
from tasteloop.items import DOMAIN, ITEMS_SCHEMA, LABELS, RELEASED, TITLE
from tasteloop.redaction import column_names

TimeUnit = Literal["iso", "s", "ms", "us", "ns"]

# what Polars raises for a damaged file; it panics for some
UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, UnicodeError)

_SEPARATORS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class Behaviour:
    """A source before cleaning.

    Attributes:
        rows: what `tasteloop.events.clean` takes, read when it is asked for; users are still raw ids.
        items: the items table, or None where the source has none.
        scale: the lowest and the highest value.
        truth: tables beside the data set, by path, that only a synthetic source has; a column USER in them holds raw
            ids too.
        hidden: users are pseudonyms already, and stay what they are.
        path: the file that the rows are in, where they are in one.
    """

    rows: pl.LazyFrame
    items: pl.DataFrame | None
    scale: tuple[float, float]
    terms: str
    truth: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    hidden: bool = False
    path: Path | None = None

    @property
    def events(self) -> pl.DataFrame:
        """All rows in memory."""
        return collect(self.rows, self.path)


def read_table(
    path: Path, columns: Mapping[str, str], *, separator: str | None = None, quote: str | None = '"'
) -> pl.DataFrame:
    """`scan_table`, read."""
    return collect(scan_table(path, columns, separator=separator, quote=quote), path)


def scan_table(
    path: Path, columns: Mapping[str, str], *, separator: str | None = None, quote: str | None = '"'
) -> pl.LazyFrame:
    """Named columns of a CSV, TSV or Parquet file, read when they are asked for (under `whole_table`).

    Args:
        columns: our name -> the name in the file.
        separator: of a text file whose name does not end in .csv or .tsv (also .gz).

    Returns:
        Our names, CSV columns as str and Parquet columns as they are, and ROW from 1.

    Raises:
        TasteloopError: no such file, nothing in it, not of its format, or a column missing. The text shows
            names of columns, never rows.
    """
    if not path.is_file():
        raise TasteloopError(f"no file {path}; check the path")
    if path.stat().st_size == 0:
        raise TasteloopError(f"{path} is empty (0 bytes); export it again")
    ending = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    parquet, separator = path.suffix == ".parquet", separator or _SEPARATORS.get(ending, "")
    if not (parquet or separator):
        raise TasteloopError(f"{path} is of no known format; allowed: .csv, .tsv (also .gz), .parquet")
    with whole_table(path):
        if parquet:
            source = pl.scan_parquet(path, glob=False, hive_partitioning=False)
        else:
            source = pl.scan_csv(path, separator=separator, quote_char=quote, infer_schema=False, glob=False)
        names = source.collect_schema().names()
        there = [pl.col(theirs).alias(ours) for ours, theirs in columns.items() if theirs in names]
        frame = source.select(*there)
        some = not (frame.head(1).collect().is_empty() and frame.collect().is_empty())  # an open quote hides rows
    if absent := [theirs for theirs in columns.values() if theirs not in names]:
        raise TasteloopError(f"{path} has no column {', '.join(map(repr, absent))}; {column_names(names, 'it has: ')}")
    if not some:
        raise TasteloopError(f"{path} has columns and no rows; export it again")
    return frame.with_row_index(ROW, offset=1).with_columns(pl.col(ROW).cast(pl.Int64))


@contextmanager
def whole_table(path: Path | None) -> Iterator[None]:
    """Raise TasteloopError where a file that is read within the block turns out to be damaged."""
    try:
        yield
    except UNREADABLE:  # its text quotes rows, with raw ids in them
        if path is None:
            raise
        what = (
            "is not a whole Parquet file: it is truncated or something else under that name"
            if path.suffix == ".parquet"
            else "cannot be read as a table: a line has more fields than the header, a quote is not closed, "
            "or the text is not UTF-8"
        )
        raise TasteloopError(f"{path} ({path.stat().st_size} bytes) {what}; export it again") from None


def collect(rows: pl.LazyFrame, path: Path | None) -> pl.DataFrame:
    """All rows of a file in memory; TasteloopError where it is damaged."""
    with whole_table(path):
        return rows.collect()


Table = TypeVar("Table", pl.DataFrame, pl.LazyFrame)


def as_events(
    table: Table,
    path: Path,
    *,
    kind: str | None = None,
    kinds: Mapping[str, str] | None = None,
    unit: TimeUnit = "iso",
    zone: str = "UTC",
) -> Table:
    """The frame that cleaning takes, from the columns of `read_table` or `scan_table`.

    Args:
        path: what errors call the table.
        kind: of every row, where the table has no kind column.
        kinds: their word -> our kind; other words stay as they are.
        unit: of numeric times; "iso" reads ISO 8601 text.
        zone: IANA name of the zone in which times that name none were written.
    """
    schema = table.collect_schema()
    written = [column for column in EVENTS_SCHEMA if column in schema]
    if nested := [c for c in written if schema[c].is_nested() or schema[c] == pl.Binary]:
        raise TasteloopError(f"{path}: the column for {nested[0]} holds {schema[nested[0]]}, not single values")
    exact = VALUE in schema and (schema[VALUE].is_integer() or schema[VALUE] == pl.Float64)  # text says the same of it
    number = (pl.col(VALUE) if exact else _text(pl.col(VALUE))) if VALUE in schema else pl.lit(None)
    number = number.cast(pl.Float64, strict=False)
    words = pl.lit(kind) if kind is not None else _text(pl.col(KIND)) if KIND in schema else pl.lit(None, pl.String)
    return table.select(
        ROW,
        *(_text(pl.col(c)) if c in schema else pl.lit(None, pl.String).alias(c) for c in (USER, ITEM)),
        (words.replace(dict(kinds)) if kinds else words).alias(KIND),
        _text(pl.col(TEXT)) if TEXT in schema else pl.lit(None, pl.String).alias(TEXT),
        _microseconds(pl.col(TIME), schema[TIME], unit, zone).alias(TIME),
        pl.when(number.is_finite()).then(number).alias(VALUE),
        _text(pl.col(TIME)).alias(TIME_WRITTEN),
        (_text(pl.col(VALUE)) if VALUE in schema else pl.lit(None, pl.String)).alias(VALUE_WRITTEN),
    )


def as_items(table: pl.DataFrame, *, separator: str = "|", domain: str | None = None) -> pl.DataFrame:
    """The items table from the columns of `read_table`: ITEM and any of the others.

    Labels are a list or text split at `separator`; `released` is a date, an ISO date or a year. A missing
    title is the id. Of rows with the same id the first counts; rows without an id do not.
    """
    has = table.columns
    none = pl.lit(None, pl.String)

    def text(column: str) -> pl.Expr:
        return _text(pl.col(column)) if column in has else none.alias(column)

    if LABELS not in has:
        labels = pl.lit([], pl.List(pl.String))
    elif isinstance(table.schema[LABELS], pl.List):
        labels = pl.col(LABELS).cast(pl.List(pl.String))
    else:
        labels = pl.col(LABELS).cast(pl.String).str.split(separator)
    labels = labels.list.eval(_text(pl.element()).drop_nulls()).list.unique(maintain_order=True)
    written = text(RELEASED).str.replace(r"^(\d{4})$", "$1-01-01").str.head(10)
    return (
        table.select(
            text(ITEM),
            pl.coalesce(text(TITLE), text(ITEM)).alias(TITLE),
            labels.fill_null([]).alias(LABELS),
            text(TEXT),
            pl.coalesce(text(DOMAIN), pl.lit(domain, pl.String)).alias(DOMAIN),
            written.str.to_date("%Y-%m-%d", strict=False).alias(RELEASED),
        )
        .filter(pl.col(ITEM).is_not_null())
        .unique(ITEM, keep="first", maintain_order=True)
        .cast(ITEMS_SCHEMA.to_polars())
    )


def _text(column: pl.Expr) -> pl.Expr:
    """As stripped text; blank is null."""
    stripped = column.cast(pl.String).str.strip_chars()
    return pl.when(stripped != "").then(stripped)


# unit: (factor, divisor) that make µs of it
_PER_UNIT = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}
_ISO = r"^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(:\d{2}(?:\.\d{1,9})?)?)?\s?(Z|[+-]\d{2}(?::?\d{2})?)?$"


def _microseconds(column: pl.Expr, dtype: pl.DataType, unit: TimeUnit, zone: str) -> pl.Expr:
    """Times as int64 µs since 1970 UTC; null where they cannot be read or do not exist in their zone.

    Of the two moments that one local time means when clocks are set back, the earlier is taken.
    """
    if dtype in (pl.Datetime, pl.Date):
        if getattr(dtype, "time_zone", None):
            return column.dt.convert_time_zone("UTC").dt.timestamp("us")
        return _in_zone(column.cast(pl.Datetime("us")), zone)
    written = column if dtype.is_integer() and unit != "iso" else _text(column)
    if unit != "iso":
        times, per = _PER_UNIT[unit]
        whole, number = written.cast(pl.Int64, strict=False), written.cast(pl.Float64, strict=False)
        near = number.is_finite() & (number.abs() < 2.0**62 / times)  # no overflow in what follows
        exact = pl.when(near).then(whole) * times // per
        rough = (pl.when(near).then(number) * times / per).round().cast(pl.Int64, strict=False)
        return pl.coalesce(exact, rough)
    parts = [written.str.extract(_ISO, group) for group in (1, 2, 3, 4)]
    day, minute, second, offset = parts
    local = pl.concat_str(day, pl.lit("T"), minute.fill_null("00:00"), second.fill_null(":00")).str.to_datetime(
        "%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False
    )
    digits = offset.str.replace(":", "")
    hours, minutes = digits.str.slice(1, 2).cast(pl.Int64, strict=False), digits.str.slice(3, 2)
    ahead = hours * 3600 + minutes.cast(pl.Int64, strict=False).fill_null(0) * 60
    ahead = pl.when(offset.str.starts_with("-")).then(-ahead).otherwise(ahead).fill_null(0) * 1_000_000
    return pl.when(offset.is_null()).then(_in_zone(local, zone)).otherwise(local.dt.timestamp("us") - ahead)


def _in_zone(naive: pl.Expr, zone: str) -> pl.Expr:
    return naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.timestamp("us")
