"""The laws of the registry on a real MLflow: recorded once, promoted whole, rolled
back in steps.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from serving.release import mlflow_store, promotion, registry
from serving.release.database import change_stamp, sqlite_path, sqlite_uri, tracking_uri
from serving.release.last_versions import RegistryLost
from tasteloop import files
from tasteloop.errors import TasteloopError
from tasteloop.home import Home
from tests.support.registries import (
    SETTINGS,
    VERDICT,
    candidate,
    copy_empty_home,
    first_use_of_a_home,
    live,
    live_digest,
    make_bundle,
    make_evaluation,
    rehearsal,
    start,
)

HOUSE = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def first_use(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A home that two processes used for the first time at once, and what each found there."""
    return first_use_of_a_home(tmp_path_factory)


@pytest.fixture
def home(
    first_use: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A home of its own with an empty registry, copied: making one takes seconds."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)
    home = copy_empty_home(first_use[0], tmp_path / "home")
    monkeypatch.setenv("TASTELOOP_HOME", str(home))
    return home


def promoted(folder: Path, *names: str) -> list[str]:
    versions = []
    for name in names:
        versions.append(candidate(folder, name).version)
        promotion.promote(versions[-1], live_digest())
    return versions


def walk_back() -> list[str]:
    """The versions that repeated rollbacks make live."""
    walked = []
    while True:
        try:
            walked.append(promotion.rollback().version)
        except TasteloopError:
            return walked


# Recording


def test_a_question_to_an_unused_home_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path / "none"))
    assert registry.champion() is None
    assert registry.versions() == []
    assert not (tmp_path / "none").exists()


def test_record_logs_everything(home: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    bundle, evaluation = (
        make_bundle(tmp_path / "b", "b"),
        make_evaluation(tmp_path / "evaluation.json"),
    )
    report = tmp_path / "report.html"
    report.write_text("<!doctype html>")
    recorded = registry.record(bundle, evaluation, VERDICT, SETTINGS, report)
    assert (recorded.version, recorded.new) == ("1", True)

    client = MlflowClient(tracking_uri=tracking_uri(), registry_uri=tracking_uri())
    run = client.get_run(recorded.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {
        "finetune.epochs": "2",
        "finetune.layers.frozen": "[0, 1]",
        "ingest.behaviour": "ml-100k",
    }
    assert run.data.metrics == {
        "interests.micro_f1": 0.6,
        "interests.micro_f1.low": pytest.approx(0.59),
        "interests.micro_f1.high": pytest.approx(0.61),
        "recommend.ndcg_at_10": 0.6,
        "recommend.ndcg_at_10.high": pytest.approx(0.61),
        "baseline.popularity.recommend.ndcg_at_10": 0.6,
        "baseline.popularity.recommend.ndcg_at_10.low": pytest.approx(0.59),
        "baseline.popularity.recommend.ndcg_at_10.high": pytest.approx(0.61),
    }
    assert run.data.tags["lineage.code"] == "1.0+abc"
    assert run.data.tags["lineage.data"] == "f00d"
    artifacts = {artifact.path for artifact in client.list_artifacts(recorded.run_id)}
    assert artifacts == {"bundle", "evaluation.json", "verdict.json", "report.html"}

    found = registry.find("1")
    assert found.path.is_relative_to(home / "mlartifacts")
    assert files.sha256_tree(found.path) == files.sha256_tree(bundle)
    assert found.digest == files.sha256_file(bundle / "manifest.json")


def test_record_is_idempotent(home: Path, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", "b")
    first = registry.record(bundle, make_evaluation(tmp_path / "e.json"), VERDICT, SETTINGS)
    again = registry.record(bundle, tmp_path / "e.json", VERDICT, SETTINGS)
    assert (again.version, again.run_id, again.new) == (first.version, first.run_id, False)
    other = registry.record(bundle, make_evaluation(tmp_path / "e2.json", 0.7), VERDICT, SETTINGS)
    assert other.version == "2"
    refused = registry.record(bundle, tmp_path / "e.json", replace(VERDICT, passed=False), SETTINGS)
    assert refused.version == "3", "another verdict is another decision"
    assert [version.passed for version in registry.versions()] == [False, True, True]


def test_record_refuses_what_is_not_whole(home: Path, tmp_path: Path) -> None:
    bundle, evaluation = make_bundle(tmp_path / "b", "b"), make_evaluation(tmp_path / "e.json")
    (bundle / "card.json").write_text("{}")
    with pytest.raises(TasteloopError):
        registry.record(bundle, evaluation, VERDICT, SETTINGS)
    evaluation.write_text('{"metrics": ')
    with pytest.raises(TasteloopError):
        registry.record(make_bundle(tmp_path / "c", "c"), evaluation, VERDICT, SETTINGS)
    assert registry.versions() == []


# Promotion


def test_the_first_promotion(home: Path, tmp_path: Path) -> None:
    recorded = candidate(tmp_path, "a")
    assert live() is None
    champion = promotion.promote(recorded.version, None)
    assert champion == registry.champion()
    assert [(v.version, v.champion, v.rehearsed) for v in registry.versions()] == [
        ("1", True, True)
    ]
    assert promotion.promote(recorded.version, None) == champion, "a promotion can be tried again"


def test_no_promotion_against_another_champion(home: Path, tmp_path: Path) -> None:
    a, b, c = (candidate(tmp_path, name).version for name in "abc")
    promotion.promote(a, None)
    before = live_digest()
    promotion.promote(b, before)
    for expected in (before, None, "", "0" * 64):
        with pytest.raises(promotion.ChampionMoved, match=f"version {c} was compared with"):
            promotion.promote(c, expected)
    assert live() == b


@pytest.mark.parametrize(
    ("passed", "rehearsed", "message"), [(False, True, "the gate"), (True, False, "a rehearsal")]
)
def test_no_promotion_without(
    home: Path, tmp_path: Path, passed: bool, rehearsed: bool, message: str
) -> None:
    version = candidate(tmp_path, "a", passed, rehearsed).version
    with pytest.raises(TasteloopError, match=f"has not passed {message}"):
        promotion.promote(version, None)
    assert live() is None


def test_a_failed_rehearsal_is_no_rehearsal(home: Path, tmp_path: Path) -> None:
    version = candidate(tmp_path, "a").version
    registry.attach_rehearsal(version, rehearsal(tmp_path / "r.json", tmp_path / "a", passed=False))
    with pytest.raises(TasteloopError, match="a rehearsal"):
        promotion.promote(version, None)


def test_a_rehearsal_that_found_no_whole_bundle_is_kept_too(home: Path, tmp_path: Path) -> None:
    version = candidate(tmp_path, "a", rehearsed=False).version
    files.write_json(
        tmp_path / "r.json", {"passed": False, "reason": "manifest.json is cut off", "digest": ""}
    )
    registry.attach_rehearsal(version, tmp_path / "r.json")
    assert [v.rehearsed for v in registry.versions()] == [False]


def test_a_rehearsal_of_another_bundle_is_refused(home: Path, tmp_path: Path) -> None:
    version = candidate(tmp_path, "a", rehearsed=False).version
    other = make_bundle(tmp_path / "other", "other")
    with pytest.raises(TasteloopError, match="not about version 1"):
        registry.attach_rehearsal(version, rehearsal(tmp_path / "r.json", other))


def test_what_is_no_rehearsal_is_not_attached(home: Path, tmp_path: Path) -> None:
    version = candidate(tmp_path, "a").version
    files.write_json(tmp_path / "r.json", {})

    with pytest.raises(TasteloopError, match="not a rehearsal's outcome"):
        registry.attach_rehearsal(version, tmp_path / "r.json")

    assert [v.rehearsed for v in registry.versions()] == [True]


def test_an_unknown_version(home: Path, tmp_path: Path) -> None:
    candidate(tmp_path, "a")
    for version in ("9", "x", ""):
        with pytest.raises(TasteloopError, match="there is no version .* registered: 1"):
            promotion.promote(version, None)


def test_a_damaged_bundle_is_not_promoted_nor_found(home: Path, tmp_path: Path) -> None:
    a, b = (candidate(tmp_path, name).version for name in "ab")
    path = registry.find(b).path
    promotion.promote(a, None)
    (path / "card.json").write_text("{}")
    with pytest.raises(TasteloopError):
        promotion.promote(b, live_digest())
    assert live() == a
    shutil.rmtree(path)
    with pytest.raises(TasteloopError, match="version 2 is gone"):
        registry.find(b)


# Rollback


def test_rollback_walks_back(home: Path, tmp_path: Path) -> None:
    a, b, c = promoted(tmp_path, "a", "b", "c")
    assert promotion.rollback().version == b
    assert live() == b
    assert promotion.rollback().version == a
    with pytest.raises(
        TasteloopError, match=r"no previous champion to go back to \(live: version 1\)"
    ):
        promotion.rollback()
    assert live() == a


def test_promotion_after_rollback(home: Path, tmp_path: Path) -> None:
    a, b, c = promoted(tmp_path, "a", "b", "c")
    promotion.rollback()
    promotion.promote(c, live_digest())
    assert walk_back() == [b, a]


def test_promoting_an_old_champion_again(home: Path, tmp_path: Path) -> None:
    a, b = promoted(tmp_path, "a", "b")
    promotion.promote(a, live_digest())
    assert walk_back() == [b, a]


def test_rollback_of_the_champion_that_was_meant_and_no_other(home: Path, tmp_path: Path) -> None:
    assert registry.previous() is None
    a, b = promoted(tmp_path, "a", "b")
    meant = live_digest()
    assert registry.previous() == (a, registry.find(a).digest)
    with pytest.raises(promotion.ChampionMoved, match="nothing was rolled back"):
        promotion.rollback(expected="f" * 64)
    assert live() == b
    assert promotion.rollback(expected=meant).version == a
    with pytest.raises(promotion.ChampionMoved):  # a second time
        promotion.rollback(expected=meant)
    assert live() == a and registry.previous() is None


def test_nothing_to_roll_back(home: Path) -> None:
    with pytest.raises(TasteloopError, match=r"\(live: none\)"):
        promotion.rollback()


def test_no_rollback_to_a_damaged_bundle(home: Path, tmp_path: Path) -> None:
    a, b = promoted(tmp_path, "a", "b")
    (registry.find(a).path / "card.json").write_text("{}")
    with pytest.raises(TasteloopError):
        promotion.rollback()
    assert live() == b


def test_a_promotion_says_when_and_in_whose_place(home: Path, tmp_path: Path) -> None:
    a, b = promoted(tmp_path, "a", "b")
    c = candidate(tmp_path, "c", rehearsed=False).version
    told = {v.version: v for v in registry.versions()}
    assert (told[a].replaced, told[b].replaced, told[c].replaced) == (None, a, None)
    assert (
        told[a].created <= (told[a].promoted or 0) <= (told[b].promoted or 0)
        and told[c].promoted is None
    )
    assert [(v.champion, v.was) for v in (told[a], told[b], told[c])] == [
        (False, True),
        (True, False),
        (False, False),
    ]


def test_the_evidence_of_a_version_is_what_is_left_of_it(home: Path, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "a", "a")
    evaluation = make_evaluation(tmp_path / registry.EVALUATION_FILE)
    version = registry.record(bundle, evaluation, VERDICT, SETTINGS).version
    assert list(registry.evidence(version)) == [registry.EVALUATION_FILE, registry.VERDICT_FILE]
    registry.attach_rehearsal(version, rehearsal(tmp_path / registry.REHEARSAL_FILE, bundle))
    evidence = registry.evidence(version)
    assert json.loads(evidence[registry.VERDICT_FILE]) == VERDICT.json()
    assert evidence[registry.EVALUATION_FILE] == evaluation.read_text()
    assert json.loads(evidence[registry.REHEARSAL_FILE])["passed"] is True
    shutil.rmtree(home / "mlartifacts")
    assert registry.evidence(version) == {}


# A registry that is lost, and one that is not asked


def lose(home: Path, how: str) -> None:
    """What becomes of the registry of a home that has a champion."""
    database = home / "mlflow.db"
    match how:
        case "missing":
            database.unlink()
        case "zero bytes":
            database.write_bytes(b"")
        case "no database":
            database.write_bytes(b"not a database, but long enough to be one" * 100)
        case "damaged":
            database.write_bytes(database.read_bytes()[:100] + b"\xff" * 50_000)
        case "other database":
            database.unlink()
            with closing(sqlite3.connect(database)) as other, other:
                other.execute("CREATE TABLE mine (a)")
        case "begun anew":
            with closing(sqlite3.connect(database)) as emptied, emptied:
                for table in ("registered_model_aliases", "model_version_tags", "model_versions"):
                    emptied.execute(f"DELETE FROM {table}")


LOSSES = ("missing", "zero bytes", "no database", "damaged", "other database", "begun anew")


@pytest.mark.parametrize("how", LOSSES)
def test_a_lost_registry_never_looks_like_an_empty_one(
    home: Path, tmp_path: Path, how: str
) -> None:
    promoted(tmp_path, "a")
    lose(home, how)

    for question in (
        registry.champion,
        registry.pointer,
        registry.previous,
        registry.versions,
        promotion.rollback,
    ):
        with pytest.raises(RegistryLost, match=r"version 1 \(.*backup.*reset-registry") as error:
            question()
        assert "\n" not in str(error.value)
    with pytest.raises(RegistryLost):
        promotion.promote("1", None)  # which would compare with nothing


@pytest.mark.parametrize("how", LOSSES)
def test_a_registry_that_is_restored_while_it_is_in_use_is_read_again(
    home: Path, tmp_path: Path, how: str
) -> None:
    promoted(tmp_path, "a", "b")
    backup = shutil.copy(home / "mlflow.db", tmp_path / "backup.db")
    lose(home, how)
    with pytest.raises(RegistryLost):
        registry.pointer()
    shutil.copy(backup, tmp_path / "restored.db")
    (tmp_path / "restored.db").replace(home / "mlflow.db")
    assert live() == "2"
    assert promotion.rollback().version == "1"


def test_a_lost_registry_is_reset_by_an_explicit_command_alone(home: Path, tmp_path: Path) -> None:
    with pytest.raises(TasteloopError, match="has had no champion: nothing is lost"):
        promotion.reset()
    promoted(tmp_path, "a")
    with pytest.raises(TasteloopError, match="has a champion, version 1"):
        promotion.reset()
    lose(home, "no database")
    files.write_json(Home(home).served_version, {"version": "1", "digest": "d"})

    aside = promotion.reset()
    assert aside is not None and aside.read_bytes().startswith(b"not a database")
    assert registry.champion() is None and registry.versions() == []
    assert not Home(home).served_version.exists()


@pytest.mark.parametrize("witness", ["served.json", "monitor/ledger.jsonl", "mlartifacts"])
def test_a_home_of_an_earlier_version_knows_that_it_had_a_champion(
    home: Path, tmp_path: Path, witness: str
) -> None:
    promoted(tmp_path, "a")
    shutil.rmtree(home / "mlartifacts")
    Home(home).champion_pointer.unlink()
    if witness == "mlartifacts":
        (home / witness / "run").mkdir(parents=True)
    else:
        files.write_json(home / witness, {"version": "1", "digest": "d"})
    lose(home, "zero bytes")
    with pytest.raises(RegistryLost, match="this home has had"):
        registry.champion()


def test_who_finds_a_champion_remembers_it(home: Path, tmp_path: Path) -> None:
    promoted(tmp_path, "a")
    noted = Home(home).champion_pointer.read_text()
    # a process that was killed just after it promoted, or an earlier version
    Home(home).champion_pointer.unlink()
    assert registry.pointer() is not None
    assert Home(home).champion_pointer.read_text() == noted


@pytest.mark.parametrize("damage", ["", "[]", '"text"', "{}", "\0"])
def test_a_damaged_memory_is_still_one(home: Path, tmp_path: Path, damage: str) -> None:
    promoted(tmp_path, "a")
    Home(home).champion_pointer.write_text(damage)
    lose(home, "missing")
    with pytest.raises(RegistryLost):
        registry.champion()


def test_an_empty_file_that_a_killed_first_user_left_is_no_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path))
    (tmp_path / "mlflow.db").touch()
    assert registry.champion() is None and registry.versions() == []


@pytest.mark.parametrize(
    "command", ["status", "serve", "rollback", "run", "report --site DIR", "monitor --once"]
)
@pytest.mark.parametrize("how", ["zero bytes", "damaged"])
def test_every_command_says_in_one_message_that_the_registry_is_lost(
    home: Path, tmp_path: Path, command: str, how: str
) -> None:
    promoted(tmp_path, "a")
    lose(home, how)
    if command == "run":  # whose step asks the same question, for the gate
        from components.champion import champion as step

        with pytest.raises(RegistryLost):
            step.python_func(bundle=SimpleNamespace(path=str(tmp_path / "a")))
        if how == "damaged":  # which only whoever reads all of it sees
            return
    from pipelines.cli.app import app

    words = [str(tmp_path / "site") if word == "DIR" else word for word in command.split()]
    if command == "serve":
        words = ["serve", "--port", "0", "--grpc-port", "0"]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, TasteloopError | SystemExit)
    said = str(result.exception) if isinstance(result.exception, TasteloopError) else result.output
    assert "this home has had a champion: version 1" in said and "Traceback" not in said
    assert result.exit_code != 0


def test_a_monitor_carries_nothing_on_while_the_registry_is_lost(
    home: Path, tmp_path: Path
) -> None:
    from pipelines.loop.monitoring import watch_once
    from pipelines.settings import load_settings
    from validation.monitor.decision import Decision
    from validation.monitor.ledger import Ledger

    promoted(tmp_path, "a")
    ledger = Ledger(home / "monitor")
    decided = Decision(outcome="retrain", reasons=("r",), evidence=("e",), key="k")
    with ledger.lease() as lease:
        ledger.append(lease, "decided", "k", {**decided.model_dump(mode="json"), "now": 1})
    lose(home, "missing")

    with pytest.raises(RegistryLost):
        watch_once(
            load_settings("smoke"),
            retrain=lambda _: pytest.fail("a retraining would end as failed"),
        )
    assert [record.kind for record in ledger.records()] == ["decided"]


@pytest.fixture
def remote(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """The database of an MLflow server that the home asks, and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    database = tmp_path / "server.db"
    (home / "mlflow.db").rename(database)
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    command += ["--backend-store-uri", f"sqlite:///{database}"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:SECRET@127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as server:
        try:
            deadline = time.monotonic() + 280
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                    break
                except OSError:
                    assert server.poll() is None and time.monotonic() < deadline
                    time.sleep(0.1)
            yield database, server
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)


@pytest.mark.slow
def test_an_mlflow_server_that_has_lost_the_champion_or_does_not_answer_is_no_new_one(
    remote: tuple[Path, subprocess.Popen[bytes]], home: Path, tmp_path: Path
) -> None:
    database, server = remote
    promoted(tmp_path, "a")
    assert "SECRET" not in Home(home).champion_pointer.read_text()

    for tables, why in (
        (("registered_model_aliases",), "has no champion"),
        (
            ("model_version_tags", "model_versions", "registered_model_tags", "registered_models"),
            "has no model",
        ),
    ):
        with closing(sqlite3.connect(database)) as lost, lost:
            for table in tables:
                lost.execute(f"DELETE FROM {table}")
        with pytest.raises(
            RegistryLost, match=f"{why}.*version 1 .* of http://.+@127.0.0.1"
        ) as error:
            registry.champion()
        assert "SECRET" not in str(error.value)
    mlflow_store.connect.cache_clear()  # as a new process, which would make the model
    with pytest.raises(RegistryLost, match="has no model 'tasteloop', but"):
        registry.champion()

    os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    for question in (
        registry.champion,
        registry.pointer,
        registry.versions,
        promotion.rollback,
        promotion.reset,
    ):
        with pytest.raises(TasteloopError, match="cannot be asked") as error:
            question()
        assert not isinstance(error.value, RegistryLost)
        assert "SECRET" not in str(error.value) and "\n" not in str(error.value)


# Paths

NASTY = (
    "a%20b",
    "100%",
    "?uri=false#%00",
    "ünïcödé 电影",
    "a'b\"c;d+e&f=g@h:i",
    "a\\b\nc",
    "[x]{$HOME}",
    "file:%2F",
)


@pytest.mark.parametrize("name", NASTY)
def test_a_home_may_have_any_name(
    first_use: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    home = tmp_path / "homes" / name
    home.mkdir(parents=True)
    shutil.copy(first_use[0] / "mlflow.db", home)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("TASTELOOP_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    before = {*tmp_path.iterdir()}

    bundle = make_bundle(tmp_path / "a", "a")
    recorded = registry.record(bundle, make_evaluation(tmp_path / "e.json"), VERDICT, SETTINGS)
    registry.attach_rehearsal(recorded.version, rehearsal(tmp_path / "rehearsal.json", bundle))
    champion = promotion.promote(recorded.version, None)

    assert champion == registry.champion()
    assert champion.path.is_relative_to(home / "mlartifacts")
    assert set(registry.evidence("1")) == {
        "e.json",
        registry.VERDICT_FILE,
        registry.REHEARSAL_FILE,
    } - {"e.json"}
    assert change_stamp() == change_stamp() != (0, 0)
    assert sqlite_path(tracking_uri()) == home / "mlflow.db"
    assert [path.name for path in home.parent.iterdir()] == [name]
    assert {*tmp_path.iterdir()} - before == {
        tmp_path / made for made in ("a", "e.json", "rehearsal.json")
    }


@pytest.mark.fuzz
@given(
    st.text(
        st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=40
    )
)
def test_an_sqlite_uri_names_the_same_file_to_sqlalchemy_and_sqlite(name: str) -> None:
    import sqlalchemy

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name[:80].encode()[:200].decode(errors="ignore").replace(".", "_")
        engine = sqlalchemy.create_engine(sqlite_uri(path))
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE t (a)")
        engine.dispose()
        assert [*Path(folder).iterdir()] == [path]
        assert sqlite_path(sqlite_uri(path)) == path


# A home that was moved


def use(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a new process that finds its home there: one that works on remembers where a run's
    artifacts were.
    """
    from mlflow.tracking._tracking_service import utils

    utils._artifact_repos_cache.clear()
    monkeypatch.setenv("TASTELOOP_HOME", str(home))


def test_a_home_that_was_moved_goes_on_where_it_is(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = promoted(tmp_path, "a", "b")
    moved = tmp_path / "restored & moved #1 100%"
    home.rename(moved)
    use(moved, monkeypatch)

    champion = registry.champion()
    assert champion is not None and champion.version == b and champion.path.is_relative_to(moved)
    assert set(registry.evidence(a)) == {registry.VERDICT_FILE}
    c = candidate(tmp_path, "c").version
    registry.attach_rehearsal(a, rehearsal(tmp_path / registry.REHEARSAL_FILE, tmp_path / "a"))
    assert registry.REHEARSAL_FILE in registry.evidence(a)
    promotion.promote(c, champion.digest)
    assert walk_back() == [b, a]
    assert not home.exists()


def test_a_copy_of_a_home_leaves_the_original_alone(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = promoted(tmp_path, "a", "b")
    copied = tmp_path / "copy"
    shutil.copytree(home, copied)
    before = files.sha256_tree(home)
    use(copied, monkeypatch)

    assert promotion.rollback().path.is_relative_to(copied)
    registry.attach_rehearsal(a, rehearsal(tmp_path / registry.REHEARSAL_FILE, tmp_path / "a"))
    assert files.sha256_tree(home) == before


def test_who_only_asks_which_version_is_live_rewrites_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(tmp_path, "a")
    moved = home.rename(tmp_path / "moved")  # as another machine may see a home under another path
    use(moved, monkeypatch)
    before = files.sha256_file(moved / "mlflow.db")
    assert registry.pointer() is not None and len(registry.versions()) == 1
    assert files.sha256_file(moved / "mlflow.db") == before


# Kills: every write is cut off just before and just after it happened


class Killed(BaseException):
    pass


WRITES = (
    "create_run",
    "log_batch",
    "log_artifacts",
    "log_artifact",
    "log_dict",
    "set_terminated",
    "create_model_version",
    "set_registered_model_tag",
    "set_registered_model_alias",
    "set_model_version_tag",
)


class Killer:
    """Kills at one moment: just before (even numbers) or just after (odd) one of MLflow's
    writes.
    """

    def __init__(self, moment: int) -> None:
        self.left = moment
        self.where = ""

    def watch(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def write(*args: Any, **options: Any) -> Any:
            self.pass_moment(f"before {name}")
            result = original(*args, **options)
            self.pass_moment(f"after {name}")
            return result

        return write

    def pass_moment(self, where: str) -> None:
        if self.left == 0:
            self.where = where
            raise Killed
        self.left -= 1


def killed_at_every_write(work: Callable[[], Any]) -> Iterator[str]:
    """Kill `work` at its first moment, its second, … until one attempt ends; yields where after
    each kill.
    """
    from mlflow import MlflowClient

    for moment in range(100):
        killer = Killer(moment)
        with pytest.MonkeyPatch.context() as patch:
            for name in WRITES:
                patch.setattr(MlflowClient, name, killer.watch(name, getattr(MlflowClient, name)))
            try:
                work()
                return
            except Killed:
                pass
        yield killer.where
    raise AssertionError("never ended")


def test_a_killed_record_can_be_tried_again(home: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri(), registry_uri=tracking_uri())
    kills = 0
    evaluation = make_evaluation(tmp_path / "e.json")
    bundle = make_bundle(tmp_path / "b", "b")
    for where in killed_at_every_write(
        lambda: registry.record(bundle, evaluation, VERDICT, SETTINGS)
    ):
        kills += 1
        for version in registry.versions():
            assert where == "after create_model_version"
            assert registry.find(version.version).digest == version.digest
    assert kills >= 13
    assert len(registry.versions()) == 1
    experiment = client.get_experiment_by_name("tasteloop")
    assert experiment is not None
    statuses = [run.info.status for run in client.search_runs([experiment.experiment_id])]
    assert statuses.count("RUNNING") == 0


def test_a_killed_promotion_is_the_state_before_or_after(home: Path, tmp_path: Path) -> None:
    a, b = promoted(tmp_path, "a", "b")
    c = candidate(tmp_path, "c").version
    before = live_digest()
    for where in killed_at_every_write(lambda: promotion.promote(c, before)):
        saved = (home / "mlflow.db").read_bytes()
        assert live() == (c if where == "after set_registered_model_alias" else b), where
        assert walk_back() == ([b, a] if live_was(saved, home) == c else [a]), where
        (home / "mlflow.db").write_bytes(saved)
    assert live() == c
    assert walk_back() == [b, a]


def test_a_killed_rollback_is_the_state_before_or_after(home: Path, tmp_path: Path) -> None:
    a, b, c = promoted(tmp_path, "a", "b", "c")
    start = (home / "mlflow.db").read_bytes()
    for where in killed_at_every_write(promotion.rollback):
        assert live() in (c, b), where
        assert walk_back() == ([b, a] if where == "before set_registered_model_alias" else [a]), (
            where
        )
        (home / "mlflow.db").write_bytes(start)
    assert live() == b
    assert walk_back() == [a]


def live_was(saved: bytes, home: Path) -> str | None:
    """The champion in a saved database."""
    (home / "mlflow.db").write_bytes(saved)
    return live()


# Several processes


PROMOTE = """
import sys
from serving.release import promotion, registry
registry.champion()
print("ready", flush=True)
sys.stdin.readline()
try:
    promotion.promote(sys.argv[1], sys.argv[2])
    print("won")
except promotion.ChampionMoved:
    print("lost")
"""


def test_of_two_promotions_against_one_champion_one_wins(home: Path, tmp_path: Path) -> None:
    promoted(tmp_path, "a")
    expected = live_digest()
    assert expected
    rivals = [candidate(tmp_path, name).version for name in "bc"]
    processes = [start(PROMOTE, version, expected) for version in rivals]
    for process in processes:
        assert process.stdout and process.stdout.readline() == "ready\n"
    outcomes = [process.communicate("go\n", timeout=120)[0].strip() for process in processes]
    assert sorted(outcomes) == ["lost", "won"]
    assert live() == rivals[outcomes.index("won")]


def test_two_first_users_at_once(first_use: tuple[Path, list[str]]) -> None:
    home, outcomes = first_use
    assert outcomes == ["there is no version '1'; registered: none"] * 2
    assert (home / "mlflow.db").exists()
