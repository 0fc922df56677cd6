"""What a version answered, and where it failed, by the journal of this home."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from serving.journal.reader import read_failures, read_journal
from tasteloop.home import Home
from tasteloop.journal import REQUEST, VERSION
from validation.monitor.reference import answers_schema
from validation.monitor.rollback import Interval, share

if TYPE_CHECKING:
    import polars as pl


def read_answers(since: int, until: int, version: str) -> pl.DataFrame:
    """A version's rows of the journal from one time (µs) to another, the end excluded; none where
    no server keeps a journal.
    """
    import polars as pl

    directory = Home.current().journal
    if not directory.is_dir():
        return pl.DataFrame(schema=answers_schema()).drop("window")
    return read_journal(directory, _moment(since), _moment(until)).filter(
        pl.col(VERSION) == version
    )


def error_share(since: int, until: int, version: str) -> Interval | None:
    """The share of a version's requests that failed in a span; None where it had no requests."""
    directory = Home.current().journal
    failed = 0
    if directory.is_dir():
        failures = read_failures(directory, since, until)
        if failures is not None:
            failed = failures.filter(failures[VERSION] == version).height
    answered = read_answers(since, until, version)[REQUEST].n_unique()
    total = answered + failed
    return share(failed, total) if total else None


def _moment(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
