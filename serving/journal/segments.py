"""The journal's files: which there are, which hold what others hold already, which are damaged.

    <directory>/<day of writing, UTC>/answers-<writer>-<first>-<last>.parquet
                                      feedback-<writer>-<first>-<last>.parquet
                                      failures-<writer>-<first>-<last>.parquet

A segment appears whole: it is written under a temporary name, flushed to the disk and renamed. A
writer numbers its segments; 64 neighbours become one that is named after the first and the last of
them. So a kill between the merged segment's appearance and its parts' removal is seen by the names,
and readers pass over the parts.

A segment that cannot be read is set aside: it is renamed to `<segment>.damaged`, and nothing reads
it any more.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    """The segments of a kind, without those that a merged one holds already."""
    if not directory.is_dir():
        raise TasteloopError(
            f"no journal in {directory}; `tasteloop serve` keeps one under TASTELOOP_HOME/journal"
        )
    out = []
    for day in days(directory):
        spans: dict[str, list[tuple[int, int, Path]]] = {}
        for path in day.iterdir():
            if (match := _SEGMENT.fullmatch(path.name)) and match[1] == kind:
                spans.setdefault(match[2], []).append((int(match[3]), int(match[4]), path))
        for _, found in sorted(spans.items()):
            end = -1
            for _, last, path in sorted(found, key=lambda span: (span[0], -span[1])):
                if last > end:
                    out.append(path)
                    end = last
    return out


def scan_segments(kind: str, paths: Sequence[Path]) -> pl.LazyFrame:
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
    """Rename every segment that is damaged; those that could not be renamed are returned."""
    kept: set[Path] = set()
    for kind in KINDS:
        for path in segments(directory, kind):
            if not (damage := _damage(kind, path)):
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
                kept.add(path)
                logger.error(
                    "journal: %s is damaged and passed over (%s): %s", path, error.strerror, damage
                )
    return kept


def _damage(kind: str, path: Path) -> str:
    """What is wrong with a segment's content; empty where nothing is, or where it was merged away
    meanwhile.

    Raises:
        TasteloopError: it cannot be opened or read, which says nothing of its content.
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


def damaged(directory: Path) -> list[dict[str, Any]]:
    """The segments that were set aside: {"file", "rows"}; the rows are null where the file does not
    tell any more.
    """
    import polars as pl

    out = []
    for path in sorted(path for day in days(directory) for path in day.glob(f"*{_DAMAGED}")):
        rows = None
        with suppress(OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
            rows = int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())
        out.append({"file": str(path), "rows": rows})
    return out
