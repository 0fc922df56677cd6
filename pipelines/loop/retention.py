"""What the monitor no longer needs is removed, so that a disk does not fill: old reports,
references, data, events.

The ledger is never removed, nor what the champion or the one before it was made from or is compared
with. A directory is renamed before it is emptied, so that a reader finds all of it or nothing; what
a kill left over is removed by the next pass.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pipelines.loop.incoming import event_files, scan_events
from pipelines.loop.provenance import find_provenance
from pipelines.settings import Settings
from serving.release import registry
from tasteloop.behaviour.events import TIME
from tasteloop.errors import TasteloopError
from tasteloop.home import Home
from validation.monitor.ledger import Lease
from validation.monitor.reference import Reference, data_path, reference_path
from validation.monitor.windows import HOUR

log = logging.getLogger(__name__)

_REMOVING = ".gone-"  # begins the name of a directory that is being removed
_WINDOW = re.compile(r"\d+-(\d+)-[0-9a-f]+")


def prune(lease: Lease, settings: Settings, reference: Reference) -> list[Path]:
    """Remove what is too old, after the ledger says so; what was removed.

    Args:
        reference: the live champion's. Nothing is removed while a retraining is under way.
    """
    home = Home.current()
    for left in home.monitor.glob(f"*/{_REMOVING}*"):
        shutil.rmtree(left, ignore_errors=True)
    if any(trigger.result is None for trigger in lease.ledger.triggers()):
        return []

    # 1. what is too old
    rules = settings.retention
    needed = _needed_paths(reference.champion)
    old = _old_reports(home.windows, rules.windows)
    for directory in (reference_path("any").parent, data_path("any").parent, home.retrainings):
        old += _old_directories(directory, rules.champions, needed)
    if rules.incoming_days is not None:
        ends = [evidence.end for evidence in lease.ledger.evidence()]
        newest = max(ends, default=reference.end)
        days = max(rules.incoming_days, settings.retraining.recent_days)
        # answers before the reference's end have their horizon after it
        matures = reference.end - reference.settings.windows.horizon
        old += _old_event_files(home.incoming, min(newest - int(days * 24 * HOUR), matures))
    if not old:
        return []

    # 2. the ledger first, then the disk
    names = [str(path.relative_to(home.path)) for path in old]
    lease.ledger.append(lease, "pruned", "", {"removed": names}, once=False)
    for path in old:
        _remove(path)
    log.info("retention: removed %d old files and directories, such as %s", len(names), names[0])
    return old


def _needed_paths(champion: str) -> set[Path]:
    """Paths that the champion and the one before it are compared with, or would be trained anew
    from.
    """
    previous = registry.previous()
    digests = {champion, *([previous[1]] if previous else [])}
    paths: set[Path] = set()
    for digest in digests:
        paths |= {reference_path(digest), data_path(digest)}
        made_from = find_provenance(digest)
        if made_from is not None:
            paths |= {made_from.base_dataset, *made_from.artifacts.values()}
            if made_from.ingested is not None:
                paths.add(made_from.ingested)
    return {path.absolute() for path in paths}


def _old_reports(directory: Path, count: int) -> list[Path]:
    """The reports of windows but for so many of the newest."""
    ends: dict[Path, int] = {}
    for path in _directories(directory):
        match = _WINDOW.fullmatch(path.name)
        if match:
            ends[path] = int(match[1])
    return sorted(ends, key=lambda path: (ends[path], path.name))[:-count]


def _old_directories(directory: Path, count: int, needed: Collection[Path]) -> list[Path]:
    """The directories in one but for so many of the newest, and but for those in which something
    lies that is needed.
    """

    def holds_what_is_needed(path: Path) -> bool:
        return any(each.is_relative_to(path.absolute()) for each in needed)

    free = [path for path in _directories(directory) if not holds_what_is_needed(path)]
    free.sort(key=lambda path: (path.stat().st_mtime, path.name))
    return free[: max(0, len(free) - count)]


def _old_event_files(directory: Path, before: int) -> list[Path]:
    """Files of events that all lie before a time, µs; one that cannot be read is left to the pass
    to complain of.
    """
    import polars as pl

    from tasteloop.datasets.tables import collect

    old = []
    for path in event_files(directory):
        try:
            last: Any = collect(scan_events(path).select(pl.col(TIME).max()), path).item()
        except TasteloopError:
            continue
        if last is not None and last < before:
            old.append(path)
    return old


def _directories(parent: Path) -> list[Path]:
    return [path for path in parent.glob("[!.]*") if path.is_dir()]


def _remove(path: Path) -> None:
    try:
        if path.is_dir():
            hidden = path.with_name(f"{_REMOVING}{path.name}")
            path.rename(hidden)
            shutil.rmtree(hidden)
        else:
            path.unlink()
    except OSError as error:
        raise TasteloopError(
            f"{path} is too old and cannot be removed: {error.strerror}; remove it by hand"
        ) from error
