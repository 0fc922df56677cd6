"""From a change of taste to a retrained, gated, promoted model, with the real training pipeline."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tasteloop.behaviour.events import EVENTS_SCHEMA
from tasteloop.files import read_json, read_parquet, write_parquet
from tests.support.homes import LABELS, START, Home, movielens, settings, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

HOUR = 3600
WINDOW = 240  # hours: forty users


def chosen(folder: Path, **more: Any) -> list[str]:
    return settings(
        ingest__behaviour=str(folder),
        ingest__reviews=None,
        gate__floors={"interests.micro_f1": 0.01},
        gate__beats=[],
        watch__windows={"hours": WINDOW, "horizon_hours": 1, "lateness_hours": 1},
        watch__drift={"draws": 199, "texts": 50},
        decision__minimum=20,
        decision__alpha=0.05,
        decision__windows=2,
        retraining__recent_days=15,
        **{"retraining__forgetting": 1.0, **more},
    )


def turned(users: int = 80) -> pl.DataFrame:
    """As many users again after the data, and all want horror."""
    rows = []
    for u in range(users):
        for n in range(30):
            item = (4 * (u + n) + LABELS.index("Horror")) % 40 if n % 3 else (u + n) % 40
            at = START + 6 * HOUR * (80 + u) + 600 * n
            rows.append(
                (f"{u:032x}", str(item), "rate", at * 1_000_000, 1.0 if n % 3 else 0.25, None)
            )
    last = START + 6 * HOUR * (80 + users) + WINDOW * HOUR  # closes the last window
    rows.append(("f" * 32, "1", "rate", last * 1_000_000, 1.0, None))
    return pl.DataFrame(rows, schema=dict(EVENTS_SCHEMA.to_polars()), orient="row")


@pytest.fixture
def watched(home: Home, tmp_path: Path) -> tuple[Home, Path]:
    """A home with a champion, and changed behaviour that has come."""
    folder = movielens(tmp_path / "ml", users=80, each=30)
    assert home.run(*chosen(folder))["outcome"] == "promoted"
    write_parquet(home.path / "incoming" / "a.parquet", turned())
    return home, folder


def test_taste_changes_and_the_model_follows(watched: tuple[Home, Path]) -> None:
    home, folder = watched
    champion = home.status()["champion"]["digest"]
    # since the promotion
    assert (home.path / "monitor" / "references" / champion / "reference.json").is_file()

    told = json.loads(
        home("monitor", "--once", "--json", "-p", "smoke", *chosen(folder), timeout=900)
    )
    assert told["outcome"] == "retrain", told
    decision = told["decision"]
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
    assert run["settings"]["training"]["encoder"].endswith("/models/interests")
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
    told = json.loads(home(*command, timeout=900))
    (entry,) = told["resumed"]
    assert (entry["result"], entry["attempts"]) == ("rejected", 2)
    assert "on earlier data" in entry["reason"] and "may be worse" in entry["reason"]
    assert home.status()["champion"] == champion


def newest(runs: Path) -> str:
    steps = max(runs.iterdir()) / "steps.jsonl"  # written with its first step, after its folder
    return steps.read_text() if steps.is_file() else ""
