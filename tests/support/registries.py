"""Homes with an empty registry, and versions to record in them."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from serving.release import registry
from tasteloop import files
from tasteloop.bundle.manifest import seal
from tasteloop.verdicts import Verdict
from tests.support.shared import make_once

HOUSE = Path(__file__).parents[2]
VERDICT = Verdict(passed=True, reasons=("micro-F1 beats own frequencies by 0.012",))
SETTINGS = {
    "finetune": {"epochs": 2, "layers": {"frozen": [0, 1]}},
    "ingest": {"behaviour": "ml-100k"},
}
FIRST_USE = """
from serving.release import registry
from tasteloop.errors import TasteloopError
try:
    registry.find("1")
except TasteloopError as error:
    print(error)
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    """A process that runs the code in the house."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=HOUSE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def first_use_of_a_home(factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A home that two processes used for the first time at once, and what each found there.

    It is made once per test run: making a registry takes seconds.
    """

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TASTELOOP_HOME", str(folder / "home"))
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            processes = [start(FIRST_USE) for _ in range(2)]
            answers = [process.communicate(timeout=240)[0].strip() for process in processes]
        (folder / "answers.json").write_text(json.dumps(answers))

    folder = make_once(factory, "first-use", make)
    return folder / "home", json.loads((folder / "answers.json").read_text())


def copy_empty_home(original: Path, home: Path) -> Path:
    """A home of its own with an empty registry, copied from one that was used once."""
    home.mkdir()
    shutil.copy(original / "mlflow.db", home)
    with closing(sqlite3.connect(home / "mlflow.db")) as database, database:
        database.execute(
            "UPDATE experiments SET artifact_location = ?", ((home / "mlartifacts").as_uri(),)
        )
    return home


def make_bundle(path: Path, content: str) -> Path:
    path.mkdir(parents=True)
    (path / "card.json").write_text(json.dumps({"content": content}))
    seal(path)
    return path


def make_evaluation(path: Path, f1: float = 0.6) -> Path:
    estimate = {"value": f1, "low": f1 - 0.01, "high": f1 + 0.01, "n": 100}
    files.write_json(
        path,
        {
            "metrics": {
                "interests.micro_f1": estimate,
                "recommend.ndcg@10": {**estimate, "low": None},
            },
            "baselines": {
                "popularity": {"recommend.ndcg@10": estimate, "recommend.recall@10": None}
            },
            "lineage": {"code": "1.0+abc", "data": "f00d"},
        },
    )
    return path


def rehearsal(path: Path, bundle: Path, passed: bool = True) -> Path:
    digest = files.sha256_file(bundle / "manifest.json")
    files.write_json(path, {"passed": passed, "reason": "…", "digest": digest})
    return path


def candidate(
    folder: Path, name: str, passed: bool = True, rehearsed: bool = True
) -> registry.RecordedVersion:
    """A recorded version, ready to be promoted unless told otherwise."""
    bundle = make_bundle(folder / name, name)
    recorded = registry.record(
        bundle, make_evaluation(folder / f"{name}.json"), replace(VERDICT, passed=passed), SETTINGS
    )
    if rehearsed:
        registry.attach_rehearsal(recorded.version, rehearsal(folder / f"{name}-r.json", bundle))
    return recorded


def live() -> str | None:
    champion = registry.champion()
    return champion.version if champion else None


def live_digest() -> str | None:
    champion = registry.champion()
    return champion.digest if champion else None
