"""From a change of taste to a retrained, gated, promoted model, with the real training pipeline."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from tasteloop.files import read_json, read_parquet, write_parquet
from tests.support.homes import Home, wait_for
from tests.support.turning import chosen, turned

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def watched(home: Home, movielens_champion: Path) -> tuple[Home, Path]:
    """A copy of the home with a champion, to which changed behaviour has come, and the folder of
    what the champion learned from.
    """
    shutil.copytree(movielens_champion / "home", home.path, symlinks=True)
    write_parquet(home.path / "incoming" / "a.parquet", turned())
    return home, movielens_champion / "ml"


def test_taste_changes_and_the_model_follows(watched: tuple[Home, Path]) -> None:
    home, folder = watched
    champion = home.status()["champion"]["digest"]
    # since the promotion
    assert (home.path / "monitor" / "references" / champion / "reference.json").is_file()

    report = json.loads(
        home("monitor", "--once", "--json", "-p", "smoke", *chosen(folder), timeout=900)
    )
    assert report["outcome"] == "retrain", report
    decision = report["decision"]
    assert decision["result"] == "promoted", decision
    assert set(decision["forgetting"]) == {"interests.micro_f1", "recommend.ndcg@10"}
    live = home.status()["champion"]
    assert live["version"] == decision["version"] == "2" and live["digest"] != champion
    assert (home.path / "monitor" / "references" / live["digest"] / "reference.json").is_file()

    data = home.path / "monitor" / "retrainings" / decision["run"] / "data"
    window, events = (
        read_json(data / "ingest.json")["window"],
        read_parquet(data / "events.parquet"),
    )
    assert events["time"].max() < window["until"] and events.height == window["events"]
    run = read_json(home.path / "runs" / decision["training_run"] / "run.json")
    # from the champion's weights
    assert run["settings"]["training"]["encoder"].endswith("/models/interests+intent")
    snapshots = read_parquet(Path(run["artifacts"]["snapshots"]) / "events.parquet")
    assert set(snapshots["user"]) <= set(events["user"])  # pseudonyms stay what they are

    again = json.loads(
        home("monitor", "--once", "--json", "-p", "smoke", *chosen(folder), timeout=300)
    )
    assert len(home.status()["versions"]) == 2 and again["resumed"] == []
    (entry,) = [e for e in json.loads(home("history", "--json")) if e["outcome"] == "retrain"]
    assert entry["result"] == "promoted"


def test_what_would_be_forgotten_is_refused_and_a_killed_retraining_is_carried_on(
    watched: tuple[Home, Path],
) -> None:
    home, folder = watched
    champion = home.status()["champion"]
    command = (
        "monitor",
        "--once",
        "--json",
        "-p",
        "smoke",
        *chosen(folder, retraining__forgetting=0.0),
    )
    process = home.start(*command)
    runs = home.path / "runs"
    wait_for(lambda: len(list(runs.iterdir())) == 2 and "prepare" in newest(runs), 600)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    report = json.loads(home(*command, timeout=900))
    (entry,) = report["resumed"]
    assert (entry["result"], entry["attempts"]) == ("rejected", 2)
    assert "on earlier data" in entry["reason"] and "may be worse" in entry["reason"]
    assert home.status()["champion"] == champion


def newest(runs: Path) -> str:
    steps = max(runs.iterdir()) / "steps.jsonl"  # written with its first step, after its folder
    return steps.read_text() if steps.is_file() else ""
