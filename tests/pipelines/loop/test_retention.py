"""What the monitor removes, and what it never does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from pipelines.loop.retention import prune
from pipelines.settings import load_settings
from tasteloop.bundle.manifest import seal, verify
from tasteloop.files import write_json, write_parquet
from tests.support.champions import promote
from validation.monitor.decision import Decision, Evidence, key_of
from validation.monitor.ledger import Lease, Ledger
from validation.monitor.windows import HOUR

DAY = 24 * HOUR
END = 1000 * DAY  # of the reference


@pytest.fixture(scope="module")
def two(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The bundle of the champion before, and the live one."""
    other = tmp_path_factory.mktemp("bundles") / "other"
    shutil.copytree(tiny_bundle, other)
    (other / "README.md").write_text("another one")
    seal(other)
    return tiny_bundle, other


@pytest.fixture
def home(two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for bundle, expected in zip(two, (None, verify(two[0])), strict=True):
        promote(bundle, tmp_path, expected)
    return tmp_path / "home"


@pytest.fixture
def lease(home: Path) -> Iterator[Lease]:
    with Ledger(home / "monitor").lease() as held:
        yield held


def remove(lease: Lease, live: Path, **rules: Any) -> set[str]:
    """What a pass removes, by its path in the home."""
    home = lease.ledger.directory.parent
    watch = load_settings("smoke").watch
    reference: Any = SimpleNamespace(champion=verify(live), end=END, settings=watch)
    settings = load_settings(
        "smoke", [f"retention.{name}={value}" for name, value in rules.items()]
    )
    gone = prune(lease, settings, reference)
    assert not any(path.exists() for path in gone) and not list(home.rglob(".gone-*"))
    return {str(path.relative_to(home)) for path in gone}


def directory(path: Path, age: int = 0) -> Path:
    path.mkdir(parents=True)
    (path / "file").write_text("some")
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def test_the_newest_windows_stay_and_the_ledger_says_what_went(
    home: Path, lease: Lease, two: tuple[Path, Path]
) -> None:
    for start, end in ((8, 9), (9, 10), (10, 11), (99, 100)):  # by time, not by name
        directory(home / "monitor" / "windows" / f"{start}-{end}-abc")
    directory(home / "monitor" / "windows" / "mine")
    assert remove(lease, two[1], windows=2) == {
        "monitor/windows/8-9-abc",
        "monitor/windows/9-10-abc",
    }
    assert remove(lease, two[1], windows=2) == set()
    (record,) = lease.ledger.records()
    assert record.kind == "pruned" and len(record.body["removed"]) == 2
    assert lease.ledger.history() == [] and (home / "monitor" / "windows" / "mine").is_dir()


def test_references_of_the_champion_and_the_one_before_stay_however_old(
    home: Path, lease: Lease, two: tuple[Path, Path]
) -> None:
    references = home / "monitor" / "references"
    used = [directory(references / verify(bundle), age=1000) for bundle in two]
    for n in range(3):
        directory(references / f"{n}", age=n)
    assert remove(lease, two[1], champions=1) == {"monitor/references/1", "monitor/references/2"}
    assert remove(lease, two[1], champions=0) == {"monitor/references/0"}
    assert all(path.is_dir() for path in used)


def test_data_that_a_retraining_would_begin_with_stays(
    home: Path, lease: Lease, two: tuple[Path, Path]
) -> None:
    monitor = home / "monitor"
    base, window = (
        directory(monitor / "data" / "first" / "dataset"),
        monitor / "retrainings" / "used" / "data",
    )
    directory(window)
    for unused in ("data/second", "retrainings/unused"):
        directory(monitor / unused)
    write_json(window / "ingest.json", {"base": str(base)})
    made = {
        "bundle": str(two[1]),
        "snapshots": str(directory(home / "pipeline" / "artifacts" / "snapshots")),
    }
    run = {
        "outcome": "promoted",
        "settings": {"ingest": {"behaviour": str(window)}},
        "artifacts": made,
    }
    (home / "runs" / "r").mkdir(parents=True)
    write_json(home / "runs" / "r" / "run.json", {"id": "r", **run})
    assert remove(lease, two[1], champions=0) == {
        "monitor/data/second",
        "monitor/retrainings/unused",
    }
    assert (base / "file").is_file() and (window / "ingest.json").is_file()


def events(path: Path, *days: int) -> None:
    write_parquet(
        path,
        pl.DataFrame({"user": ["u"] * len(days), "kind": ["view"] * len(days), "time": [*days]}),
    )


def test_files_of_events_that_ended_long_ago_go_once_nothing_needs_them(
    home: Path, lease: Lease, two: tuple[Path, Path]
) -> None:
    incoming = home / "incoming"
    for name, days in (("old", (1, 600)), ("spanning", (1, 900)), ("new", (998,)), ("items", (1,))):
        events(incoming / f"{name}.parquet", *(day * DAY for day in days))
    (incoming / "torn.parquet").write_bytes(b"PAR1 and no more")
    assert remove(lease, two[1], incoming_days="null") == set()
    assert remove(lease, two[1], incoming_days=500) == set()
    assert remove(lease, two[1], incoming_days=365) == {"incoming/old.parquet"}
    recent = load_settings(
        "smoke"
    ).retraining.recent_days  # such users come with their whole history
    assert recent < 101 and remove(lease, two[1], incoming_days=1) == {"incoming/spanning.parquet"}
    seen = Evidence(
        id="e", window=f"0/{END + 500 * DAY}", end=END + 500 * DAY, reference="r", champion="c"
    )
    lease.ledger.append(
        lease, "window", key_of("r", seen.window, "c"), seen.model_dump(mode="json")
    )
    # answers before the reference's end mature with it
    events(incoming / "horizon.parquet", END - 1)
    assert remove(lease, two[1], incoming_days=100) == {"incoming/new.parquet"}


def test_nothing_goes_while_a_retraining_is_under_way_and_what_a_kill_left_goes(
    home: Path, lease: Lease, two: tuple[Path, Path]
) -> None:
    directory(home / "monitor" / "references" / ".gone-half")
    directory(home / "monitor" / "references" / "old")
    decided = Decision(outcome="retrain", reasons=("r",), evidence=("e",), key="k")
    lease.ledger.append(lease, "decided", "k", {**decided.model_dump(mode="json"), "now": 1})
    assert remove(lease, two[1], champions=0) == set()
    lease.ledger.append(lease, "finished", "k", {"result": "rejected"})
    assert remove(lease, two[1], champions=0) == {"monitor/references/old"}
