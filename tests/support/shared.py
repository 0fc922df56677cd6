"""Directories that a whole test run shares, whichever of its processes asks for one first.

pytest-xdist gives every worker a session of its own, so that a session fixture is made once per
worker. What takes seconds to make (a trained bundle, a home with a champion) is made once per run:
the first process that asks makes it under a file lock, the others wait and read. A test that
changes such a directory works on a copy of it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def run_directory(factory: pytest.TempPathFactory) -> Path:
    """The temporary directory of this run, above those of its workers."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The run's directory of that name, filled by `make` if no process of the run has done so.

    A `make` that fails leaves nothing behind; the next process that asks tries again.
    """
    root = run_directory(factory) / "shared"
    root.mkdir(exist_ok=True)
    directory, complete = root / name, root / f"{name}.complete"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            make(directory)
            complete.touch()
    return directory
