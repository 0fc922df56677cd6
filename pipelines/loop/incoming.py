"""Behaviour as it comes: Parquet files that a program writes, read by the events contract."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.loop.contracts import Incoming, Source
from tasteloop.behaviour.events import EVENTS_SCHEMA, ITEM, KIND, TEXT, TIME, USER
from tasteloop.behaviour.items import ITEMS_SCHEMA
from tasteloop.behaviour.kinds import words_that_are_no_acts
from tasteloop.behaviour.times import PER_UNIT, likely_range
from tasteloop.errors import TasteloopError

if TYPE_CHECKING:
    import polars as pl

CATALOGUE_FILE = "items.parquet"  # in a directory of events: today's catalogue

log = logging.getLogger(__name__)


def source_of_files(path: Path) -> Source:
    """The source that reads a Parquet file, or all of a directory; `items.parquet` in it is the
    catalogue.

    Write files under another name and rename them: one that ends in .parquet is taken to be
    complete.
    """

    def read(since: int) -> Incoming:
        import polars as pl

        from tasteloop.datasets.reading import as_items
        from tasteloop.datasets.tables import read_table

        files = [path] if path.is_file() else event_files(path)
        tables = [pl.DataFrame(schema=EVENTS_SCHEMA.to_polars())]
        tables += [_read_events(file, since) for file in files]
        items = None
        catalogue = path / CATALOGUE_FILE
        if catalogue.is_file():
            columns = {column: column for column in ITEMS_SCHEMA}
            items = as_items(read_table(catalogue, columns), catalogue)
        return Incoming(pl.concat(tables), items)

    return read


def event_files(directory: Path) -> list[Path]:
    """The files and directories of events, each a table of its own."""
    if not directory.is_dir():
        return []
    tables = [path for path in sorted(directory.iterdir()) if path.suffix.lower() == ".parquet"]
    return [path for path in tables if path.name != CATALOGUE_FILE and path.name[0] not in "._"]


def scan_events(path: Path) -> pl.LazyFrame:
    """The contract's columns; one that is missing is empty, and the window's checks say so.

    Raises:
        TasteloopError: user, kind or time is missing, or a column holds what cannot be read. Times
            are dates with a time of any unit and zone, or microseconds. Text is refused: a program
            writes these files, by the contract.
    """
    import polars as pl

    from tasteloop.datasets.reading import check_types, check_unit, read_ids, read_times, read_value
    from tasteloop.datasets.tables import scan_table

    # 1. the columns and their types
    needed = {column: column for column in (USER, KIND, TIME)}
    optional = {column: column for column in EVENTS_SCHEMA if column not in needed}
    table = scan_table(path, needed, optional, empty=True, parquet=True)
    check_types(table, path)
    schema = table.collect_schema()
    dtype = schema[TIME]
    if not (dtype.is_temporal() or dtype.is_numeric() or dtype == pl.Null):
        raise TasteloopError(
            f"{path}: the column for time holds {dtype}; allowed: dates with a time of any unit and zone, or integers "
            "of microseconds since 1970 UTC (docs/data.md)"
        )
    check_unit(table, path, "us")

    # 2. times in microseconds; one that is likely to be of another unit is not read
    micros = read_times(pl.col(TIME), dtype, "us")
    of_another_unit = pl.any_horizontal(
        micros.is_between(*likely_range(unit), closed="left") for unit in PER_UNIT if unit != "us"
    )
    return table.select(
        read_ids(USER, schema),
        read_ids(ITEM, schema),
        read_ids(KIND, schema),
        pl.when(~of_another_unit).then(micros).alias(TIME),
        read_value(schema).cast(pl.Float32),
        (pl.col(TEXT) if TEXT in schema else pl.lit(None)).cast(pl.String).alias(TEXT),
    )


def _read_events(path: Path, since: int) -> pl.DataFrame:
    """The events of one file from a time on (µs); rows without a user or a time are left out."""
    import polars as pl

    from tasteloop.datasets.tables import collect

    rows = collect(scan_events(path), path)
    complete = rows.filter(pl.col(USER).is_not_null() & pl.col(TIME).is_not_null())
    lost = rows.height - complete.height
    if lost:
        log.warning(
            "%s: %d of %d rows have no user or no readable time: passed over",
            path,
            lost,
            rows.height,
        )
    # what was merely shown is in no history, and so in no reference
    is_act = ~pl.col(KIND).is_in(words_that_are_no_acts()).fill_null(False)
    return complete.filter((pl.col(TIME) >= since) & is_act)
