"""Which Python `make setup` takes, and that what says which are supported says the same."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUPPORTED = [(3, 11), (3, 12), (3, 13)]


@pytest.fixture
def checkout(tmp_path):
    """What `make setup` reads, without an environment, and the only folder of programs that is
    searched.
    """
    for name in ("Makefile", "requirements.lock", "torch.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "bin").mkdir()
    return tmp_path


def add_python(checkout: Path, name: str, version: str | None) -> None:
    """A program of that name that answers as Python of that version; None: one that only fails, as
    a shim does.
    """
    program = checkout / "bin" / name
    # what make asks of it is run by this Python, told another version
    told = f"import sys; sys.version_info = ({version or ''})"
    program.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "{told}; exec(sys.argv[1])" "$2"\n'
        if version
        else "#!/bin/sh\nexit 127\n"
    )
    program.chmod(0o755)


def make(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("make")
    assert program is not None
    about = {**os.environ, "PATH": str(checkout / "bin")}
    # of the make that runs these tests
    for inherited in ("PY", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        about.pop(inherited, None)
    return subprocess.run(
        [program, *arguments],
        cwd=checkout,
        env=about,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("pythons", "taken"),
    [
        ({"python3.11": "3, 11"}, "python3.11"),
        ({"python3.11": "3, 11", "python3.12": "3, 12", "python3": "3, 11"}, "python3.12"),
        ({"python3.11": "3, 11", "python3.13": "3, 13", "python3": "3, 14"}, "python3.13"),
        ({"python3.13": None, "python3.11": "3, 11"}, "python3.11"),
        ({"python3": "3, 12"}, "python3"),
        ({".venv": "3, 11", "python3.13": "3, 13"}, ".venv/bin/python"),
    ],
)
def test_the_newest_supported_python_is_taken(checkout, pythons, taken):
    for name, version in pythons.items():
        add_python(checkout, name, version)
    if ".venv" in pythons:
        (checkout / ".venv" / "bin").mkdir(parents=True)
        (checkout / "bin" / ".venv").rename(checkout / ".venv" / "bin" / "python")

    plan = make(checkout, "--dry-run", "setup")

    assert f"\n{taken} -m venv .venv\n" in plan.stdout, plan.stderr


@pytest.mark.parametrize(
    ("pythons", "arguments"),
    [
        ({}, ()),
        ({"python3": "3, 10", "python3.13": None}, ()),
        ({"python3": "3, 14"}, ()),
        ({"python3.11": "3, 11", "python3.10": "3, 10"}, ("PY=python3.10",)),
        ({"python3.11": "3, 11"}, ("PY=/no/such/python",)),
    ],
)
def test_without_a_supported_python_setup_says_how_to_get_one(checkout, pythons, arguments):
    for name, version in pythons.items():
        add_python(checkout, name, version)

    ended = make(checkout, "setup", *arguments)

    assert ended.returncode == 2
    assert "no Python 3.11, 3.12 or 3.13" in ended.stderr
    for way in (
        "apt install python3 python3-venv",
        "brew install",
        "uv python install",
        "make setup PY=",
    ):
        assert way in ended.stderr
    assert all(argument in ended.stderr for argument in arguments)
    assert not (checkout / ".venv").exists()


def test_setup_says_what_it_downloads_before_it_does(checkout):
    add_python(checkout, "python3.12", "3, 12")

    usual = make(checkout, "--dry-run", "setup").stdout
    chosen = make(checkout, "--dry-run", "setup", "TORCH_INDEX=https://index.example/cpu").stdout

    said, _, done = usual.partition("pip install")
    assert "GB" in said and "TORCH_INDEX" in said and "--index-url" not in done
    said, _, done = chosen.partition("pip install")
    assert "GB" in said and "--no-deps --index-url https://index.example/cpu" in done
    assert "--requirement requirements.lock" in done


def test_what_is_supported_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    makefile = (ROOT / "Makefile").read_text()
    lowest, highest = SUPPORTED[0], SUPPORTED[-1]

    assert (
        project["project"]["requires-python"]
        == f">={lowest[0]}.{lowest[1]},<{highest[0]}.{highest[1] + 1}"
    )
    assert re.search(r"not (\(\d, \d+\) <= sys.version_info < \(\d, \d+\))", makefile)[1] == (
        f"{lowest} <= sys.version_info < {(highest[0], highest[1] + 1)}"
    )
    assert [f"python{major}.{minor}" for major, minor in reversed(SUPPORTED)] == re.findall(
        r"python3\.\d+", re.search(r"^PYTHONS := (.*)$", makefile, re.M)[1]
    )
    assert project["tool"]["ruff"]["target-version"] == f"py{lowest[0]}{lowest[1]}"
    assert project["tool"]["mypy"]["python_version"] == f"{lowest[0]}.{lowest[1]}"
