"""The homes of simulations: each has its own, so that the user's registry and journal stay
untouched.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasteloop.errors import TasteloopError
from tasteloop.files import atomic_directory, cache, write_json
from tasteloop.home import Home

RESULT_FILE = "simulation.json"  # also marks a home as a simulation's

# what would lead a simulation to the user's own registry, tracking server or tokens
_OUTSIDE = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_REGISTRY_URI",
    "TASTELOOP_API_TOKEN",
    "TASTELOOP_API_TOKEN_FILE",
)


@contextmanager
def use_home(path: Path) -> Iterator[None]:
    """Work in another home, without the environment's registry, tracking server and tokens."""
    before = dict(os.environ)
    os.environ["TASTELOOP_CACHE"] = str(cache())
    os.environ["TASTELOOP_HOME"] = str(path.absolute())
    for name in _OUTSIDE:
        os.environ.pop(name, None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def simulation_path(shift: str, seed: int) -> Path:
    """Where a simulation's home is, if no other place is named for it."""
    return Home.current().simulations / f"{shift}-{seed}"


def check_replaceable(path: Path) -> None:
    """Raises TasteloopError where a simulation's home can neither be made nor replaced."""
    if path.exists() and not (path / RESULT_FILE).is_file():
        raise TasteloopError(
            f"{path} is there and is no simulation's; name another --home, or remove it"
        )
    for parent in path.absolute().parents:
        if parent.is_file():
            raise TasteloopError(
                f"{parent} is a file, so that --home {path} cannot be made; name another"
            )


def begin_home(base: Path, path: Path) -> None:
    """Make a home that begins with the champion of `base`, and with nothing else. A simulation's
    home that exists is replaced.

    Raises:
        TasteloopError: the path holds something else.
    """
    check_replaceable(path)
    if path.exists():
        shutil.rmtree(path)
    not_copied = shutil.ignore_patterns("pipeline", "ml-100k", "data")
    with atomic_directory(path) as directory:
        shutil.copytree(base, directory, dirs_exist_ok=True, ignore=not_copied)
        write_json(directory / RESULT_FILE, {})
