"""Tables as they came: CSV, TSV, Parquet, or a directory of Parquet files, opened or refused with
the true reason.

No message shows a row, because a row holds raw user ids: a fault is told by its line, its column or
its byte.
"""

from __future__ import annotations

import codecs
import csv
import errno
import gzip
import io
import os
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from zoneinfo import available_timezones

import narwhals as nw
import polars as pl

from tasteloop.behaviour.cleaning import ROW
from tasteloop.decompression import most_bytes, read_bounded, too_large
from tasteloop.errors import TasteloopError
from tasteloop.redaction import column_names

# What Polars raises for a damaged file, and Narwhals in its place. For some it panics, which is no
# Exception.
UNREADABLE = (
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
    nw.exceptions.NarwhalsError,
    OSError,
    UnicodeError,
)

# A zone that Polars does not know, such as +05:30, is a panic otherwise: see `_with_known_zone`.
os.environ.setdefault("POLARS_IGNORE_TIMEZONE_PARSE_ERROR", "1")

FORMATS = ".csv, .tsv (also .gz), .parquet"
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_GZIP = b"\x1f\x8b"
_OTHERS = {  # what Polars would decompress, and what looks like text to it and is none
    b"\x28\xb5\x2f\xfd": "compressed with zstd; decompress it, or compress it with gzip",
    b"\x78\x01": "compressed with zlib; decompress it, or compress it with gzip",
    b"\x78\x9c": "compressed with zlib; decompress it, or compress it with gzip",
    b"\x78\xda": "compressed with zlib; decompress it, or compress it with gzip",
    b"PK\x03\x04": "a zip archive, perhaps a spreadsheet; export it as CSV",
    b"PAR1": "a Parquet file; name it .parquet",
    codecs.BOM_UTF32_LE: "UTF-32 text; convert it: iconv -f UTF-32 -t UTF-8",
    codecs.BOM_UTF16_LE: "UTF-16 text; convert it: iconv -f UTF-16 -t UTF-8",
    codecs.BOM_UTF16_BE: "UTF-16 text; convert it: iconv -f UTF-16 -t UTF-8",
}
_LINE = 1 << 20  # the longest header
# of a Parquet file: more is one row over and over; users and times take a byte a row at the least
_ROWS_A_BYTE = 10
_FREE_ROWS = 1 << 22


def read_table(
    path: Path,
    columns: Mapping[str, str],
    optional: Mapping[str, str] | None = None,
    *,
    separator: str | None = None,
    quote: str | None = '"',
) -> pl.DataFrame:
    """`scan_table`, read."""
    return collect(scan_table(path, columns, optional, separator=separator, quote=quote), path)


def scan_table(
    path: Path,
    columns: Mapping[str, str],
    optional: Mapping[str, str] | None = None,
    *,
    separator: str | None = None,
    quote: str | None = '"',
    empty: bool = False,
    parquet: bool = False,
) -> pl.LazyFrame:
    """Named columns of a table, read when they are asked for (under `whole_table`).

    Args:
        path: a file, or a directory of Parquet files as Spark writes it.
        columns: our name -> the name in the file; `optional`: the same of columns that may be
            absent.
        separator: of a text file whose name does not end in .csv or .tsv (also .gz).
        empty: a table without rows is one too.
        parquet: it is Parquet, whatever its name ends in.

    Returns:
        Our names, CSV columns as str and Parquet columns as they are, and ROW from 1.

    Raises:
        TasteloopError: no such file, nothing in it, not of its format, or a column missing or
            repeated.
    """
    separator = separator or _separator(path)
    wanted_names = {*columns.values(), *(optional or {}).values()}
    source = _scan(path, wanted_names, separator, quote, parquet)
    with whole_table(path, separator, quote):
        schema = source.collect_schema()
    names = schema.names()
    if absent := [theirs for theirs in columns.values() if theirs not in names]:
        raise TasteloopError(f"{path} has no column {', '.join(map(repr, absent))}; {_has(names)}")
    wanted = {
        **columns,
        **{ours: theirs for ours, theirs in (optional or {}).items() if theirs in names},
    }
    frame = source.select(
        _with_known_zone(theirs, schema[theirs]).alias(ours) for ours, theirs in wanted.items()
    )
    with whole_table(path, separator, quote):
        # an open quote hides the first row and all that follow
        if not empty and frame.head(1).collect().is_empty() and frame.collect().is_empty():
            raise TasteloopError(f"{path} has columns and no rows; export it again")
    return frame.with_row_index(ROW, offset=1).with_columns(pl.col(ROW).cast(pl.Int64))


def header(path: Path, *, separator: str | None = None, quote: str | None = '"') -> list[str]:
    """The names of a table's columns, read under the guards of `scan_table`.

    Raises:
        TasteloopError: no such file, nothing in it, too much in it, or not of its format.
    """
    separator = separator or _separator(path)
    with whole_table(path, separator, quote):
        return _scan(path, set(), separator, quote, False).collect_schema().names()


def _separator(path: Path) -> str | None:
    """What separates the columns of a text file, by the end of its name."""
    return _SEPARATORS.get(Path(path.name.lower().removesuffix(".gz")).suffix)


def _scan(
    path: Path, wanted: set[str], separator: str | None, quote: str | None, parquet: bool
) -> pl.LazyFrame:
    """A table with its own names, once it is known that it can be read; none of the `wanted` names
    may be there twice.
    """
    if not path.exists():
        raise TasteloopError(f"no file {path}; check the path")
    if parquet or path.name.lower().endswith(".parquet"):
        return _scan_parquet(path)
    if path.is_dir():
        raise TasteloopError(
            f"{path} is a directory; one of Parquet files, named .parquet, is read, and no other"
        )
    if separator is None:
        raise TasteloopError(f"{path} is of no known format; allowed: {FORMATS}")
    return _scan_text(path, separator, quote, wanted)


def _with_known_zone(column: str, dtype: pl.DataType) -> pl.Expr:
    """The column; of a zone that Polars does not know, such as +05:30, the same moments in UTC."""
    if isinstance(dtype, pl.Datetime) and dtype.time_zone not in (None, *available_timezones()):
        return pl.col(column).cast(pl.Datetime(dtype.time_unit, "UTC"))
    return pl.col(column)


def _has(names: list[str]) -> str:
    if any(";" in name for name in names):
        return "its first line is no header, or it is separated by ';': separate by ',' (.csv) or tabs (.tsv)"
    return column_names(names, "it has: ")


@contextmanager
def whole_table(
    path: Path | None, separator: str | None = None, quote: str | None = '"'
) -> Iterator[None]:
    """Raise TasteloopError where a table that is read within the block turns out to be damaged."""
    try:
        yield
    except UNREADABLE as error:
        full = isinstance(error, OSError) and error.errno in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EMFILE,
            errno.ENOMEM,
        )
        if path is None or full:  # then it is not the table that is at fault
            raise
        # its text quotes rows
        raise TasteloopError(_fault(path, separator, quote, error)) from None


def collect(rows: pl.LazyFrame, path: Path | None) -> pl.DataFrame:
    """All rows of a table in memory; TasteloopError where it is damaged."""
    with whole_table(path):
        return rows.collect()


def files_of(path: Path) -> list[Path]:
    """The file, or the data files of a directory as Spark writes it; what begins with `_` or `.` is
    none of them.
    """
    if not path.is_dir():
        return [path]
    below = (
        file
        for file in sorted(path.rglob("*"))
        if file.name.lower().endswith(".parquet") and file.is_file()
    )
    return [
        file for file in below if not any(part[0] in "_." for part in file.relative_to(path).parts)
    ]


# Parquet


def _scan_parquet(path: Path) -> pl.LazyFrame:
    files = files_of(path)
    if not files:
        raise TasteloopError(f"{path} is a directory without a .parquet file in it; check the path")
    for file in files:
        _check_parquet(file)
    parents = {
        part for file in files for part in file.relative_to(path).parent.parts if path.is_dir()
    }
    # of Spark's `partitionBy`
    partitions = sorted({part.partition("=")[0] for part in parents if "=" in part})
    return pl.scan_parquet(
        files,
        glob=False,
        hive_partitioning=bool(partitions),
        hive_schema=dict.fromkeys(partitions, pl.String) if partitions else None,
    )


def _check_parquet(path: Path) -> None:
    """What Polars would not say, or only after the memory is gone."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_file(path)
    _refuse_empty(path)
    try:
        with pq.ParquetFile(path) as file:
            meta = file.metadata
            names, rows = file.schema_arrow.names, meta.num_rows
            held = sum(meta.row_group(n).total_byte_size for n in range(meta.num_row_groups))
    except (pa.ArrowException, OSError, UnicodeError, ValueError) as error:
        raise TasteloopError(_fault(path, None, None, error)) from None
    size = path.stat().st_size
    if rows > max(_FREE_ROWS, _ROWS_A_BYTE * size):
        raise TasteloopError(
            f"{path} ({size:,} bytes) claims {rows:,} rows, more than {_ROWS_A_BYTE} a byte: a decompression bomb, or "
            "damaged; export it again"
        )
    if held > most_bytes(size):
        raise too_large(str(path), size)
    _refuse_repeated(path, names, set(names))


def _refuse_repeated(path: Path, names: list[str], wanted: set[str]) -> None:
    if repeated := [name for name, count in Counter(names).items() if count > 1 and name in wanted]:
        raise TasteloopError(
            f"{path} has the column {', '.join(map(repr, repeated))} more than once; rename or remove all but one"
        )


# text


def _scan_text(path: Path, separator: str, quote: str | None, wanted: set[str]) -> pl.LazyFrame:
    check_file(path)
    _refuse_empty(path)
    with path.open("rb") as stream:
        head = stream.read(4)
    if head.startswith(_GZIP):
        _check_gzip(path)
        with gzip.open(path) as packed:
            head = packed.read(4)
    if other := next((what for magic, what in _OTHERS.items() if head.startswith(magic)), None):
        raise TasteloopError(f"{path} is {other}")
    if b"\0" in head:
        raise TasteloopError(
            f"{path} is no UTF-8 text; if it is UTF-16, convert it: iconv -f UTF-16LE -t UTF-8"
        )
    _refuse_repeated(path, _header(path, separator, quote), wanted)
    return pl.scan_csv(path, separator=separator, quote_char=quote, infer_schema=False, glob=False)


def check_file(path: Path) -> None:
    """Raise TasteloopError for what cannot be read as a file: a pipe, for one, would be waited for
    for ever.
    """
    if not path.is_file():
        raise TasteloopError(f"{path} is no regular file; check the path")
    if not os.access(path, os.R_OK):
        raise TasteloopError(f"{path} may not be read by this user; change its permissions")


def _refuse_empty(path: Path) -> None:
    if path.stat().st_size == 0:
        raise TasteloopError(f"{path} is empty (0 bytes); export it again")


def _check_gzip(path: Path) -> None:
    """Read it through once: whether all members are whole, and how much there is in them."""
    packed, size = path.stat().st_size, 0
    try:
        with gzip.open(path) as stream:
            for piece in read_bounded(stream, packed, str(path)):
                size += len(piece)
    except EOFError:
        raise TasteloopError(
            f"{path} ({packed:,} bytes) is cut short: its gzip data end after {size:,} bytes of text, before their own "
            "end; copy or export it again"
        ) from None
    except (OSError, zlib.error) as error:
        what = (
            "is followed by something else" if "Not a gzipped file" in str(error) else "is damaged"
        )
        raise TasteloopError(
            f"{path} ({packed:,} bytes): its gzip data {what}; export it again"
        ) from None
    if size == 0:
        raise TasteloopError(f"{path} is empty (0 bytes) once it is decompressed; export it again")


def _open_text(path: Path) -> IO[bytes]:
    with path.open("rb") as stream:
        packed = stream.read(2) == _GZIP
    return gzip.open(path) if packed else path.open("rb")  # type: ignore[return-value]


def _records(stream: IO[bytes], separator: str, quote: str | None) -> Any:
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
    lines = iter(lambda: text.readline(_LINE), "")
    if quote is None:
        return csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_NONE, strict=True)
    return csv.reader(lines, delimiter=separator, quotechar=quote, strict=True)


def _header(path: Path, separator: str, quote: str | None) -> list[str]:
    with _open_text(path) as stream:
        try:
            return next(_records(stream, separator, quote), [])
        except csv.Error:  # reading says what is wrong with it
            return []


# why a table cannot be read; asked only once it could not


def _fault(path: Path, separator: str | None, quote: str | None, error: BaseException) -> str:
    try:
        if path.is_dir() and isinstance(error, pl.exceptions.PolarsError):
            return f"{path}: its files do not all have the same columns of the same types; write them again together"
        if path.is_file():
            with path.open("rb") as stream:
                head = stream.read(4)
            if separator is None and (path.name.lower().endswith(".parquet") or head == b"PAR1"):
                return (
                    f"{path} ({path.stat().st_size} bytes) {_parquet_fault(path)}; export it again"
                )
            separator = separator or _SEPARATORS.get(
                Path(path.name.lower().removesuffix(".gz")).suffix, "\t"
            )
            fault = _text_fault(path, separator, quote)
            return f"{path} ({path.stat().st_size} bytes) cannot be read as a table: {fault}"
    except (OSError, EOFError, zlib.error, UnicodeError) as other:
        return f"{path} cannot be read: {type(other).__name__}; check the file and its permissions"
    return f"{path} cannot be read; check the file and its permissions"


def _parquet_fault(path: Path) -> str:
    with path.open("rb") as stream:
        head = stream.read(4)
        stream.seek(-min(4, path.stat().st_size), os.SEEK_END)
        tail = stream.read(4)
    if head == b"PARE" or tail == b"PARE":
        return "is encrypted Parquet, which is not read; decrypt it, or"
    if not b"PAR1".startswith(head[:4]):
        return "is not a whole Parquet file: it is something else under that name"
    if tail != b"PAR1" or path.stat().st_size < 12:
        return "is not a whole Parquet file: it is truncated, its end is missing"
    return "is not a whole Parquet file: both its ends are there, and what lies between is damaged"


def _text_fault(path: Path, separator: str, quote: str | None) -> str:
    if (fault := _encoding_fault(path)) is not None:
        return fault
    with _open_text(path) as stream:
        records = _records(stream, separator, quote)
        width = 0
        try:
            width = len(next(records, []))
            for record in records:
                if len(record) > width:
                    return (
                        f"a line has more fields than the header: {len(record)}, not {width}, in line "
                        f"{records.line_num}; quote what holds a separator, or export it again"
                    )
        except csv.Error as error:
            if "end of data" in str(error) or "field larger" in str(error):
                return f"a quote is not closed, up to line {records.line_num}; export it again"
            return f"a quote stands within a field, in line {records.line_num}; double it, or export it again"
    return "no line of it is at fault alone; export it again"


def _encoding_fault(path: Path) -> str | None:
    decoder, line, last = codecs.getincrementaldecoder("utf-8")(), 1, False
    with _open_text(path) as stream:
        while not last:
            piece = stream.read(1 << 20)
            last = not piece
            try:
                decoder.decode(piece, last)
            except UnicodeDecodeError as error:
                if last:
                    return "it is truncated: it ends within a character; copy or export it again"
                line += error.object[: error.start].count(b"\n")
                return (
                    f"line {line} is not UTF-8 (byte 0x{error.object[error.start]:02x}); if it is Latin-1 or Windows' "
                    "own, convert it: iconv -f WINDOWS-1252 -t UTF-8"
                )
            line += piece.count(b"\n")
    return None
