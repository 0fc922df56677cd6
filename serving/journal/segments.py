"""The journal's files: which segments there are, which were merged, and which are damaged.

    <directory>/<day of writing, UTC>/answers-<writer>-<first>-<last>.parquet
                                      feedback-<writer>-<first>-<last>.parquet
                                      failures-<writer>-<first>-<last>.parquet

A segment is complete when it appears: it is written under a temporary name, flushed to the disk and
renamed. A writer numbers its segments; 64 neighbours are merged into one that is named after the
first and the last of them. So the names show where a kill came after a merged segment appeared and
before its parts were removed, and readers pass over the parts.

A segment that cannot be read is set aside: it is renamed to `<segment>.damaged`, and nothing reads
it any more.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from tasteloop.errors import TasteloopError
from tasteloop.journal import KINDS, schema

if TYPE_CHECKING:
    import polars as pl

logger = logging.getLogger(__name__)

_DAMAGED = ".damaged"  # ends the name of a segment that was set aside
_SEGMENT = re.compile(r"(answers|feedback|failures)-([0-9a-f]+)-(\d+)-(\d+)\.parquet")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def days(directory: Path) -> list[Path]:
    """The directories of the days of writing, oldest first."""
    return sorted(
        path for path in directory.iterdir() if path.is_dir() and _DAY.fullmatch(path.name)
    )


def segments(directory: Path, kind: str) -> list[Path]:
    """The segments of a kind, without those whose rows a merged one has.

    Raises:
        TasteloopError: there is no such directory.
    """
    if not directory.is_dir():
        raise TasteloopError(
            f"no journal in {directory}; `tasteloop serve` keeps one under TASTELOOP_HOME/journal"
        )
    out = []
    for day in days(directory):
        spans: dict[str, list[tuple[int, int, Path]]] = {}
        for path in day.iterdir():
            match = _SEGMENT.fullmatch(path.name)
            if match is not None and match[1] == kind:
                writer, first, last = match[2], int(match[3]), int(match[4])
                spans.setdefault(writer, []).append((first, last, path))
        for _, of_writer in sorted(spans.items()):
            # a merged segment comes before its parts, and the parts end no later
            end = -1
            for _, last, path in sorted(of_writer, key=lambda span: (span[0], -span[1])):
                if last > end:
                    out.append(path)
                    end = last
    return out


def scan_segments(kind: str, paths: Sequence[Path]) -> pl.LazyFrame:
    """The rows of segments of one kind, with the columns of `schema(kind)`."""
    import polars as pl

    return pl.scan_parquet(
        list(paths),
        schema=schema(kind),
        missing_columns="insert",  # an older version's segments
        extra_columns="ignore",
        hive_partitioning=False,
        glob=False,
    )


def set_damaged_aside(directory: Path) -> set[Path]:
    """Rename every segment that is damaged; returns those that could not be renamed."""
    not_renamed: set[Path] = set()
    for kind in KINDS:
        for path in segments(directory, kind):
            damage = _damage(kind, path)
            if not damage:
                continue
            try:
                path.rename(path.with_name(path.name + _DAMAGED))
                logger.error(
                    "journal: %s is damaged and was set aside as %s%s: %s",
                    path,
                    path.name,
                    _DAMAGED,
                    damage,
                )
            except OSError as error:
                not_renamed.add(path)
                logger.error(
                    "journal: %s is damaged and passed over (%s): %s", path, error.strerror, damage
                )
    return not_renamed


def _damage(kind: str, path: Path) -> str:
    """What is wrong with a segment's content; empty where nothing is, or where it was merged and
    removed meanwhile.

    Raises:
        TasteloopError: it cannot be opened or read, which says nothing about its content.
    """
    import polars as pl

    try:
        scan_segments(kind, [path]).collect()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        return str(error)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise TasteloopError(f"{path} cannot be read: {error.strerror or error}") from error
    return ""


class DamagedSegment(TypedDict):
    """A segment that was set aside; rows is None where the file does not show their number any
    more.
    """

    file: str
    rows: int | None


def damaged(directory: Path) -> list[DamagedSegment]:
    """The segments that were set aside, by their paths."""
    import polars as pl

    paths: list[Path] = []
    for day in days(directory):
        paths += day.glob(f"*{_DAMAGED}")
    out: list[DamagedSegment] = []
    for path in sorted(paths):
        rows = None
        with suppress(OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
            rows = int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())
        out.append({"file": str(path), "rows": rows})
    return out
