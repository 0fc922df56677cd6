"""What every process of ours does first: keep what it writes to its user, and what it says free of
secrets.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from tasteloop.home import Home
from tasteloop.redaction import redact

_PRIVATE, _GROUP = 0o077, 0o007
# as Kubernetes makes a volume's directory for a pod's fsGroup
_SHARED = stat.S_ISGID | stat.S_IRWXG
_given: int | None = None  # the umask with which the process began


def begin(directory: Path | None = None) -> None:
    """Call once, before anything is written or said; again changes nothing.

    Files are readable by their user alone, those that libraries write (SQLite, MLflow) too. A
    directory that its owner shares with a group (mode 2770, as a volume with fsGroup has it) stays
    shared with that group, and with nobody else.

    Args:
        directory: where the process writes; the home by default.
    """
    global _given
    if _given is not None:
        return
    _given = os.umask(_PRIVATE)
    if _is_shared(directory or Home.current().path):
        os.umask(_GROUP)
    logging.setLogRecordFactory(_Record)
    sys.excepthook = _say
    threading.excepthook = lambda told: _say(told.exc_type, told.exc_value, told.exc_traceback)


@contextmanager
def shareable() -> Iterator[None]:
    """For what is made to be shown to others, a report or a graph: files are made with the user's
    own umask.
    """
    with _umask(_given):
        yield


@contextmanager
def shared_with_group() -> Iterator[None]:
    """For what processes of other users of the group read, such as Spark's workers."""
    with _umask(_GROUP):
        yield


@contextmanager
def _umask(mask: int | None) -> Iterator[None]:
    before = os.umask(_PRIVATE)
    os.umask(before if mask is None else mask)
    try:
        yield
    finally:
        os.umask(before)


def _is_shared(directory: Path) -> bool:
    try:
        return directory.stat().st_mode & _SHARED == _SHARED
    except OSError:
        return False


class _Record(logging.LogRecord):
    """A log record whose message and traceback are redacted, whoever formats it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.exc_info and self.exc_info[0] is not None:
            self.exc_text = _traceback(*self.exc_info)

    def getMessage(self) -> str:
        return redact(super().getMessage())


def _say(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    sys.stderr.write(_traceback(kind, error, trace) + "\n")


def _traceback(
    kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> str:
    return redact("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"))
