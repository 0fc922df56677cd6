"""The writer of the journal: a thread that puts answers, feedback and failures into segments.

`serving.journal.segments` describes the files. `serving.journal.answered` decides what is written
of an answer, and what never is.
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
from typing import TYPE_CHECKING, Any, TypedDict

from prometheus_client import Counter

from serving.journal.answered import Answered, Row, rows
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

_MERGED = 64  # segments that are merged into one
_LARGEST = 100_000  # rows of a merged segment
_STALE = 3600.0  # seconds after which the writer of a temporary file is assumed dead
_RETRY = 1.0  # seconds after a write that failed


class JournalStatus(TypedDict):
    """The state of a journal's writer since its start.

    Attributes:
        written: rows on the disk, by kind.
        waiting: rows that were accepted and are not on the disk yet.
        dropped: rows for which there was no room, or that could not be written.
        error: what keeps the writer from writing; None where nothing does.
    """

    written: dict[str, int]
    waiting: int
    dropped: int
    error: str | None


class Journal:
    """A background writer. `answered` and `feedback` never wait: rows beyond `settings.bound` are
    dropped and counted.

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
        """Accept the row that a version failed on a request at a time (µs)."""
        row = {REQUEST: request_id, TIME: time, MODEL: model, VERSION: version}
        return self._accept(FAILURES, [row], 1)

    def status(self) -> JournalStatus:
        """The rows and the error since the start."""
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
            # 1. what has been accepted, after a while or when half of the room is used
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closing or 2 * self._pending >= self.settings.bound,
                    self.settings.seconds,
                )
                last = self._closing
                while self._waiting:
                    kind, entry, count = self._waiting.popleft()
                    taken[kind].append((entry, count))

            # 2. to the disk; what it refuses stays in `taken`
            failed = False
            for kind, entries in taken.items():
                failed = not self._write(kind, entries) or failed

            # 3. the end, another try, or old days
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
        """Write one segment of all entries and remove them from the list; where the disk refuses
        them, they stay in it. Returns whether the entries were written.
        """
        if not entries:
            return True

        # 1. their rows
        count = sum(rows_of_entry for _, rows_of_entry in entries)
        table: list[Row] = []
        for entry, _ in entries:
            try:
                if kind == ANSWERS:
                    answered, role = entry
                    table += rows(answered, role, self.settings.text)
                else:
                    table += entry
            except Exception:  # one answer that has no row must not keep the others out
                logger.exception("an answer could not be written to the journal")
        frame = _frame(kind, table)

        # 2. the segment
        day, number = datetime.now(UTC).date().isoformat(), self._numbers[kind]
        try:
            if frame.height:
                files.write_parquet(self._segment(day, kind, number, number), frame)
        except Exception as error:
            if self._error is None:
                logger.exception("the journal cannot be written; %d rows wait", count)
            reason = error.strerror if isinstance(error, OSError) else None
            with self._changed:  # callers may see this text, so it is short: the log has the rest
                self._error = reason or type(error).__name__
            return False

        # 3. the counts
        entries.clear()
        with self._changed:
            self._pending -= count
            self._written[kind] += frame.height
            self._drop(count - frame.height)
            self._error = None
        ROWS.labels("written").inc(frame.height)

        # 4. merging
        if frame.height:
            self._numbers[kind] += 1
            try:
                self._merge(day, kind, 0, (number, number, frame.height))
            except Exception:  # the parts stay, and are read as well
                logger.exception("segments of the journal could not be merged")
                self._merging.pop((day, kind), None)
        return True

    def _segment(self, day: str, kind: str, first: int, last: int) -> Path:
        return (
            self.settings.directory / day / f"{kind}-{self._writer}-{first:08d}-{last:08d}.parquet"
        )

    def _merge(self, day: str, kind: str, level: int, segment: tuple[int, int, int]) -> None:
        """Add a segment (first, last, rows) to its level; a full level is merged into one segment
        of the next level.

        The parts of a merged segment must be neighbours, so a level that stays unmerged because it
        is too large empties those above it.
        """
        import polars as pl

        # 1. the levels of this day
        for key in [key for key in self._merging if key[0] != day]:
            del self._merging[key]
        levels = self._merging.setdefault((day, kind), [])
        if level == len(levels):
            levels.append([])
        levels[level].append(segment)
        if len(levels[level]) < _MERGED:
            return

        # 2. a full level, if it is not too large
        parts, levels[level] = levels[level], []
        total = sum(count for _, _, count in parts)
        if total > _LARGEST:
            del levels[level + 1 :]
            return

        # 3. one segment of it
        first, last = parts[0][0], parts[-1][1]
        paths = [self._segment(day, kind, start, end) for start, end, _ in parts]
        merged = pl.concat([files.read_parquet(path) for path in paths])
        files.write_parquet(self._segment(day, kind, first, last), merged)
        for path in paths:
            path.unlink()
        self._merge(day, kind, level + 1, (first, last, total))


def _frame(kind: str, table: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """The rows that fit the schema. A collector may get anything, and a row that never fits must
    not keep the others from being written.
    """
    import polars as pl

    def make_frame(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
        return pl.DataFrame(rows, schema=schema(kind), strict=False)

    try:
        return make_frame(table)
    except Exception:
        fitting = [make_frame([])]
        for row in table:
            try:
                fitting.append(make_frame([row]))
            except Exception:
                logger.exception("a row fits no table of the journal")
        return pl.concat(fitting)


def _clean(directory: Path, oldest: date) -> None:
    """Remove the days before `oldest`, and the unfinished files of writers that were killed."""
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
