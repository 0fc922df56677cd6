"""The laws of `serving.registry` on a real MLflow: recorded once, promoted whole, rolled back in steps."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from serving import registry
from tasteloop import files
from tasteloop.bundle import seal
from tasteloop.errors import TasteloopError

HOUSE = Path(__file__).parents[2]
VERDICT = {"passed": True, "reasons": ["micro-F1 beats own frequencies by 0.012"]}
SETTINGS = {"finetune": {"epochs": 2, "layers": {"frozen": [0, 1]}}, "ingest": {"behaviour": "ml-100k"}}


@pytest.fixture(scope="module")
def first_use(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A home that two processes used for the first time at once, and what each found there."""
    home = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TASTELOOP_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        processes = [start(FIRST_USE) for _ in range(2)]
        return home, [process.communicate(timeout=240)[0].strip() for process in processes]


@pytest.fixture
def home(first_use: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own with an empty registry, copied: making one takes seconds."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(first_use[0] / "mlflow.db", home)
    with closing(sqlite3.connect(home / "mlflow.db")) as database, database:
        database.execute("UPDATE experiments SET artifact_location = ?", ((home / "mlartifacts").as_uri(),))
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TASTELOOP_HOME", str(home))
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
            "metrics": {"interests.micro_f1": estimate, "recommend.ndcg@10": {**estimate, "low": None}},
            "baselines": {"popularity": {"recommend.ndcg@10": estimate, "recommend.recall@10": None}},
            "lineage": {"code": "1.0+abc", "data": "f00d"},
        },
    )
    return path


def rehearsal(path: Path, bundle: Path, passed: bool = True) -> Path:
    digest = files.sha256_file(bundle / "manifest.json")
    files.write_json(path, {"passed": passed, "reason": "…", "digest": digest})
    return path


def candidate(folder: Path, name: str, passed: bool = True, rehearsed: bool = True) -> registry.Recorded:
    """A recorded version, ready to be promoted unless told otherwise."""
    bundle = make_bundle(folder / name, name)
    recorded = registry.record(
        bundle, make_evaluation(folder / f"{name}.json"), {**VERDICT, "passed": passed}, SETTINGS
    )
    if rehearsed:
        registry.rehearsed(recorded.version, rehearsal(folder / f"{name}-r.json", bundle))
    return recorded


def live() -> str | None:
    champion = registry.champion()
    return champion.version if champion else None


def live_digest() -> str | None:
    champion = registry.champion()
    return champion.digest if champion else None


def promoted(folder: Path, *names: str) -> list[str]:
    versions = []
    for name in names:
        versions.append(candidate(folder, name).version)
        registry.promote(versions[-1], live_digest())
    return versions


def walk_back() -> list[str]:
    """The versions that repeated rollbacks make live."""
    walked = []
    while True:
        try:
            walked.append(registry.rollback().version)
        except TasteloopError:
            return walked


# Recording


def test_a_question_to_an_unused_home_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path / "none"))
    assert registry.champion() is None
    assert registry.versions() == []
    assert not (tmp_path / "none").exists()


def test_record_logs_everything(home: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    bundle, evaluation = make_bundle(tmp_path / "b", "b"), make_evaluation(tmp_path / "evaluation.json")
    report = tmp_path / "report.html"
    report.write_text("<!doctype html>")
    recorded = registry.record(bundle, evaluation, VERDICT, SETTINGS, report)
    assert (recorded.version, recorded.new) == ("1", True)

    client = MlflowClient(tracking_uri=registry.tracking_uri(), registry_uri=registry.tracking_uri())
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
    refused = registry.record(bundle, tmp_path / "e.json", {**VERDICT, "passed": False}, SETTINGS)
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
    champion = registry.promote(recorded.version, None)
    assert champion == registry.champion()
    assert [(v.version, v.champion, v.rehearsed) for v in registry.versions()] == [("1", True, True)]
    assert registry.promote(recorded.version, None) == champion, "a promotion can be tried again"


def test_no_promotion_against_another_champion(home: Path, tmp_path: Path) -> None:
    a, b, c = (candidate(tmp_path, name).version for name in "abc")
    registry.promote(a, None)
    before = live_digest()
    registry.promote(b, before)
    for expected in (before, None, "", "0" * 64):
        with pytest.raises(registry.ChampionMoved, match=f"version {c} was compared with"):
            registry.promote(c, expected)
    assert live() == b


@pytest.mark.parametrize(("passed", "rehearsed", "message"), [(False, True, "the gate"), (True, False, "a rehearsal")])
def test_no_promotion_without(home: Path, tmp_path: Path, passed: bool, rehearsed: bool, message: str) -> None:
    version = candidate(tmp_path, "a", passed, rehearsed).version
    with pytest.raises(TasteloopError, match=f"has not passed {message}"):
        registry.promote(version, None)
    assert live() is None


def test_a_failed_rehearsal_is_no_rehearsal(home: Path, tmp_path: Path) -> None:
    version = candidate(tmp_path, "a").version
    registry.rehearsed(version, rehearsal(tmp_path / "r.json", tmp_path / "a", passed=False))
    with pytest.raises(TasteloopError, match="a rehearsal"):
        registry.promote(version, None)


def test_a_rehearsal_that_found_no_whole_bundle_is_kept_too(home: Path, tmp_path: Path) -> None:
    version = candidate(tmp_path, "a", rehearsed=False).version
    files.write_json(tmp_path / "r.json", {"passed": False, "reason": "manifest.json is cut off", "digest": ""})
    registry.rehearsed(version, tmp_path / "r.json")
    assert [v.rehearsed for v in registry.versions()] == [False]


def test_a_rehearsal_of_another_bundle_is_refused(home: Path, tmp_path: Path) -> None:
    version = candidate(tmp_path, "a", rehearsed=False).version
    other = make_bundle(tmp_path / "other", "other")
    with pytest.raises(TasteloopError, match="not about version 1"):
        registry.rehearsed(version, rehearsal(tmp_path / "r.json", other))


def test_an_unknown_version(home: Path, tmp_path: Path) -> None:
    candidate(tmp_path, "a")
    for version in ("9", "x", ""):
        with pytest.raises(TasteloopError, match="there is no version .* registered: 1"):
            registry.promote(version, None)


def test_a_damaged_bundle_is_not_promoted_nor_found(home: Path, tmp_path: Path) -> None:
    a, b = (candidate(tmp_path, name).version for name in "ab")
    path = registry.find(b).path
    registry.promote(a, None)
    (path / "card.json").write_text("{}")
    with pytest.raises(TasteloopError):
        registry.promote(b, live_digest())
    assert live() == a
    shutil.rmtree(path)
    with pytest.raises(TasteloopError, match="version 2 is gone"):
        registry.find(b)


# Rollback


def test_rollback_walks_back(home: Path, tmp_path: Path) -> None:
    a, b, c = promoted(tmp_path, "a", "b", "c")
    assert registry.rollback().version == b
    assert live() == b
    assert registry.rollback().version == a
    with pytest.raises(TasteloopError, match=r"no previous champion to go back to \(live: version 1\)"):
        registry.rollback()
    assert live() == a


def test_promotion_after_rollback(home: Path, tmp_path: Path) -> None:
    a, b, c = promoted(tmp_path, "a", "b", "c")
    registry.rollback()
    registry.promote(c, live_digest())
    assert walk_back() == [b, a]


def test_promoting_an_old_champion_again(home: Path, tmp_path: Path) -> None:
    a, b = promoted(tmp_path, "a", "b")
    registry.promote(a, live_digest())
    assert walk_back() == [b, a]


def test_rollback_of_the_champion_that_was_meant_and_no_other(home: Path, tmp_path: Path) -> None:
    assert registry.previous() is None
    a, b = promoted(tmp_path, "a", "b")
    meant = live_digest()
    assert registry.previous() == (a, registry.find(a).digest)
    with pytest.raises(registry.ChampionMoved, match="nothing was rolled back"):
        registry.rollback(expected="f" * 64)
    assert live() == b
    assert registry.rollback(expected=meant).version == a
    with pytest.raises(registry.ChampionMoved):  # a second time
        registry.rollback(expected=meant)
    assert live() == a and registry.previous() is None


def test_nothing_to_roll_back(home: Path) -> None:
    with pytest.raises(TasteloopError, match=r"\(live: none\)"):
        registry.rollback()


def test_no_rollback_to_a_damaged_bundle(home: Path, tmp_path: Path) -> None:
    a, b = promoted(tmp_path, "a", "b")
    (registry.find(a).path / "card.json").write_text("{}")
    with pytest.raises(TasteloopError):
        registry.rollback()
    assert live() == b


def test_a_promotion_says_when_and_in_whose_place(home: Path, tmp_path: Path) -> None:
    a, b = promoted(tmp_path, "a", "b")
    c = candidate(tmp_path, "c", rehearsed=False).version
    told = {v.version: v for v in registry.versions()}
    assert (told[a].replaced, told[b].replaced, told[c].replaced) == (None, a, None)
    assert told[a].created <= (told[a].promoted or 0) <= (told[b].promoted or 0) and told[c].promoted is None
    assert [(v.champion, v.was) for v in (told[a], told[b], told[c])] == [(False, True), (True, False), (False, False)]


def test_the_evidence_of_a_version_is_what_is_left_of_it(home: Path, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "a", "a")
    evaluation = make_evaluation(tmp_path / registry.EVALUATION)
    version = registry.record(bundle, evaluation, VERDICT, SETTINGS).version
    assert list(registry.evidence(version)) == [registry.EVALUATION, registry.VERDICT]
    registry.rehearsed(version, rehearsal(tmp_path / registry.REHEARSAL, bundle))
    evidence = registry.evidence(version)
    assert json.loads(evidence[registry.VERDICT]) == VERDICT
    assert evidence[registry.EVALUATION] == evaluation.read_text()
    assert json.loads(evidence[registry.REHEARSAL])["passed"] is True
    shutil.rmtree(home / "mlartifacts")
    assert registry.evidence(version) == {}


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
    """Kills at one moment: just before (even numbers) or just after (odd) one of MLflow's writes."""

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
    """Kill `work` at its first moment, its second, … until one attempt ends; yields where after each kill."""
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

    client = MlflowClient(tracking_uri=registry.tracking_uri(), registry_uri=registry.tracking_uri())
    kills = 0
    evaluation = make_evaluation(tmp_path / "e.json")
    bundle = make_bundle(tmp_path / "b", "b")
    for where in killed_at_every_write(lambda: registry.record(bundle, evaluation, VERDICT, SETTINGS)):
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
    for where in killed_at_every_write(lambda: registry.promote(c, before)):
        saved = (home / "mlflow.db").read_bytes()
        assert live() == (c if where == "after set_registered_model_alias" else b), where
        assert walk_back() == ([b, a] if live_was(saved, home) == c else [a]), where
        (home / "mlflow.db").write_bytes(saved)
    assert live() == c
    assert walk_back() == [b, a]


def test_a_killed_rollback_is_the_state_before_or_after(home: Path, tmp_path: Path) -> None:
    a, b, c = promoted(tmp_path, "a", "b", "c")
    start = (home / "mlflow.db").read_bytes()
    for where in killed_at_every_write(registry.rollback):
        assert live() in (c, b), where
        assert walk_back() == ([b, a] if where == "before set_registered_model_alias" else [a]), where
        (home / "mlflow.db").write_bytes(start)
    assert live() == b
    assert walk_back() == [a]


def live_was(saved: bytes, home: Path) -> str | None:
    """The champion in a saved database."""
    (home / "mlflow.db").write_bytes(saved)
    return live()


# Several processes


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=HOUSE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


PROMOTE = """
import sys
from serving import registry
registry.champion()
print("ready", flush=True)
sys.stdin.readline()
try:
    registry.promote(sys.argv[1], sys.argv[2])
    print("won")
except registry.ChampionMoved:
    print("lost")
"""
FIRST_USE = """
from serving import registry
from tasteloop.errors import TasteloopError
try:
    registry.find("1")
except TasteloopError as error:
    print(error)
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
