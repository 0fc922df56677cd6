"""An events file as questions for a session.

The file is read in batches and users are grouped by a hash of their id into parts on the disk, one
part of which is in memory at a time: a file may be larger than memory, and a user's events may
stand anywhere in it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from tasteloop.answers import SERVED_MODELS
from tasteloop.behaviour.events import ITEM, KIND, TEXT, TIME, USER, VALUE, Event
from tasteloop.behaviour.kinds import KINDS
from tasteloop.behaviour.times import LATEST, PER_UNIT, likely_range
from tasteloop.errors import TasteloopError
from tasteloop.runtime.questions import Question

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

ROW = "row"
_COLUMNS = (USER, KIND, ITEM, TIME, VALUE, TEXT)
_BATCH = 65_536  # rows read at once
_PART = 500_000  # rows of one part,
_PARTS = 256  # unless there would be more parts than files can be open; then they grow
_ROW_BYTES = 24  # of a CSV line, to tell how many rows there will be,
_PACKED = 10  # and how many times more there are in gzip
_USERS = 256  # scored at once
_PROGRESS_SECONDS = 5.0

# Questions, each with what it is about: the user; of a text its row, user and item.
KeyedQuestions = list[tuple[tuple[Any, ...], Question]]


@dataclass
class EventFile:
    """An events file; `read` counts its rows as they are read."""

    path: Path
    model: str
    table: pl.LazyFrame
    expected: int
    read: int = 0

    @classmethod
    def open(cls, path: Path, model: str) -> EventFile:
        import polars as pl

        from tasteloop.datasets.reading import check_types
        from tasteloop.datasets.tables import collect, files_of, scan_table

        needed = (TEXT,) if SERVED_MODELS[model].input.is_text else (USER, KIND)
        table = scan_table(
            path, {c: c for c in needed}, {c: c for c in _COLUMNS if c not in needed}, empty=True
        )
        check_types(table, path)
        if path.suffix.lower() == ".parquet":
            expected = int(collect(table.select(pl.len()), path).item())
        else:
            packed = _PACKED if path.suffix.lower() == ".gz" else 1
            expected = packed * sum(file.stat().st_size for file in files_of(path)) // _ROW_BYTES
        return cls(path, model, table, expected)

    def questions(
        self, folder: Path, k: int | None, progress: Progress
    ) -> Iterator[KeyedQuestions]:
        """Checked questions with their keys, some hundred at a time."""
        if SERVED_MODELS[self.model].input.is_text:
            yield from self._texts()
            return
        for part in self._parts(folder, progress):
            questions: KeyedQuestions = []
            for (user,), group in part.group_by(USER, maintain_order=True):
                questions.append(((user,), {"events": list(self._events(group)), "k": k}))
                if len(questions) == _USERS:
                    yield questions
                    questions = []
            if questions:
                yield questions

    def _texts(self) -> Iterator[KeyedQuestions]:
        for frame in self._frames():
            texts = frame.filter(frame[TEXT].str.strip_chars().str.len_chars() > 0)
            for start in range(0, len(texts), _USERS):
                rows = texts[start : start + _USERS].iter_rows(named=True)
                yield [((r[ROW], r[USER], r[ITEM]), {"text": r[TEXT]}) for r in rows]

    def _parts(self, folder: Path, progress: Progress) -> Iterator[pl.DataFrame]:
        """The file's rows with each user's in one part, in the file's order."""
        import polars as pl
        import pyarrow as pa

        count = min(1 + self.expected // _PART, _PARTS)
        in_memory: list[pl.DataFrame] = []
        with ExitStack() as stack:
            writers: dict[int, Any] = {}
            for frame in self._frames():
                progress.reading(self.read)
                self._check(frame)
                if count == 1:
                    in_memory.append(frame)
                    continue
                numbers = [crc32(user.encode()) % count for user in frame[USER].to_list()]
                part = pl.Series("part", numbers)
                for n in part.unique().to_list():
                    rows = frame.filter(part == n).to_arrow(compat_level=pl.CompatLevel.oldest())
                    if n not in writers:
                        writers[n] = stack.enter_context(
                            pa.ipc.new_stream(folder / str(n), rows.schema)
                        )
                    writers[n].write_table(rows)
        if in_memory:
            yield pl.concat(in_memory)
        for n in sorted(writers):
            with pa.ipc.open_stream(folder / str(n)) as stream:
                table = pl.from_arrow(stream.read_all())
            (folder / str(n)).unlink()
            assert isinstance(table, pl.DataFrame)
            yield table

    def _frames(self) -> Iterator[pl.DataFrame]:
        """The contract's columns as they are in the file (a missing one is null), with ROW from
        1.
        """
        import polars as pl

        from tasteloop.datasets.tables import whole_table

        absent = [column for column in _COLUMNS if column not in self.table.collect_schema()]
        rows = self.table.with_columns(pl.lit(None).alias(column) for column in absent)
        with whole_table(self.path):
            for frame in rows.collect_batches(
                chunk_size=_BATCH, maintain_order=True, engine="streaming"
            ):
                self.read += len(frame)
                if len(frame):
                    yield self._typed(frame)

    def _typed(self, frame: pl.DataFrame) -> pl.DataFrame:
        """What is no time or no number ends here, by its row; blank ids stay blank, for `_check` to
        find.
        """
        import polars as pl

        from tasteloop.datasets.reading import read_ids, read_times, read_value

        schema = frame.schema
        dtype, written = schema[TIME], pl.col(TIME)
        moments = [read_times(written, dtype, "us")]
        if dtype == pl.Null:
            moments = [written.cast(pl.Int64)]
        elif not (dtype.is_numeric() or dtype.is_temporal()):
            moments.append(read_times(written, dtype, "iso"))
        typed = frame.select(
            ROW,
            *(
                pl.coalesce(read_ids(c, schema), pl.col(c).cast(pl.String)).alias(c)
                for c in (USER, KIND, ITEM)
            ),
            pl.coalesce(moments).alias(TIME),
            read_value(schema),
            pl.col(TEXT).cast(pl.String),
        )
        for column in (TIME, VALUE):
            lost = typed[column].is_null() & frame[column].is_not_null()
            if lost.any():
                row = int(lost.arg_max())  # type: ignore[arg-type]
                where, what = f"row {frame[ROW][row]} of {self.path}", frame[column][row]
                what = what.decode(errors="replace") if isinstance(what, bytes) else what
                if column == TIME:
                    Event.parse({KIND: "view", TIME: what}, where)
                raise TasteloopError(f"{where}: {column} is {what!r}, not a number")
        return typed

    def _check(self, frame: pl.DataFrame) -> None:
        """Find the first row that is no event before anything is computed; `Event.parse` says what
        it is.
        """
        import polars as pl

        blank = [pl.col(c).str.strip_chars() == "" for c in (ITEM, TEXT)]
        value, moment = pl.col(VALUE), pl.col(TIME)
        other_unit = [
            moment.is_between(*likely_range(unit), closed="left")
            for unit in PER_UNIT
            if unit != "us"
        ]
        when = [moment < 0, moment > LATEST, *other_unit]
        wrong = [
            ~value.is_between(0, 1),
            value.is_nan(),
            *when,
            ~pl.col(KIND).is_in(list(KINDS)),
            *blank,
        ]
        nobody = pl.col(USER).is_null() | (pl.col(USER).str.strip_chars() == "")
        bad = frame.filter(
            pl.any_horizontal(nobody, pl.col(KIND).is_null(), *(w.fill_null(False) for w in wrong))
        )
        for row in bad.iter_rows(named=True):
            if not (row[USER] or "").strip():
                raise TasteloopError(f"row {row[ROW]} of {self.path}: there is no user")
            list(self._events(bad.filter(pl.col(ROW) == row[ROW])))

    def _events(self, frame: pl.DataFrame) -> Iterator[Event]:
        for row, *values in frame.select(ROW, KIND, ITEM, TIME, VALUE, TEXT).iter_rows():
            event = dict(zip((KIND, ITEM, TIME, VALUE, TEXT), values, strict=True))
            yield Event.parse(event, f"row {row} of {self.path}")


class Progress:
    """A line every few seconds."""

    def __init__(self, expected: int) -> None:
        self.expected, self.done = max(expected, 1), 0
        self.began = self.last = time.monotonic()

    def reading(self, read: int) -> None:
        if self._due():
            log.info("read %d rows", read)

    def scored(self, count: int, events: int) -> None:
        self.done += events
        if self._due():
            share = min(self.done / self.expected, 1.0)
            log.info(
                "scored %d, %.0f%% of the events, %.0f a second",
                count,
                100 * share,
                count / self._elapsed(),
            )

    def _elapsed(self) -> float:
        return max(time.monotonic() - self.began, 1e-9)

    def _due(self) -> bool:
        now = time.monotonic()
        if now - self.last < _PROGRESS_SECONDS:
            return False
        self.last = now
        return True
