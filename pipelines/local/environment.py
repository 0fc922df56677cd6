"""The environment of a run on this machine: variables, signals, and its lock."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from components.step import QUIET, RUN
from pipelines.local.progress import Say
from tasteloop.files import make_directory

_SOURCES = Path(__file__).resolve().parents[2]


def variables_of_steps(run_directory: Path, scratch: Path) -> dict[str, str]:
    """What the processes of a run's steps find in their environment."""
    python_path = [str(_SOURCES), os.environ.get("PYTHONPATH")]
    return {
        **QUIET,
        RUN: str(run_directory),
        "TMPDIR": str(scratch),  # kfp leaves the steps' sources in there
        "HF_HUB_OFFLINE": "1",  # what a step needs was fetched for the fingerprint
        "PYTHONUNBUFFERED": "1",  # progress is shown as it is made
        "PYTHONPATH": os.pathsep.join(filter(None, python_path)),
    }


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process and those it starts while the block runs."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: recorded, its steps interrupted."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def wait_for_equal_run(lock_file: Path, say: Say) -> Iterator[None]:
    """Wait while another run trains on the same data with the same settings, then use its
    results.
    """
    make_directory(lock_file.parent)
    with lock_file.open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run is doing the same work; waiting to use its results")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
