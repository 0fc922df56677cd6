"""The writer of the journal: a thread that puts answers, feedback and failures into segments.

How the files lie is told in `serving.journal.segments`; what is kept of an answer, and what never
is, in `serving.journal.answered`.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import Counter

from serving.journal.answered import Answered, rows
from serving.journal.segments import days
from serving.settings import JournalSettings
from tasteloop import files
from tasteloop.behaviour.events import TIME
from tasteloop.errors import TasteloopError
from tasteloop.journal import (
    ANSWERS,
    CHAMPION,
    FAILURES,
    FEEDBACK,
    KINDS,
    MODEL,
    REQUEST,
    VERSION,
    schema,
)

if TYPE_CHECKING:
    import polars as pl

logger = logging.getLogger(__name__)

ROWS = Counter(
    "tasteloop_journal_rows", "Rows of the journal, by what became of them", ("outcome",)
)

_MERGED = 64  # segments that become one
_LARGEST = 100_000  # rows of a merged segment
_STALE = 3600.0  # seconds after which a temporary file has no living writer
_RETRY = 1.0  # seconds after a write that failed


class Journal:
    """A background writer. `answered` and `feedback` never wait: beyond `settings.bound` rows are
    dropped, counted.

    `close` writes what is left. A kill loses the rows that were accepted and not yet written, at
    most `settings.bound`.
    """

    def __init__(self, settings: JournalSettings) -> None:
        self.settings = settings
        try:
            files.make_directory(settings.directory)
        except OSError as error:
            raise TasteloopError(
                f"the journal cannot be kept in {settings.directory} ({error.strerror}); name another directory with "
                "--journal DIR, or keep none with --journal off"
            ) from None
        self._writer = uuid.uuid4().hex[:12]
        self._numbers = dict.fromkeys(KINDS, 0)
        self._merging: dict[tuple[str, str], list[list[tuple[int, int, int]]]] = {}
        self._changed = threading.Condition()
        self._waiting: deque[tuple[str, Any, int]] = deque()
        self._pending = 0  # rows accepted and not on the disk
        self._written = dict.fromkeys(KINDS, 0)
        self._dropped = 0
        self._error: str | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def answered(self, answered: Answered, role: str = CHAMPION) -> bool:
        """Accept an answer's rows; False where there was no room and they were dropped."""
        return self._accept(ANSWERS, (answered, role), len(answered.outputs))

    def feedback(self, outcomes: Sequence[Mapping[str, Any]]) -> bool:
        """Accept rows of `parse_feedback`, all or none."""
        return self._accept(FEEDBACK, outcomes, len(outcomes))

    def failed(self, request_id: str, model: str, version: str, time: int) -> bool:
        """Accept that a version failed on a request at a time (µs)."""
        return self._accept(
            FAILURES, [{REQUEST: request_id, TIME: time, MODEL: model, VERSION: version}], 1
        )

    def status(self) -> dict[str, Any]:
        """Rows written, waiting and dropped since the start, and the error that holds the writer
        up.
        """
        with self._changed:
            return {
                "written": dict(self._written),
                "waiting": self._pending,
                "dropped": self._dropped,
                "error": self._error,
            }

    def close(self, timeout: float = 10.0) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)

    def _accept(self, kind: str, entry: Any, count: int) -> bool:
        with self._changed:
            if self._closing or self._pending + count > self.settings.bound:
                self._drop(count)
                return False
            self._pending += count
            self._waiting.append((kind, entry, count))
            if 2 * self._pending >= self.settings.bound:
                self._changed.notify()
            return True

    def _drop(self, count: int) -> None:
        self._dropped += count
        ROWS.labels("dropped").inc(count)

    def _run(self) -> None:
        taken: dict[str, list[tuple[Any, int]]] = {kind: [] for kind in KINDS}
        cleaned: date | None = None
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closing or 2 * self._pending >= self.settings.bound,
                    self.settings.seconds,
                )
                last = self._closing
                while self._waiting:
                    kind, entry, count = self._waiting.popleft()
                    taken[kind].append((entry, count))
            failed = False
            for kind, entries in taken.items():
                failed = not self._write(kind, entries) or failed
            if last:
                with self._changed:
                    self._drop(self._pending)
                return
            if failed:
                time.sleep(_RETRY)
            elif cleaned != (today := datetime.now(UTC).date()):
                cleaned = today
                _clean(self.settings.directory, today - timedelta(days=self.settings.days))

    def _write(self, kind: str, entries: list[tuple[Any, int]]) -> bool:
        """One segment of all entries, which are then forgotten; they stay where the disk refuses
        them.
        """
        if not entries:
            return True
        count = sum(n for _, n in entries)
        table: list[dict[str, Any]] = []
        for entry, _ in entries:
            try:
                if kind == ANSWERS:
                    answered, role = entry
                    table += rows(answered, role, self.settings.text)
                else:
                    table += entry
            except Exception:  # one answer that cannot be told must not keep the others out
                logger.exception("an answer could not be written to the journal")
        day, number = datetime.now(UTC).date().isoformat(), self._numbers[kind]
        frame = _frame(kind, table)
        kept = frame.height
        try:
            if kept:
                files.write_parquet(self._segment(day, kind, number, number), frame)
        except Exception as error:
            if self._error is None:
                logger.exception("the journal cannot be written; %d rows wait", count)
            with self._changed:  # a caller may see it: the log has the rest
                self._error = (error.strerror if isinstance(error, OSError) else None) or type(
                    error
                ).__name__
            return False
        entries.clear()
        with self._changed:
            self._pending -= count
            self._written[kind] += kept
            self._drop(count - kept)
            self._error = None
        ROWS.labels("written").inc(kept)
        if kept:
            self._numbers[kind] += 1
            try:
                self._merge(day, kind, 0, (number, number, kept))
            except Exception:  # the parts stay, and are read as well
                logger.exception("segments of the journal could not be merged")
                self._merging.pop((day, kind), None)
        return True

    def _segment(self, day: str, kind: str, first: int, last: int) -> Path:
        return (
            self.settings.directory / day / f"{kind}-{self._writer}-{first:08d}-{last:08d}.parquet"
        )

    def _merge(self, day: str, kind: str, level: int, segment: tuple[int, int, int]) -> None:
        """Add a segment (first, last, rows) to its level; a full level becomes one segment of the
        next.

        The parts are neighbours: a level that is left unmerged empties those above it.
        """
        import polars as pl

        for key in [key for key in self._merging if key[0] != day]:
            del self._merging[key]
        levels = self._merging.setdefault((day, kind), [])
        if level == len(levels):
            levels.append([])
        levels[level].append(segment)
        if len(levels[level]) < _MERGED:
            return
        parts, levels[level] = levels[level], []
        total = sum(count for _, _, count in parts)
        if total > _LARGEST:
            del levels[level + 1 :]
            return
        first, last = parts[0][0], parts[-1][1]
        paths = [self._segment(day, kind, a, b) for a, b, _ in parts]
        merged = pl.concat([files.read_parquet(path) for path in paths])
        files.write_parquet(self._segment(day, kind, first, last), merged)
        for path in paths:
            path.unlink()
        self._merge(day, kind, level + 1, (first, last, total))


def _frame(kind: str, table: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """The rows that fit the schema: a collector is told anything, and a row that never fits must
    not hold others up.
    """
    import polars as pl

    def framed(some: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
        return pl.DataFrame(some, schema=schema(kind), strict=False)

    try:
        return framed(table)
    except Exception:
        fitting = [framed([])]
        for row in table:
            try:
                fitting.append(framed([row]))
            except Exception:
                logger.exception("a row fits no table of the journal")
        return pl.concat(fitting)


def _clean(directory: Path, oldest: date) -> None:
    """Remove days before `oldest`, and what killed writers left half-written."""
    try:
        for day in days(directory):
            if day.name < oldest.isoformat():
                shutil.rmtree(day, ignore_errors=True)
                logger.info("journal: removed %s, which is older than the retention", day.name)
                continue
            for path in day.glob(".*.tmp"):
                if time.time() - path.stat().st_mtime > _STALE:
                    path.unlink(missing_ok=True)
    except OSError:
        logger.exception("the journal %s could not be cleaned", directory)
