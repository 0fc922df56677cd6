"""Homes of runs: empty ones, and copies of one in which the smoke profile has a champion."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.homes import Home, movielens
from tests.support.shared import make_once
from tests.support.turning import chosen


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture(scope="session")
def smoke_champion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`home`, in which the smoke profile was run once, and `facts.json`, what that run printed.

    The whole test run has one of it. A test that runs anything in it works on a copy.
    """

    def make(folder: Path) -> None:
        facts = Home(folder / "home").run()
        (folder / "facts.json").write_text(json.dumps(facts))

    return make_once(tmp_path_factory, "smoke-champion", make)


@pytest.fixture(scope="module")
def smoke(
    smoke_champion: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Home, dict[str, Any]]:
    """A copy of the home with the smoke champion, and the facts of its run, whose paths are the
    copy's.
    """
    original, copy = smoke_champion / "home", tmp_path_factory.mktemp("smoke") / "home"
    shutil.copytree(original, copy, symlinks=True)
    facts = (smoke_champion / "facts.json").read_text()
    return Home(copy), json.loads(facts.replace(str(original), str(copy)))


@pytest.fixture(scope="session")
def movielens_champion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ml`, a folder as MovieLens' own, `home`, in which it was run once, and `facts.json`, what
    that run printed.

    The whole test run has one of it. A test that runs anything in it works on a copy.
    """

    def make(folder: Path) -> None:
        behaviour = movielens(folder / "ml", users=80, each=30)
        facts = Home(folder / "home").run(*chosen(behaviour))
        (folder / "facts.json").write_text(json.dumps(facts))

    return make_once(tmp_path_factory, "movielens-champion", make)
