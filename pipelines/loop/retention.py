"""What the monitor no longer needs is removed, so that a disk does not fill: old reports,
references, data, events.

Never removed: the ledger, and what the champion or the one before it was made from or is compared
with. A directory is renamed before it is emptied, so a reader finds it whole or not at all; what a
kill left over is removed by the next pass.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from pipelines.loop.monitoring import (
    INCOMING,
    LEDGER,
    RETRAININGS,
    WINDOWS,
    event_files,
    run_of_bundle,
    scan_events,
)
from pipelines.loop.retraining import base_of, read_by
from pipelines.settings import Settings
from tasteloop.behaviour.events import TIME
from tasteloop.errors import TasteloopError
from tasteloop.files import home
from validation.monitor.ledger import Lease
from validation.monitor.reference import Reference, data_path, reference_path
from validation.monitor.windows import HOUR

log = logging.getLogger(__name__)

_GONE = ".gone-"  # begins the name of a directory that is being removed
_WINDOW = re.compile(r"\d+-(\d+)-[0-9a-f]+")


def prune(lease: Lease, settings: Settings, reference: Reference) -> list[Path]:
    """Remove what is too old, after the ledger says so; what was removed.

    Args:
        reference: the live champion's. Nothing is removed while a retraining is under way.
    """
    for left in (home() / LEDGER).glob(f"*/{_GONE}*"):
        shutil.rmtree(left, ignore_errors=True)
    if any(trigger.result is None for trigger in lease.ledger.triggers()):
        return []
    rules, newest = (
        settings.retention,
        max((e.end for e in lease.ledger.evidence()), default=reference.end),
    )
    needed = _needed(reference.champion)
    root = home() / LEDGER
    gone = [
        *_reports(root / WINDOWS, rules.windows),
        *_beyond(reference_path("any").parent, rules.champions, needed),
        *_beyond(data_path("any").parent, rules.champions, needed),
        *_beyond(root / RETRAININGS, rules.champions, needed),
    ]
    if rules.incoming_days is not None:
        days = max(rules.incoming_days, settings.retraining.recent_days)
        before = min(
            newest - int(days * 24 * HOUR), reference.end - reference.settings.windows.horizon
        )
        gone += _ended(home() / INCOMING, before)
    if gone:
        names = [str(path.relative_to(home())) for path in gone]
        lease.ledger.append(lease, "pruned", "", {"removed": names}, once=False)
        for path in gone:
            _remove(path)
        log.info(
            "retention: removed %d old files and directories, such as %s", len(names), names[0]
        )
    return gone


def _needed(champion: str) -> set[Path]:
    """Paths that the champion and the one before it are compared with, or would be trained anew
    from.
    """
    from serving.release import registry

    before = registry.previous()
    paths: set[Path] = set()
    for digest in {champion, *([before[1]] if before else [])}:
        paths |= {reference_path(digest), data_path(digest)}
        if (made := run_of_bundle(digest)) is not None:
            read = read_by(made)
            paths |= {
                base_of(made),
                *made.artifacts.values(),
                *([read] if read else []),
            }
    return {path.absolute() for path in paths}


def _reports(directory: Path, most: int) -> list[Path]:
    ends = {
        path: int(found[1]) for path in _in(directory) if (found := _WINDOW.fullmatch(path.name))
    }
    return sorted(ends, key=lambda path: (ends[path], path.name))[:-most]


def _beyond(directory: Path, most: int, needed: Collection[Path]) -> list[Path]:
    """All but the newest, and but those in which something that is needed lies."""
    free = [
        p for p in _in(directory) if not any(path.is_relative_to(p.absolute()) for path in needed)
    ]
    free.sort(key=lambda path: (path.stat().st_mtime, path.name))
    return free[: max(0, len(free) - most)]


def _ended(directory: Path, before: int) -> list[Path]:
    """Files of events that all lie before a time, µs; one that cannot be read is left to the pass
    to complain of.
    """
    import polars as pl

    from tasteloop.datasets.tables import collect

    found = []
    for path in event_files(directory):
        try:
            last: Any = collect(scan_events(path).select(pl.col(TIME).max()), path).item()
        except TasteloopError:
            continue
        if last is not None and last < before:
            found.append(path)
    return found


def _in(directory: Path) -> Iterable[Path]:
    return [path for path in directory.glob("[!.]*") if path.is_dir()]


def _remove(path: Path) -> None:
    try:
        if path.is_dir():
            hidden = path.with_name(f"{_GONE}{path.name}")
            path.rename(hidden)
            shutil.rmtree(hidden)
        else:
            path.unlink()
    except OSError as error:
        raise TasteloopError(
            f"{path} is too old and cannot be removed: {error.strerror}; remove it by hand"
        ) from error
