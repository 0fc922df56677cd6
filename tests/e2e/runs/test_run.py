"""Whole runs of the smoke profile: promoted, used again, refused, killed and carried on."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml

from tests.support.homes import ROOT, Home, mapped, movielens, rated, reused, settings, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

HEAVY = {"ingest", "prepare", "finetune", "fit-recommender"}
HTML = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A home in which the smoke profile was run once."""
    home = Home(tmp_path_factory.mktemp("smoke") / "home")
    return home, home.run()


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


def test_runs_at_the_same_time_do_not_harm_each_other(smoke):
    home, _ = smoke
    started = [
        home.start("run", "--profile", "smoke", "--json", "--set", "training.seed=11")
        for _ in range(2)
    ]
    ended = [json.loads(process.communicate(timeout=400)[0]) for process in started]
    assert {facts["code"] for facts in ended} <= {0, 3}
    assert ended[0]["id"] != ended[1]["id"]
    assert sum("finetune" in reused(facts) for facts in ended) == 1  # one waited for the other
    assert ended[0]["artifacts"]["model"] == ended[1]["artifacts"]["model"]
    assert home.status()["champion"] is not None


def test_a_killed_run_carries_on_from_its_checkpoint(smoke):
    home, _ = smoke
    changed = settings(training__seed=7, training__checkpoint_seconds=1)
    before = set((home.path / "checkpoints").iterdir())
    process = home.start("run", "--profile", "smoke", "--json", *changed)
    wait_for(
        lambda: any(
            any(new.rglob("checkpoint/state.json"))
            for new in set((home.path / "checkpoints").iterdir()) - before
        )
    )
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()

    assert home.status()["runs"][0]["outcome"] == "killed"
    facts = home.run(*changed)
    assert {"ingest", "prepare"} <= reused(facts)
    assert (
        "resumed from epoch 1, step" in (home.path / "runs" / facts["id"] / "log.txt").read_text()
    )
    assert facts["outcome"] == "promoted"


def test_sigterm_ends_a_run_and_its_steps(home):
    process = home.start("run", "--profile", "smoke", "--json")
    wait_for(
        lambda: any(
            "validate" in path.read_text() for path in (home.path / "runs").glob("*/steps.jsonl")
        )
    )
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "carries on" in err
    assert home.status()["runs"][0]["outcome"] == "interrupted"


def test_a_movielens_folder_runs(home, tmp_path):
    folder = movielens(tmp_path / "ml", users=80, each=30)
    facts = home.run(
        *settings(
            ingest__behaviour=str(folder),
            ingest__reviews=None,
            gate__floors={"interests.micro_f1": 0.01},
            gate__beats=[],
        )
    )
    assert facts["outcome"] == "promoted"
    assert not any(name.startswith("sentiment.") for name in facts["metrics"])


def raw_id(u: int) -> str:
    return f"quokka.{u}@warren-mail.example"


def everything_written(home: Path) -> str:
    """All that a reader could get out of a home: files as they are, Parquet and SQLite decoded."""
    parts = []
    for path in sorted(home.rglob("*")):
        if not path.is_file() or path.name == "pseudonym.key":
            continue
        parts += [path.name, path.read_bytes().decode("utf-8", "replace")]
        if path.suffix == ".parquet":
            parts.append(pl.read_parquet(path).write_ndjson())
        if path.suffix == ".db":
            with sqlite3.connect(path) as database:
                parts += list(database.iterdump())
    return "\n".join(parts)


def test_a_mapped_csv_runs_with_html_in_its_titles_and_no_raw_user_id_is_written(home, tmp_path):
    rows = rated(users=80, each=30, name=raw_id)
    for u in range(0, 80, 4):
        rows.append([raw_id(u), "", "searched", "", 1_700_000_500 + u, "a western with horses"])
        rows.append([raw_id(u), u % 40, "danced", 3, 1_700_000_600 + u, ""])  # a kind nobody knows
        rows.append([raw_id(u), u % 40, "rated", 3, -5, ""])  # before 1970
        rows.append([raw_id(u), u % 40, "rated", 77, 1_700_000_700 + u, ""])  # off the scale
    mapping = mapped(tmp_path / "mine", rows, title=HTML)
    facts = home.run(
        *settings(
            ingest__behaviour=str(mapping),
            ingest__reviews=None,
            gate__floors={"interests.micro_f1": 0.01},
            gate__beats=[],
        )
    )
    assert facts["outcome"] == "promoted"
    page = Path(home("report", "--run", facts["id"]).strip())

    written = everything_written(home.path)
    assert "quokka" not in written
    assert "warren-mail" not in written
    assert "danced" in written  # the quarantine kept what was rejected, without its user
    for path in [page, *home.path.rglob("*.html")]:
        assert HTML not in path.read_text()


def poisoned(folder: Path, poison: str) -> Path:
    rows = rated()
    match poison:
        case "unknown kinds":
            return mapped(folder, [[who, what, "danced", *rest] for who, what, _, *rest in rows])
        case "negative times":
            return mapped(folder, [[*start, -at, said] for *start, at, said in rows])
        case "one user":
            return mapped(folder, [["only", *rest] for _, *rest in rows])
        case "one label":
            return mapped(folder, rows, labels=["Drama"])
        case "no rows":
            return mapped(folder, [])
    raise AssertionError(poison)


@pytest.mark.parametrize(
    "poison", ["unknown kinds", "negative times", "one user", "one label", "no rows"]
)
def test_poisoned_data_is_refused_with_a_reason_and_nothing_is_trained(home, tmp_path, poison):
    mapping = poisoned(tmp_path / "mine", poison)
    process = home.start(
        "run",
        "--profile",
        "smoke",
        "--json",
        *settings(ingest__behaviour=str(mapping), ingest__reviews=None),
    )
    out, err = process.communicate(timeout=280)
    assert "Traceback" not in out + err
    if process.returncode == 2:  # a source of which nothing can be read is the caller's mistake
        assert poison == "no rows"
        assert "log.csv" in err
        return
    assert process.returncode == 4, out + err
    facts = json.loads(out)
    assert facts["outcome"] == "refused"
    assert "error" in facts["reason"]
    assert [step["step"] for step in facts["steps"]] == ["ingest", "validate"]
    assert not (home.path / "checkpoints").exists()
    assert home.status()["versions"] == []
    assert Path(home("report").strip()).is_file()


@pytest.mark.parametrize("poison", ["empty file", "truncated Parquet"])
def test_a_file_that_cannot_be_read_is_one_clear_message(home, tmp_path, poison):
    mapping = mapped(tmp_path / "mine", rated())
    log = mapping.parent / "log.csv"
    if poison == "empty file":
        log.write_text("")
    else:
        table = pl.read_csv(log)
        log = log.with_suffix(".parquet")
        table.write_parquet(log)
        log.write_bytes(log.read_bytes()[: log.stat().st_size // 2])
        changed = yaml.safe_load(mapping.read_text()) | {"events": log.name}
        mapping.write_text(yaml.safe_dump(changed))
    said = home(
        "run",
        "--profile",
        "smoke",
        *settings(ingest__behaviour=str(mapping), ingest__reviews=None),
        code=2,
    )
    assert log.name in said
    assert home.status()["versions"] == []
    assert home.status()["runs"][0]["outcome"] == "failed"
