"""Runs of the real command, each in a home of its own, and small behaviour files to run it on."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
LABELS = ("Comedy", "Drama", "Horror", "Western")
START = 1_700_000_000  # seconds since 1970


@dataclass
class Home:
    """A home and the command in it."""

    path: Path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "TASTELOOP_HOME": str(self.path), "HF_HUB_OFFLINE": "1"}
        environment.pop("MLFLOW_TRACKING_URI", None)
        return subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", *arguments],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str, code: int = 0, timeout: float = 280) -> str:
        """The standard output of a command that ends with `code` and never with a traceback."""
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=timeout)
        finally:
            process.kill()
        assert process.returncode == code, (
            f"{arguments} ended with {process.returncode}:\n{out}\n{err}"
        )
        assert "Traceback" not in out + err
        if code == 2:
            assert err.startswith("error: ")
            return err
        return out

    def run(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """What `tasteloop run --profile smoke --json` printed."""
        return json.loads(self("run", "--profile", "smoke", "--json", *arguments, code=code))

    def status(self) -> dict[str, Any]:
        return json.loads(self("status", "--json"))


def settings(**values: Any) -> list[str]:
    """`--set` options; a double underscore stands for the dot."""
    return [
        part
        for key, value in values.items()
        for part in ("--set", f"{key.replace('__', '.')}={json.dumps(value)}")
    ]


def reused(facts: dict[str, Any]) -> set[str]:
    return {step["step"] for step in facts["steps"] if step["reused"]}


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def ratings(
    users: int = 60, items: int = 40, each: int = 24, name: Callable[[int], str] = str
) -> list[list[Any]]:
    """Rows of user, item, value (1 to 5), time: user u likes the label u % 4, item i bears the
    label i % 4.

    One session after the other, six hours apart, so that every window of a global split has whole
    ones.
    """
    rows = []
    for u in range(users):
        for n in range(each):
            i = (u * 7 + n * 5 + n * n) % items
            liked = i % len(LABELS) == u % len(LABELS)
            rows.append(
                [name(u), i, 5 if liked else 1 + (u + i) % 3, START + 6 * 3600 * u + 600 * n]
            )
    return rows


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)


def movielens(folder: Path, **shape: Any) -> Path:
    """A folder as MovieLens' own."""
    folder.mkdir(parents=True)
    write_csv(
        folder / "ratings.csv", ("userId", "movieId", "rating", "timestamp"), ratings(**shape)
    )
    titles = [
        (i, f"Film {i} (1999)", LABELS[i % len(LABELS)]) for i in range(shape.get("items", 40))
    ]
    write_csv(folder / "movies.csv", ("movieId", "title", "genres"), titles)
    return folder


MAPPING = {
    "events": "log.csv",
    "columns": {
        "user": "who",
        "item": "what",
        "kind": "did",
        "value": "stars",
        "time": "at",
        "text": "said",
    },
    "kinds": {"rated": "rate", "looked": "view", "searched": "search", "bought": "purchase"},
    "scale": [1, 5],
    "time": {"unit": "s"},
    "items": {
        "file": "things.csv",
        "columns": {"item": "what", "title": "called", "labels": "kinds"},
    },
}


def mapped(
    folder: Path, rows: Iterable[Iterable[Any]], labels: Iterable[str] = LABELS, title: str = "Film"
) -> Path:
    """A mapping with its files; rows are who, what, did, stars, at, said."""
    folder.mkdir(parents=True)
    labels = list(labels)
    write_csv(folder / "log.csv", ("who", "what", "did", "stars", "at", "said"), rows)
    things = [(i, f"{title} {i}", labels[i % len(labels)]) for i in range(40)]
    write_csv(folder / "things.csv", ("what", "called", "kinds"), things)
    (folder / "mapping.yaml").write_text(yaml.safe_dump(MAPPING))
    return folder / "mapping.yaml"


def rated(**shape: Any) -> list[list[Any]]:
    return [[user, item, "rated", value, at, ""] for user, item, value, at in ratings(**shape)]
