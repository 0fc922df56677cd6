"""Cleaning and snapshots on Spark: the rules of `tasteloop.behaviour.cleaning` as Spark's own
expressions, and the very function of `tasteloop.behaviour.snapshots`, a part of the users in a
task.

The driver reads the source in a stream and replaces users by pseudonyms first: no worker ever has a
raw id or the key. Driver and workers meet in a folder that both see. What the driver then writes is
what Polars writes, byte for byte.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import narwhals as nw
import polars as pl

from tasteloop.behaviour.cleaning import ROW, CleaningSettings, accepted, enough, judge, rejected
from tasteloop.behaviour.events import EVENTS_SCHEMA, ITEM, TIME, USER
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.partitions import DataSettings
from tasteloop.behaviour.snapshots import TABLE, PrepareSettings, Windows
from tasteloop.behaviour.snapshots import take as _take
from tasteloop.errors import TasteloopError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_BEGIN = "begin"  # the position of a user's first event in the table of all users
_LISTED = "listed"
_TYPES = {
    pl.String(): "string",
    pl.Int64(): "long",
    pl.Int32(): "int",
    pl.List(pl.Int32()): "array<int>",
}
_SCHEMA = ", ".join(f"{name} {_TYPES[dtype]}" for name, dtype in TABLE.items())


def session(data: DataSettings) -> SparkSession:
    """The session that the settings name, made on first use; it ends with the process.

    Raises:
        TasteloopError: no pyspark, no Java, or no answer from the address.
    """
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise TasteloopError(
            f"data.engine is spark, but {error.name or 'pyspark'} is not installed; pip install 'tasteloop[spark]'"
        ) from error
    if data.remote:
        _answering(data.remote)
    # of the workers; python3 where nothing says so
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("tasteloop")
    if data.remote:
        builder = builder.remote(data.remote)
    elif data.master:
        builder = builder.master(data.master)
    for name, value in {
        # an impossible time overflows a difference that no rule looks at
        "spark.sql.ansi.enabled": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.ui.showConsoleProgress": "false",
        **data.options,
    }.items():
        builder = builder.config(name, value)
    try:
        return builder.getOrCreate()
    except (PySparkException, RuntimeError, OSError) as error:
        where = data.remote or data.master or "the default address"
        raise TasteloopError(
            f"no Spark session at {where}: {str(error).partition(chr(10))[0]}; check data.master or data.remote, "
            "and that Java 17 or later is installed"
        ) from error


def _answering(remote: str) -> None:
    """Raise where nobody listens: pyspark would try for ten minutes."""
    at = urlsplit(remote)
    try:
        socket.create_connection((at.hostname or "", at.port or 15002), 10).close()
    except OSError as error:
        raise TasteloopError(
            f"no Spark Connect server at {remote} ({error}); check data.remote"
        ) from error


def clean(
    rows: pl.LazyFrame,
    height: int,
    scale: tuple[float, float],
    settings: CleaningSettings,
    data: DataSettings,
    work: Path,
) -> tuple[Iterator[pl.DataFrame], Iterator[pl.DataFrame]]:
    """As `tasteloop.behaviour.partitions.clean`."""
    spark = session(data)
    rows.sink_parquet(work / "rows.parquet", engine="streaming")
    spark.conf.set("spark.sql.shuffle.partitions", str(_parts(height, data)))
    source = nw.from_native(_read(spark, work / "rows.parquet"))
    (judged,) = enough([judge(source, scale, settings)], settings, _persist)
    _write(accepted(judged, scale).to_native().sort(TIME, ROW), work / "accepted")
    _write(rejected(judged).to_native().sort(ROW), work / "rejected")
    judged.to_native().unpersist()
    return _pieces(work / "accepted"), _pieces(work / "rejected")


def take(
    rows: pl.LazyFrame,
    height: int,
    catalogue: Catalogue,
    settings: PrepareSettings,
    windows: Windows,
    data: DataSettings,
    work: Path,
) -> tuple[Iterator[pl.DataFrame], Iterator[pl.DataFrame]]:
    """The events by user and time, and their snapshots."""
    spark = session(data)
    rows.with_row_index(ROW).with_columns(pl.col(ROW).cast(pl.Int64)).sink_parquet(
        work / "rows.parquet", engine="streaming"
    )
    events = _read(spark, work / "rows.parquet")
    users = pl.DataFrame(pl.from_arrow(events.groupBy(USER).count().toArrow())).sort(USER)
    users.select(USER, (pl.col("count").cum_sum() - pl.col("count")).alias(_BEGIN)).write_parquet(
        work / "users.parquet"
    )
    with_begin = events.join(_read(spark, work / "users.parquet"), USER)
    ordered = (
        with_begin.repartitionByRange(_parts(height, data), USER)
        .sortWithinPartitions(USER, TIME, ROW)
        .persist()
    )

    def snapshots(batches: Iterator[Any]) -> Iterator[Any]:
        import pyarrow as pa

        partition = list(batches)
        if not partition:
            return
        table = pl.DataFrame(pl.from_arrow(pa.Table.from_batches(partition)))
        snapshots_of_part = _take(table, int(table[_BEGIN][0]), catalogue, settings, windows)
        types = {
            "string": pa.string(),
            "long": pa.int64(),
            "int": pa.int32(),
            "array<int>": pa.list_(pa.int32()),
        }
        schema = pa.schema(
            [
                (name, types[kind])
                for name, kind in (column.split() for column in _SCHEMA.split(", "))
            ]
        )
        yield from (
            snapshots_of_part.to_arrow(compat_level=pl.CompatLevel.oldest())
            .cast(schema)
            .to_batches()
        )

    _write(ordered.select(*EVENTS_SCHEMA), work / "events")
    _write(ordered.mapInArrow(snapshots, _SCHEMA), work / "snapshots")
    ordered.unpersist()
    return _pieces(work / "events"), _pieces(work / "snapshots")


def events(path: Path, data: DataSettings, work: Path) -> DataFrame:
    """The events of a data set."""
    if data.shared:
        path = shutil.copyfile(path, work / path.name)
    return _read(session(data), path.absolute()).persist()


def with_unlisted(
    events: DataFrame, items: pl.Series, name: str, data: DataSettings, work: Path
) -> DataFrame:
    """With a column `name`: an event's item where it is none of `items`."""
    from pyspark.sql import functions

    pl.DataFrame({ITEM: items.unique(), _LISTED: True}).write_parquet(work / "listed.parquet")
    joined = events.join(_read(session(data), work / "listed.parquet"), ITEM, "left")
    unlisted = functions.when(functions.col(_LISTED).isNull(), functions.col(ITEM))
    return joined.withColumn(name, unlisted).drop(_LISTED)


def _parts(height: int, data: DataSettings) -> int:
    return max(-(-height // data.rows_a_part), 1)


def _persist(frame: nw.LazyFrame[Any], part: int) -> nw.LazyFrame[Any]:
    persisted: nw.LazyFrame[Any] = nw.from_native(frame.to_native().persist())
    return persisted


def _read(spark: SparkSession, path: Path) -> DataFrame:
    return spark.read.parquet(path.as_uri())


def _write(frame: DataFrame, path: Path) -> None:
    frame.write.parquet(path.as_uri())


def _pieces(folder: Path) -> Iterator[pl.DataFrame]:
    """The rows that Spark wrote to a folder, a file at a time, in the order of its partitions."""
    for path in sorted(folder.glob("part-*.parquet")):
        yield pl.read_parquet(path, hive_partitioning=False, glob=False)
