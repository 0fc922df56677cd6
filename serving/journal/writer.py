"""The journal: what was asked in outline, what was answered by which version, and what came of it.

    <directory>/<day of writing, UTC>/answers-<writer>-<first>-<last>.parquet
                                      feedback-<writer>-<first>-<last>.parquet
                                      failures-<writer>-<first>-<last>.parquet

A segment appears whole: it is written under a temporary name, flushed to the disk and renamed. A
writer numbers its segments; 64 neighbours become one that is named after the first and the last of
them. So a kill between the merged segment's appearance and its parts' removal is seen by the names,
and readers pass over the parts.

A segment that cannot be read is set aside: it is renamed to `<segment>.damaged`, and nothing reads
it any more.

What is never written: a raw user id (a user comes here as a pseudonym or not at all) and, unless
the setting `text` allows it, what a user wrote. A request's id is written as it came, so it must
not be made of a user's.
"""

from __future__ import annotations

import logging
import re
import shutil
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from prometheus_client import Counter
from pydantic import BaseModel, Field

from tasteloop import files
from tasteloop.answers import SERVED_MODELS
from tasteloop.behaviour.events import (
    ITEM,
    KIND,
    SECOND,
    TEXT,
    TIME,
    USER,
    VALUE,
    Event,
    microseconds,
    whole,
)
from tasteloop.behaviour.events import LATEST as LATEST_TIME
from tasteloop.errors import TasteloopError

if TYPE_CHECKING:
    import polars as pl

    from serving.journal.tokens import FeedbackTokens

logger = logging.getLogger(__name__)

ROWS = Counter(
    "tasteloop_journal_rows", "Rows of the journal, by what became of them", ("outcome",)
)

ANSWERS, FEEDBACK, FAILURES = "answers", "feedback", "failures"
KINDS = (ANSWERS, FEEDBACK, FAILURES)
REQUEST, ANSWER, INSTANCE, MODEL, VERSION, ROLE = (
    "request",
    "answer",
    "instance",
    "model",
    "version",
    "role",
)
PROTOCOL, SECONDS = "protocol", "seconds"
EVENTS, LATEST, CHARACTERS, K, INPUT = "events", "latest", "characters", "k", "input"
NAMES, NUMBERS, PREDICTED, CONFIDENT = "names", "numbers", "predicted", "confident"
TOKEN, ARRIVED = "token", "arrived"

CHAMPION, CHALLENGER = "champion", "challenger"  # roles
LONGEST_REQUEST_ID = 128  # characters
MOST_FEEDBACK = 256  # rows in one request
CLOCK_SKEW = 300 * SECOND  # by which another machine's clock may be ahead of this one's, µs

_STAGES = ("queue", "tokenise", "encode", "rank")
_MERGED = 64  # segments that become one
_LARGEST = 100_000  # rows of a merged segment
_STALE = 3600.0  # seconds after which a temporary file has no living writer
_RETRY = 1.0  # seconds after a write that failed
_DAMAGED = ".damaged"  # ends the name of a segment that was set aside
_READS = 3  # of a journal whose segments are merged or set aside meanwhile
_REQUEST_ID = re.compile(rf"[!-~]{{1,{LONGEST_REQUEST_ID}}}")
_SEGMENT = re.compile(r"(answers|feedback|failures)-([0-9a-f]+)-(\d+)-(\d+)\.parquet")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def schema(kind: str) -> dict[str, pl.DataType]:
    """The columns of a kind of segment; times in µs since 1970 UTC.

    answers: `request` and `instance` (its place in the request) name the row; `answer` is an id
    that no other request has, to which feedback is joined, null where a collector wrote the row;
    `role` is what the version was then, champion or challenger; `seconds` from its arrival in the
    queue. In outline what was asked: how many `events`, the time of the `latest`, how many
    `characters` of text, `k`; `input` is null unless text is allowed. `names` and `numbers` are
    labels with probabilities or items with scores, best first; `predicted` only for interests,
    `confident` for them and for sentiment.
    feedback: `time` is when it happened, as the caller says; `arrived` is when it came; `answer` is
        that of the token.
    failures: requests that a version failed on for our reasons, whether or not another one answered
        them.

    Segments of an older version lack columns, which are read as null.
    """
    import polars as pl

    if kind == FAILURES:
        return {REQUEST: pl.String(), TIME: pl.Int64(), MODEL: pl.String(), VERSION: pl.String()}
    if kind == FEEDBACK:
        return {
            REQUEST: pl.String(),
            ANSWER: pl.String(),
            INSTANCE: pl.Int32(),
            TIME: pl.Int64(),
            ARRIVED: pl.Int64(),
            KIND: pl.String(),
            ITEM: pl.String(),
            VALUE: pl.Float32(),
        }
    return {
        REQUEST: pl.String(),
        ANSWER: pl.String(),
        INSTANCE: pl.Int32(),
        TIME: pl.Int64(),
        USER: pl.String(),
        MODEL: pl.String(),
        VERSION: pl.String(),
        ROLE: pl.String(),
        PROTOCOL: pl.String(),
        SECONDS: pl.Float32(),
        EVENTS: pl.Int32(),
        LATEST: pl.Int64(),
        CHARACTERS: pl.Int32(),
        K: pl.Int32(),
        INPUT: pl.String(),
        NAMES: pl.List(pl.String()),
        NUMBERS: pl.List(pl.Float32()),
        PREDICTED: pl.List(pl.Boolean()),
        CONFIDENT: pl.List(pl.Boolean()),
    }


class JournalSettings(BaseModel, frozen=True, extra="forbid"):
    """How the journal is kept."""

    directory: Path = Field(description="Where the segments go.")
    bound: int = Field(
        1000,
        ge=1,
        description="Rows accepted and not yet on the disk: what a kill loses at most. Above it rows drop.",
    )
    seconds: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="How long a row waits for its segment."
    )
    days: int = Field(
        30, ge=1, description="Days of segments that are kept, the day of writing not counted."
    )
    text: bool = Field(
        False, description="Whether the questions themselves, raw text included, are written."
    )


@dataclass(frozen=True)
class Answered:
    """What was asked and answered in one request.

    Args:
        time: µs since 1970 UTC at which the answer was ready.
        instances: as V1 instances, without users; empty where only the answers are known.
        outputs: as V1 predictions, one for each instance.
        timings: seconds by stage (queue, tokenise, encode, rank), beside counts.
        headers: the caller's; they are not written.
        users: each instance's pseudonym or None.
        answer: the id that the answer's feedback token names; None where it was given none.
    """

    request_id: str
    model: str
    version: str
    protocol: str
    time: int
    instances: Sequence[Mapping[str, Any]]
    outputs: Sequence[Mapping[str, Any]]
    timings: Mapping[str, float] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    users: Sequence[str | None] = ()
    answer: str | None = None

    @property
    def seconds(self) -> float | None:
        """From the request's arrival in the queue to its answer."""
        found = [self.timings[stage] for stage in _STAGES if stage in self.timings]
        return sum(found) if found else None


def rows(answered: Answered, role: str, text: bool = False) -> list[dict[str, Any]]:
    """The rows of `schema(ANSWERS)`, one an instance."""
    out = []
    for index, answer in enumerate(answered.outputs):
        instance = answered.instances[index] if index < len(answered.instances) else {}
        out.append(
            {
                REQUEST: answered.request_id,
                ANSWER: answered.answer,
                INSTANCE: index,
                TIME: answered.time,
                USER: answered.users[index] if index < len(answered.users) else None,
                MODEL: answered.model,
                VERSION: answered.version,
                ROLE: role,
                PROTOCOL: answered.protocol,
                SECONDS: answered.seconds,
                **_outline(instance, text),
                **_outputs(answered.model, answer),
            }
        )
    return out


def _outline(instance: Mapping[str, Any], text: bool) -> dict[str, Any]:
    """What may be kept of a question. It was answered, so its events are sound."""
    import orjson

    events = (
        [Event.parse(event, "event") for event in instance["events"]]
        if "events" in instance
        else None
    )
    written = (
        [instance[TEXT]]
        if TEXT in instance
        else [event.text for event in events or () if event.text]
    )
    return {
        EVENTS: None if events is None else len(events),
        LATEST: max((event.time for event in events or () if event.time is not None), default=None),
        CHARACTERS: sum(map(len, written)) if instance else None,
        K: whole(instance.get(K)),
        INPUT: orjson.dumps(instance).decode() if text and instance else None,
    }


def _outputs(model: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of an answer: its names and numbers, best first, and what was said of them."""
    served = SERVED_MODELS[model]
    entries = served.entries(answer)
    return {
        NAMES: [entry[served.label] for entry in entries],
        NUMBERS: [entry[served.number] for entry in entries],
        PREDICTED: [entry[PREDICTED] for entry in entries] if served.has(PREDICTED) else None,
        # an answer that another server gave may lack it
        CONFIDENT: [entry.get(CONFIDENT) for entry in entries] if served.has(CONFIDENT) else None,
    }


def now() -> int:
    return time.time_ns() // 1000


def is_request_id(text: object) -> TypeGuard[str]:
    """Whether a text may name a request: it is written to logs, headers and the journal as it
    came.
    """
    return isinstance(text, str) and _REQUEST_ID.fullmatch(text) is not None


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

    def feedback(self, given: Sequence[Mapping[str, Any]]) -> bool:
        """Accept rows of `parse_feedback`, all or none."""
        return self._accept(FEEDBACK, given, len(given))

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
        for day in _days(directory):
            if day.name < oldest.isoformat():
                shutil.rmtree(day, ignore_errors=True)
                logger.info("journal: removed %s, which is older than the retention", day.name)
                continue
            for path in day.glob(".*.tmp"):
                if time.time() - path.stat().st_mtime > _STALE:
                    path.unlink(missing_ok=True)
    except OSError:
        logger.exception("the journal %s could not be cleaned", directory)


# Feedback


def parse_feedback(
    body: object, at: int, tokens: FeedbackTokens | None = None
) -> list[dict[str, Any]]:
    """The rows of a feedback request, checked.

    Args:
        body: {"feedback": [{"request": id, "token": token, "instance": 0, "kind": "click", "item":
            "50", "value": 1.0, "time": ...}]}; `request`, `token` and `kind` are needed.
        at: when it arrived, in µs; also the time of rows that name none.
        tokens: which tokens are right. Without it none is needed: only for who writes the journal
            itself.

    Raises:
        TasteloopError: a field, type or value that is not allowed, or a token of another answer, by
            its index.
    """
    if (
        not isinstance(body, Mapping)
        or set(body) != {"feedback"}
        or not isinstance(body["feedback"], list)
    ):
        raise TasteloopError(
            'the body must be a JSON object {"feedback": [{"request": id, "kind": "click", ...}]}'
        )
    given = body["feedback"]
    if not 1 <= len(given) <= MOST_FEEDBACK:
        raise TasteloopError(
            f"{len(given)} entries of feedback; send 1 to {MOST_FEEDBACK} at a time"
        )
    return [_outcome(entry, f"feedback[{index}]", at, tokens) for index, entry in enumerate(given)]


def _outcome(entry: object, where: str, at: int, tokens: FeedbackTokens | None) -> dict[str, Any]:
    known = (REQUEST, TOKEN, INSTANCE, KIND, ITEM, VALUE, TIME)
    if not isinstance(entry, Mapping):
        raise TasteloopError(
            f'{where}: an object is expected, such as {{"request": id, "kind": "click"}}'
        )
    if unknown := [key for key in entry if key not in known]:
        raise TasteloopError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(known)}")
    request, instance = entry.get(REQUEST), whole(entry.get(INSTANCE, 0))
    if not isinstance(request, str) or not 0 < len(request) <= LONGEST_REQUEST_ID:
        raise TasteloopError(
            f"{where}: request is the id that came with the answer, of 1 to {LONGEST_REQUEST_ID} characters"
        )
    if instance is None or not 0 <= instance < 2**31:
        raise TasteloopError(
            f"{where}: instance is the place in the request, a whole number from 0 on"
        )
    event = Event.parse({key: entry.get(key) for key in (KIND, ITEM, VALUE, TIME)}, where)
    if event.time is not None and event.time > at + CLOCK_SKEW:
        raise TasteloopError(
            f"{where}: time {entry[TIME]!r} is more than {CLOCK_SKEW // SECOND} s ahead of this server's clock, "
            f"{_iso(at)}; send when it happened, or leave time out"
        )
    answer = None
    if tokens is not None:
        try:
            answer = tokens.answer_of(entry.get(TOKEN), request)
        except TasteloopError as error:
            raise TasteloopError(f"{where}: {error}") from None
    return {
        REQUEST: request,
        ANSWER: answer,
        INSTANCE: instance,
        TIME: at if event.time is None else event.time,
        ARRIVED: at,
        KIND: event.kind,
        ITEM: event.item,
        VALUE: event.value,
    }


# Reading


def read_journal(
    directory: Path, since: datetime | None = None, until: datetime | None = None
) -> pl.DataFrame:
    """Answers from `since` on and before `until`, oldest first, each with its outcomes.

    Returns:
        the columns of `schema(ANSWERS)` but `answer`, and `feedback`, a list of {kind, item, value,
        time}: all that was told of the answer by whenever, of one kind for one item what arrived
        last; empty where nothing was.

    Raises:
        TasteloopError: no such directory, or one that cannot be read; segments that are damaged are
            set aside.
    """
    import polars as pl

    def joined(scan: _Scan) -> pl.LazyFrame:
        answers = scan(ANSWERS)
        if since is not None:
            answers = answers.filter(pl.col(TIME) >= microseconds(since))
        if until is not None:
            answers = answers.filter(pl.col(TIME) < microseconds(until))
        return _with_outcomes(answers, scan(ANSWERS), scan(FEEDBACK)).sort(TIME, REQUEST, INSTANCE)

    return _read(directory, joined)


def _with_outcomes(
    answers: pl.LazyFrame, all_answers: pl.LazyFrame, feedback: pl.LazyFrame
) -> pl.LazyFrame:
    """Each answer with the outcomes that name it.

    Outcomes are joined by the answer's id. Answers that have none (a collector's, or an older
    version's) are joined by the request's id, unless several answers bear it: nobody knows then
    whose outcome it is.
    """
    import polars as pl

    # What arrived last comes last. Before `arrived` was written, the time that the caller gave had
    # to do.
    old = pl.when(pl.col(ARRIVED).is_null()).then(TIME)
    ordered = feedback.sort(pl.col(ARRIVED), old, nulls_last=False, maintain_order=True)

    def outcomes(rows: pl.LazyFrame, name: str) -> pl.LazyFrame:
        last = rows.unique([name, INSTANCE, KIND, ITEM], keep="last", maintain_order=True)
        told = pl.struct(KIND, ITEM, VALUE, TIME).alias(FEEDBACK)
        return last.group_by(name, INSTANCE, maintain_order=True).agg(told)

    bearers = all_answers.join(feedback, on=REQUEST, how="semi").group_by(REQUEST, INSTANCE).len()
    alone = bearers.filter(pl.col("len") == 1)
    by_answer = outcomes(ordered.filter(pl.col(ANSWER).is_not_null()), ANSWER)
    by_request = outcomes(
        ordered.join(alone, on=[REQUEST, INSTANCE], how="semi", maintain_order="left"), REQUEST
    )
    named = answers.filter(pl.col(ANSWER).is_not_null()).join(
        by_answer, on=[ANSWER, INSTANCE], how="left"
    )
    unnamed = answers.filter(pl.col(ANSWER).is_null()).join(
        by_request, on=[REQUEST, INSTANCE], how="left"
    )
    return pl.concat([named, unnamed]).with_columns(pl.col(FEEDBACK).fill_null([])).drop(ANSWER)


def read_failures(directory: Path, since: int, until: int) -> pl.DataFrame:
    """The failures from `since` on and before `until` (µs), oldest first.

    Raises:
        TasteloopError: no such directory, or one that cannot be read; segments that are damaged are
            set aside.
    """
    import polars as pl

    inside = (pl.col(TIME) >= since) & (pl.col(TIME) < until)
    return _read(directory, lambda scan: scan(FAILURES).filter(inside).sort(TIME, REQUEST))


def segments(directory: Path, kind: str) -> list[Path]:
    """The segments of a kind, without those that a merged one holds already."""
    if not directory.is_dir():
        raise TasteloopError(
            f"no journal in {directory}; `tasteloop serve` keeps one under TASTELOOP_HOME/journal"
        )
    out = []
    for day in _days(directory):
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


_Scan = Callable[[str], "pl.LazyFrame"]
"""From a kind to all rows of its segments."""


def _read(directory: Path, query: Callable[[_Scan], pl.LazyFrame]) -> pl.DataFrame:
    """A query's rows, without those of damaged segments, which are set aside.

    It is asked again where a segment was set aside, or where a writer merged segments between their
    listing and their reading.
    """
    import polars as pl

    passed_over: set[Path] = set()  # damaged, in a directory that this process cannot write

    def scan(kind: str) -> pl.LazyFrame:
        paths = [path for path in segments(directory, kind) if path not in passed_over]
        return _scan(kind, paths) if paths else pl.LazyFrame(schema=schema(kind))

    problem: BaseException | None = None
    for _ in range(_READS):
        try:
            return query(scan).collect()
        except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            problem = error
            passed_over |= _set_damaged_aside(directory)
    raise TasteloopError(
        f"the journal {directory} cannot be read: {problem}; read it again"
    ) from problem


def _scan(kind: str, paths: Sequence[Path]) -> pl.LazyFrame:
    import polars as pl

    return pl.scan_parquet(
        list(paths),
        schema=schema(kind),
        missing_columns="insert",  # an older version's segments
        extra_columns="ignore",
        hive_partitioning=False,
        glob=False,
    )


def _set_damaged_aside(directory: Path) -> set[Path]:
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
        _scan(kind, [path]).collect()
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
    for path in sorted(path for day in _days(directory) for path in day.glob(f"*{_DAMAGED}")):
        rows = None
        with suppress(OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
            rows = int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())
        out.append({"file": str(path), "rows": rows})
    return out


def _days(directory: Path) -> list[Path]:
    return sorted(
        path for path in directory.iterdir() if path.is_dir() and _DAY.fullmatch(path.name)
    )


def describe(directory: Path) -> dict[str, Any]:
    """How many answers there are of each model and version, from when to when, how many were given
    feedback, and what is lost: segments that were set aside as damaged, and answers whose time is
    none that can be.
    """
    import polars as pl

    frame = read_journal(directory)
    told = frame.filter(pl.col(FEEDBACK).list.len() > 0)
    by = frame.group_by(MODEL, VERSION, ROLE).len("answers").sort(MODEL, VERSION, ROLE)
    times = frame[TIME].filter(frame[TIME].is_between(0, LATEST_TIME))
    span = [_iso(times.min()), _iso(times.max())] if len(times) else None
    return {
        "directory": str(directory),
        "segments": {kind: len(segments(directory, kind)) for kind in KINDS},
        "answers": frame.height,
        "span": span,
        "with_feedback": told.height,
        "impossible_times": frame.height - len(times),
        "damaged": damaged(directory),
        "by": by.to_dicts(),
    }


def _iso(micros: Any) -> str:
    return datetime.fromtimestamp(micros / 1e6, UTC).isoformat(timespec="seconds")
