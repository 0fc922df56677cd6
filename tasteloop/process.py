"""What every process of ours does first: files that it writes are for its user alone, and messages
hold no secrets.
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
_umask_before: int | None = None  # with which the process began; None before `begin`


def begin(directory: Path | None = None) -> None:
    """Call once, before a file or a message is written; a second call changes nothing.

    Files are readable by their user alone, those that libraries write (SQLite, MLflow) too. A
    directory that its owner shares with a group (mode 2770, as a volume with fsGroup has it) stays
    shared with that group, and with nobody else.

    Args:
        directory: where the process writes; the home by default.
    """
    global _umask_before
    if _umask_before is not None:
        return
    _umask_before = os.umask(_PRIVATE)
    if _is_shared(directory or Home.current().path):
        os.umask(_GROUP)
    logging.setLogRecordFactory(_Record)
    sys.excepthook = _print_exception
    threading.excepthook = _print_exception_of_thread


@contextmanager
def shareable() -> Iterator[None]:
    """A block that writes what others may read, a report or a graph: its files get the umask with
    which the process began.
    """
    with _umask(_umask_before):
        yield


@contextmanager
def shared_with_group() -> Iterator[None]:
    """A block whose files the group may read and write, such as Spark's workers."""
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


def _print_exception(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    sys.stderr.write(_traceback(kind, error, trace) + "\n")


def _print_exception_of_thread(uncaught: threading.ExceptHookArgs) -> None:
    _print_exception(uncaught.exc_type, uncaught.exc_value, uncaught.exc_traceback)


def _traceback(
    kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> str:
    return redact("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"))
