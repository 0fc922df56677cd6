"""The home: one value says where everything lies."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from tasteloop.home import Home


def every_path(home: Home) -> dict[str, Path]:
    properties = [name for name, value in vars(Home).items() if isinstance(value, property)]
    paths = {name: getattr(home, name) for name in properties}
    for method in ("accepted", "run", "reference", "training_data"):
        paths[method] = getattr(home, method)("x")
    return paths


def test_the_environment_names_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path / "here"))
    assert Home.current() == Home(tmp_path / "here")

    monkeypatch.setenv("TASTELOOP_HOME", "")
    assert Home.current().path == Path.home() / ".tasteloop"

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TASTELOOP_HOME", "below")
    assert Home.current().path == tmp_path / "below"


def test_everything_lies_below_the_home_and_no_two_things_at_the_same_path(tmp_path):
    paths = every_path(Home(tmp_path))

    assert all(path.is_relative_to(tmp_path) and path != tmp_path for path in paths.values())
    assert len(set(paths.values())) == len(paths)


def test_a_home_is_frozen_and_making_one_touches_nothing(tmp_path):
    home = Home(tmp_path / "none")
    every_path(home)

    assert not home.path.exists()
    with pytest.raises(FrozenInstanceError):
        home.path = tmp_path
