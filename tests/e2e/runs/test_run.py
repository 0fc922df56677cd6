"""Whole runs of the smoke profile: promoted, used again, backed up and refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.homes import ROOT, Home, reused, settings, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

HEAVY = {"ingest", "prepare", "finetune", "fit-recommender"}


def test_a_first_run_is_promoted_and_tells_what_it_did(smoke):
    home, facts = smoke
    assert (facts["outcome"], facts["code"]) == ("promoted", 0)
    assert facts["version"] == "1"
    assert [step["step"] for step in facts["steps"]] == [
        "ingest",
        "validate",
        "prepare",
        "finetune",
        "fit-recommender",
        "champion",
        "evaluate",
        "gate",
        "record",
        "rehearse",
        "promote",
    ]
    assert not reused(facts)
    assert facts["overhead"] == pytest.approx(facts["seconds"] - facts["work"], abs=0.01)
    assert all(
        value is None or isinstance(value, float | int) for value in facts["metrics"].values()
    )
    assert {"interests.micro_f1", "recommend.ndcg@10", "sentiment.accuracy"} <= set(
        facts["metrics"]
    )
    assert facts["understanding"]["mean"] == facts["metrics"]["understanding"]
    directory = home.path / "runs" / facts["id"]
    for name in (
        "settings.yaml",
        "log.txt",
        "validation.json",
        "evaluation.json",
        "verdict.json",
        "report.html",
    ):
        assert (directory / name).is_file(), name
    assert yaml.safe_load((directory / "settings.yaml").read_text()) == facts["settings"]
    assert Path(facts["artifacts"]["bundle"], "manifest.json").is_file()


def test_status_and_report_show_it(smoke):
    home, facts = smoke
    status = home.status()
    assert status["champion"]["version"] == "1"
    assert facts["id"] in [run["id"] for run in status["runs"]]
    page = Path(home("report", "--run", facts["id"]).strip())
    assert page.parent == home.path / "reports"
    assert "<html" in page.read_text()


def test_a_home_is_its_users_alone_the_registry_and_its_artifacts_too(smoke):
    home, _ = smoke
    open_to_others = [
        p
        for p in (home.path, *home.path.rglob("*"))
        if p.lstat().st_mode & 0o077 and not p.is_symlink()
    ]
    assert (home.path / "mlflow.db").is_file()
    assert open_to_others == []


def test_an_unchanged_run_uses_everything_again_and_changes_nothing(smoke):
    home, first = smoke
    again = home.run()
    assert (again["outcome"], again["code"]) == ("unchanged", 0)
    assert reused(again) == HEAVY | {"evaluate"}
    assert again["artifacts"]["bundle"] == first["artifacts"]["bundle"]
    assert [version["version"] for version in home.status()["versions"]] == ["1"]


def runbook(heading: str, **places: Path) -> None:
    """Type what docs/operations.md says under a heading, with other places."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    block = re.search(rf"^## {heading}$.*?^```bash\n(.*?)^```", text, re.M | re.S).group(1)
    typed = re.sub(r"^export \w+=.*$", "", block, flags=re.M)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {
        **os.environ,
        "PATH": path,
        **{name: str(place) for name, place in places.items()},
    }
    environment.pop("MLFLOW_TRACKING_URI", None)
    done = subprocess.run(
        ["bash", "-euc", typed],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_backup_is_restored_at_another_path_and_everything_goes_on(smoke, tmp_path):
    home, first = smoke
    restored, gone = Home(tmp_path / "restored here, 100% #1?"), home.path.with_name("gone")
    runbook("Back up", BACKUP=tmp_path / "backup", TASTELOOP_HOME=home.path)
    home.path.rename(gone)
    try:
        runbook("Restore", BACKUP=tmp_path / "backup", TASTELOOP_HOME=restored.path)
        facts = restored.path / "runs" / first["id"] / "run.json"
        told = json.loads(facts.read_text())
        del told["home"]  # which earlier versions did not write
        facts.write_text(json.dumps(told))
        shutil.rmtree(restored.path / "monitor" / "references")

        status = restored.status()
        assert status["champion"]["version"] == "1"
        assert all(
            Path(path).is_relative_to(restored.path)
            for path in status["runs"][-1]["artifacts"].values()
        )
        assert "no previous champion" in restored("rollback", code=2)
        assert json.loads(restored("history", "--json")) == []
        # which needs the run's snapshots
        watched = json.loads(restored("monitor", "--once", "--json", "-p", "smoke"))
        assert watched["champion"] == "1"
        again = restored.run()
        assert (again["outcome"], reused(again)) == ("unchanged", HEAVY | {"evaluate"})
        assert all(Path(path).is_relative_to(restored.path) for path in again["artifacts"].values())
        assert Path(restored("report").strip()).is_file()
        ready = tmp_path / "ready.json"
        server = restored.start(
            "serve", "--port", "0", "--grpc-port", "0", "--ready-file", str(ready)
        )
        wait_for(lambda: ready.is_file() or server.poll() is not None)
        server.terminate()
        _, said = server.communicate(timeout=60)
        assert ready.is_file() and server.returncode == 0 and "version 1, on http" in said, said
        assert not home.path.exists()
    finally:
        gone.rename(home.path)


def test_a_result_that_was_deleted_or_changed_is_made_again(smoke):
    home, first = smoke
    evaluation = Path(first["artifacts"]["evaluation"])
    shutil.rmtree(evaluation)
    again = home.run()
    assert again["code"] == 0
    assert reused(again) == HEAVY
    made = Path(again["artifacts"]["evaluation"])
    assert made != evaluation

    report = made / "evaluation.json"
    report.write_bytes(report.read_bytes()[:-20])
    again = home.run()
    assert again["code"] == 0
    assert reused(again) == HEAVY


def test_the_gate_says_no_with_reasons_and_the_champion_stays(smoke):
    home, _ = smoke
    facts = home.run(*settings(**{"gate__floors__interests.micro_f1": 0.9999}), code=3)
    assert facts["outcome"] == "rejected"
    assert "interests.micro_f1" in facts["reason"]
    assert "0.9999" in facts["reason"]
    assert reused(facts) >= HEAVY
    assert home.status()["champion"]["version"] == "1"
    out = home(
        "run", "--profile", "smoke", "--set", "gate.floors.interests.micro_f1=0.9999", code=3
    )
    assert "rejected" in out
    assert "below its floor" in out
