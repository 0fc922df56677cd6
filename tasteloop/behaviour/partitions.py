"""Tables larger than memory: split into parts on disk, each with all rows of its users, worked on
part by part, and written in order.

A table of at most `rows_a_part` rows is one part and stays in memory. What is written does not
depend on how many parts there were, byte for byte.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import narwhals as nw
import polars as pl
from pydantic import BaseModel, Field

from tasteloop.behaviour import cleaning
from tasteloop.behaviour.cleaning import ROW, CleaningSettings, accepted, enough, judge, rejected
from tasteloop.behaviour.events import TIME, USER
from tasteloop.files import atomic_file, read_parquet
from tasteloop.process import shared_with_group

_GROUP = 1 << 17  # rows of a row group
_PART = "part"


class DataSettings(BaseModel, frozen=True, extra="forbid"):
    """What tables are worked on with, by the steps that go through all behaviour."""

    engine: Literal["polars", "spark"] = Field("polars", description="Both write the same bytes.")
    rows_a_part: int = Field(
        1_000_000, ge=1, description="Rows that are in memory at once, or in a task of Spark."
    )
    master: str | None = Field(
        None,
        pattern=r"^(spark|k8s|local)\b",
        description="spark://host:7077, local[2]; null: that of spark-submit, of spark-defaults.conf or SPARK_REMOTE",
    )
    remote: str | None = Field(
        None, pattern="^sc://", description="A Spark Connect server, sc://host:15002, instead."
    )
    options: dict[str, str] = Field({}, description="Further configuration of the Spark session.")
    shared: Path | None = Field(
        None,
        description="A folder that Spark's driver and workers both see, for what lies between; null: the output's.",
    )

    @contextmanager
    def work(self, output: Path) -> Iterator[Path]:
        """A folder for intermediate files, which is removed when the block ends."""
        if self.shared and self.engine == "spark":
            self.shared.mkdir(parents=True, exist_ok=True)
            with (
                TemporaryDirectory(prefix="tasteloop-", dir=self.shared) as name,
                shared_with_group(),
            ):
                Path(name).chmod(0o770)  # the workers may be of another user of the group
                yield Path(name).absolute()
            return
        folder = output.absolute() / "work"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


def write_rows(path: Path, frames: Iterable[pl.DataFrame], schema: pl.Schema) -> None:
    """One Parquet file of all frames, whatever the sizes in which they come."""
    import pyarrow.parquet as pq

    arrow = pl.DataFrame(schema=schema).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    with (
        atomic_file(path) as temporary,
        pq.ParquetWriter(temporary, arrow, compression="zstd") as writer,
    ):
        pending = pl.DataFrame(schema=schema)
        for frame in frames:
            pending = pl.concat([pending, frame.select(schema.names()).cast(schema)])
            full = pending.height - pending.height % _GROUP  # rows of full row groups
            for begin in range(0, full, _GROUP):
                writer.write_table(_arrow(pending[begin : begin + _GROUP]))
            pending = pending[full:].clone()
        if pending.height:
            writer.write_table(_arrow(pending))


def _arrow(frame: pl.DataFrame) -> Any:
    return frame.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()


def count(rows: pl.LazyFrame) -> int:
    return int(rows.select(pl.len()).collect(engine="streaming").item())


def scan(path: Path) -> pl.LazyFrame:
    """A table of ours, whose rows are read when they are needed.

    Raises:
        TasteloopError: no complete Parquet file.
    """
    read_parquet(path, 0)
    return pl.scan_parquet(path, hive_partitioning=False, glob=False)


def split(rows: pl.LazyFrame, key: pl.Expr, parts: int, folder: Path) -> list[pl.LazyFrame]:
    """Write each row to the part [0, parts) that `key` says, in a stream."""
    target = pl.PartitionBy(folder, key=key.cast(pl.Int64).alias(_PART), include_key=False)
    rows.sink_parquet(target, compression="lz4", statistics=False, mkdir=True, engine="streaming")
    schema = rows.collect_schema()
    directories = [folder / f"{_PART}={part}" for part in range(parts)]
    return [
        pl.scan_parquet(directory, hive_partitioning=False)
        if directory.is_dir()
        else pl.LazyFrame(schema=schema)
        for directory in directories
    ]


def clean(
    rows: pl.LazyFrame,
    height: int,
    scale: tuple[float, float],
    settings: CleaningSettings,
    data: DataSettings,
    work: Path,
) -> tuple[Iterator[pl.DataFrame], Iterator[pl.DataFrame]]:
    """`tasteloop.behaviour.cleaning.clean` piece by piece: what is accepted by time, and what is
    rejected by row.
    """
    parts = -(-height // data.rows_a_part)
    if parts <= 1:
        cleaned = cleaning.clean(nw.from_native(rows), scale, settings)
        return iter([cleaned.events.to_native()]), iter([cleaned.quarantine.to_native()])

    passes: dict[int, int] = {}

    def keep(frame: nw.LazyFrame[Any], part: int) -> nw.LazyFrame[Any]:
        passes[part] = passes.get(part, 0) + 1
        path = work / f"judged-{part}-{passes[part]}.parquet"
        frame.collect().to_native().write_parquet(path, compression="lz4", statistics=False)
        (work / f"judged-{part}-{passes[part] - 1}.parquet").unlink(missing_ok=True)
        return nw.from_native(pl.scan_parquet(path))

    users = split(rows, pl.col(USER).hash() % parts, parts, work / "users")
    judged_parts = enough(
        [judge(nw.from_native(part), scale, settings) for part in users], settings, keep
    )
    for n, part in enumerate(judged_parts):
        _sorted_part(
            accepted(part, scale).to_native(), [TIME, ROW], work / "accepted" / f"{n}.parquet"
        )
        _sorted_part(rejected(part).to_native(), [ROW], work / "rejected" / f"{n}.parquet")
    return (
        in_order(work / "accepted", [TIME, ROW], data.rows_a_part),
        in_order(work / "rejected", [ROW], data.rows_a_part),
    )


def _sorted_part(rows: pl.LazyFrame, order: list[str], path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    rows.collect().sort(order).write_parquet(path, compression="lz4", row_group_size=1 << 15)


def in_order(folder: Path, order: list[str], rows_a_piece: int) -> Iterator[pl.DataFrame]:
    """The rows of all files of a folder in order, about so many at a time; each file is sorted."""
    files = sorted(folder.glob("*.parquet"))
    rows, first = pl.scan_parquet(files, hive_partitioning=False), pl.col(order[0])
    pieces = -(-count(rows) // rows_a_piece)
    if pieces <= 1:
        yield rows.collect().sort(order)
        return
    # bounds of the pieces, by a sample of every file
    samples = [pl.scan_parquet(file).select(first.gather_every(64)).collect() for file in files]
    sample = pl.concat(samples).to_series().sort()
    between = sample.gather_every(-(-len(sample) // pieces))[1:].unique().sort()
    bounds = [None, *between, None]
    for low, high in zip(bounds[:-1], bounds[1:], strict=True):
        piece = rows if low is None else rows.filter(first >= low)
        if high is not None:
            piece = piece.filter(first < high)
        yield piece.collect().sort(order)
