"""Reading the journal: answers with their feedback, failures, and an overview."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from serving.journal.answered import iso_time
from serving.journal.segments import (
    DamagedSegment,
    damaged,
    scan_segments,
    segments,
    set_damaged_aside,
)
from tasteloop.behaviour.events import ITEM, KIND, TIME, VALUE
from tasteloop.behaviour.times import LATEST as LATEST_TIME
from tasteloop.behaviour.times import microseconds
from tasteloop.errors import TasteloopError
from tasteloop.journal import (
    ANSWER,
    ANSWERS,
    ARRIVED,
    FAILURES,
    FEEDBACK,
    INSTANCE,
    KINDS,
    MODEL,
    REQUEST,
    ROLE,
    VERSION,
    schema,
)

if TYPE_CHECKING:
    import polars as pl

_READS = 3  # tries to read a journal while its segments are merged or set aside


class Overview(TypedDict):
    """What `describe` says of a journal.

    Attributes:
        segments: how many there are, by kind.
        answers: how many there are; with_feedback: how many of them have feedback.
        span: the times of the first and the last answer, ISO 8601; None where there is none.
        impossible_times: answers whose time cannot be.
        damaged: segments that were set aside.
        by: how many answers there are of each model, version and role.
    """

    directory: str
    segments: dict[str, int]
    answers: int
    span: list[str] | None
    with_feedback: int
    impossible_times: int
    damaged: list[DamagedSegment]
    by: list[dict[str, Any]]


def read_journal(
    directory: Path, since: datetime | None = None, until: datetime | None = None
) -> pl.DataFrame:
    """Answers from `since` on and before `until`, oldest first, each with its outcomes.

    Returns:
        the columns of `schema(ANSWERS)` but `answer`, and `feedback`, a list of {kind, item, value,
        time}: all outcomes of the answer, whenever they came, but only the last that arrived of one
        kind for one item. The list is empty where there is none.

    Raises:
        TasteloopError: there is no such directory, or it cannot be read. Segments that are damaged
            are set aside.
    """
    import polars as pl

    def join(scan: _Scan) -> pl.LazyFrame:
        answers = scan(ANSWERS)
        if since is not None:
            answers = answers.filter(pl.col(TIME) >= microseconds(since))
        if until is not None:
            answers = answers.filter(pl.col(TIME) < microseconds(until))
        return _with_outcomes(answers, scan(ANSWERS), scan(FEEDBACK)).sort(TIME, REQUEST, INSTANCE)

    return _read(directory, join)


def _with_outcomes(
    answers: pl.LazyFrame, all_answers: pl.LazyFrame, feedback: pl.LazyFrame
) -> pl.LazyFrame:
    """Each answer with the outcomes that name it.

    Outcomes are joined by the answer's id. Answers that have none (a collector's, or an older
    version's) are joined by the request's id, unless several answers have that request's id: then
    nobody knows which of them the outcome is about.
    """
    import polars as pl

    # 1. what arrived last comes last; outcomes of older versions have no `arrived`, and are ordered
    # by the time that the caller gave
    old = pl.when(pl.col(ARRIVED).is_null()).then(TIME)
    ordered = feedback.sort(pl.col(ARRIVED), old, nulls_last=False, maintain_order=True)

    def outcomes(rows: pl.LazyFrame, name: str) -> pl.LazyFrame:
        last = rows.unique([name, INSTANCE, KIND, ITEM], keep="last", maintain_order=True)
        outcome = pl.struct(KIND, ITEM, VALUE, TIME).alias(FEEDBACK)
        return last.group_by(name, INSTANCE, maintain_order=True).agg(outcome)

    # 2. the outcomes by answer, and by request where only one answer has its id
    with_feedback = all_answers.join(feedback, on=REQUEST, how="semi")
    answers_of_request = with_feedback.group_by(REQUEST, INSTANCE).len()
    alone = answers_of_request.filter(pl.col("len") == 1)
    by_answer = outcomes(ordered.filter(pl.col(ANSWER).is_not_null()), ANSWER)
    by_request = outcomes(
        ordered.join(alone, on=[REQUEST, INSTANCE], how="semi", maintain_order="left"), REQUEST
    )

    # 3. the answers with them
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
        TasteloopError: there is no such directory, or it cannot be read. Segments that are damaged
            are set aside.
    """
    import polars as pl

    inside = (pl.col(TIME) >= since) & (pl.col(TIME) < until)
    return _read(directory, lambda scan: scan(FAILURES).filter(inside).sort(TIME, REQUEST))


_Scan = Callable[[str], "pl.LazyFrame"]
"""From a kind to all rows of its segments."""


def _read(directory: Path, query: Callable[[_Scan], pl.LazyFrame]) -> pl.DataFrame:
    """A query's rows, without those of damaged segments, which are set aside.

    The query runs again where a segment was set aside, or where a writer merged segments after they
    were listed and before they were read.
    """
    import polars as pl

    passed_over: set[Path] = set()  # damaged, in a directory that this process cannot write

    def scan(kind: str) -> pl.LazyFrame:
        paths = [path for path in segments(directory, kind) if path not in passed_over]
        return scan_segments(kind, paths) if paths else pl.LazyFrame(schema=schema(kind))

    problem: BaseException | None = None
    for _ in range(_READS):
        try:
            return query(scan).collect()
        except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            problem = error
            passed_over |= set_damaged_aside(directory)
    raise TasteloopError(
        f"the journal {directory} cannot be read: {problem}; read it again"
    ) from problem


def describe(directory: Path) -> Overview:
    """How many answers there are of each model and version, from when to when, how many have
    feedback, and what is lost: damaged segments that were set aside, and answers with an impossible
    time.
    """
    import polars as pl

    frame = read_journal(directory)
    with_feedback = frame.filter(pl.col(FEEDBACK).list.len() > 0)
    by = frame.group_by(MODEL, VERSION, ROLE).len("answers").sort(MODEL, VERSION, ROLE)
    times = frame[TIME].filter(frame[TIME].is_between(0, LATEST_TIME))
    span = [iso_time(times.min()), iso_time(times.max())] if len(times) else None
    return {
        "directory": str(directory),
        "segments": {kind: len(segments(directory, kind)) for kind in KINDS},
        "answers": frame.height,
        "span": span,
        "with_feedback": with_feedback.height,
        "impossible_times": frame.height - len(times),
        "damaged": damaged(directory),
        "by": by.to_dicts(),
    }
