"""What a retraining reads, begins with, and must not forget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipelines.local.facts import RunFacts
from pipelines.loop.contracts import Incoming
from pipelines.loop.data_window import write_window
from pipelines.loop.provenance import Provenance, find_provenance, find_snapshots
from pipelines.loop.retraining import settings_of_run
from pipelines.settings import RetrainingSettings, load_settings
from tasteloop.behaviour.snapshots import TEST, Snapshots
from tasteloop.datasets.ingest import IngestSettings, ingest, source_fingerprint
from tasteloop.evaluation.record import Evaluation
from tasteloop.files import read_json, read_parquet, write_json, write_parquet
from tasteloop.verdicts import Verdict
from tests.support.samples import evaluation, worsened
from validation.gate import gates
from validation.gate.gates import FORGETTING, GateSettings
from validation.monitor.windows import HOUR

DAY = 24 * HOUR


def decide(found: dict[str, Any], rules: GateSettings) -> Verdict:
    """The verdict on what evaluation.json holds."""
    return gates.decide(Evaluation.parse(found), rules)


@pytest.fixture(scope="module")
def dataset(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ingest writes it, terms included."""
    out = tmp_path_factory.mktemp("base") / "dataset"
    out.mkdir()
    for name in ("events", "items"):
        write_parquet(out / f"{name}.parquet", read_parquet(tiny_dataset / f"{name}.parquet"))
    write_json(
        out / "ingest.json", {"source": "made in a test", "sha256": "0" * 64, "terms": "ours"}
    )
    return out


def later(dataset: Path, users: int = 10, days: int = 40) -> pl.DataFrame:
    """New users so many days after the data's end, one a day; the last of them twice."""
    events = read_parquet(dataset / "events.parquet")
    shift = int(events["time"].max()) - int(events["time"].min()) + days * DAY  # type: ignore[arg-type]
    some = events.filter(pl.col("user").is_in([f"{u:032x}" for u in range(users)]))
    new = some.with_columns(
        time=pl.col("time") + shift, user=pl.lit("n") + pl.col("user").str.tail(31)
    )
    return pl.concat([new, new.tail(30)])


def window(
    dataset: Path, snapshots: Path, out: Path, **rules: Any
) -> tuple[pl.DataFrame, dict[str, Any]]:
    new = later(dataset)
    until = int(new["time"].max()) + 1  # type: ignore[arg-type]
    write_window(dataset, snapshots, Incoming(new), until, RetrainingSettings(**rules), out)
    return read_parquet(out / "events.parquet"), read_json(out / "ingest.json")["window"]


def test_recent_users_come_whole_others_by_share_and_some_stay_out(
    dataset: Path, tiny_snapshots: Path, tmp_path: Path
) -> None:
    events, told = window(
        dataset, tiny_snapshots, tmp_path / "a", recent_days=30, replay=0.25, held=0.5
    )
    users = set(events["user"])
    new, old = {u for u in users if u.startswith("n")}, {u for u in users if not u.startswith("n")}
    tested = set(Snapshots.read(tiny_snapshots).split(TEST)["user"])
    assert len(new) == 10 == told["recent_users"]
    assert (
        told["held_users"] == round(len(tested) / 2) and len(tested - users) >= told["held_users"]
    )
    assert len(old) == told["replayed_users"] == round(0.25 * (60 - told["held_users"]))
    whole = read_parquet(dataset / "events.parquet")
    assert (
        events.filter(pl.col("user").is_in(list(old))).height
        == whole.filter(pl.col("user").is_in(list(old))).height
    )
    assert events.height == events.unique().height == told["events"]  # repetitions are gone
    again, _ = window(
        dataset, tiny_snapshots, tmp_path / "b", recent_days=30, replay=0.25, held=0.5
    )
    assert again.equals(events)
    other, _ = window(
        dataset, tiny_snapshots, tmp_path / "c", recent_days=30, replay=0.25, held=0.5, seed=1
    )
    assert set(other["user"]) != users


def test_the_policy_s_ends(dataset: Path, tiny_snapshots: Path, tmp_path: Path) -> None:
    all_of_them, _ = window(dataset, tiny_snapshots, tmp_path / "a", replay=1.0, held=0.0)
    assert all_of_them["user"].n_unique() == 70
    new, _ = window(dataset, tiny_snapshots, tmp_path / "b", recent_days=20, replay=0.0, held=0.0)
    assert set(new["user"]) == set(later(dataset)["user"])
    incoming = later(dataset)
    cut = int(incoming["time"].median())  # type: ignore[arg-type]
    write_window(
        dataset, tiny_snapshots, Incoming(incoming), cut, RetrainingSettings(), tmp_path / "c"
    )
    assert read_parquet(tmp_path / "c" / "events.parquet")["time"].max() < cut  # type: ignore[operator]


def test_ingest_reads_it_and_leaves_pseudonyms_alone(
    dataset: Path, tiny_snapshots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path / "home"))
    items = (
        read_parquet(dataset / "items.parquet")
        .head(1)
        .with_columns(item=pl.lit("new"), title=pl.lit("New"))
    )
    incoming = Incoming(later(dataset), items)
    write_window(
        dataset,
        tiny_snapshots,
        incoming,
        2**60,
        RetrainingSettings(replay=1.0, held=0.0),
        tmp_path / "data",
    )
    settings = IngestSettings(behaviour=str(tmp_path / "data"), reviews=None)
    before = source_fingerprint(settings)
    result = ingest(settings, tmp_path / "out")
    written, read = (read_parquet(tmp_path / name / "events.parquet") for name in ("data", "out"))
    assert read.sort(read.columns).equals(
        written.sort(written.columns)
    ) and result.removed == dict.fromkeys(result.removed, 0)
    assert (
        result.terms == "ours" and "new" in read_parquet(tmp_path / "out" / "items.parquet")["item"]
    )
    write_parquet(tmp_path / "data" / "events.parquet", written.head(100))
    assert source_fingerprint(settings) != before


def base_dataset(facts: dict[str, Any]) -> Path:
    """The data set that the next retraining begins with, after a run with these facts."""
    return Provenance.of_run(RunFacts.model_validate(facts)).base_dataset


def test_the_next_retraining_begins_with_the_same_base(
    dataset: Path, tiny_snapshots: Path, tmp_path: Path
) -> None:
    window(dataset, tiny_snapshots, tmp_path / "data")
    first = {
        "settings": {"ingest": {"behaviour": "ml-100k"}},
        "artifacts": {"dataset": str(dataset)},
    }
    retrained = {
        "settings": {"ingest": {"behaviour": str(tmp_path / "data")}},
        "artifacts": {"dataset": "elsewhere"},
    }
    assert base_dataset(first) == base_dataset(retrained) == dataset
    own = {
        "settings": {"ingest": {"behaviour": str(dataset)}},
        "artifacts": {"dataset": "made/by/ingest"},
    }
    assert base_dataset(own) == Path("made/by/ingest")  # a directory that no retraining wrote


@pytest.mark.parametrize("warm", [True, False])
def test_a_warm_start_begins_with_the_champion_s_encoder(tmp_path: Path, warm: bool) -> None:
    card = {"labels": [], "tasks": {}, "models": {"interests+sentiment": {}}, "text": {}}
    write_json(tmp_path / "card.json", card)
    settings = load_settings(
        "smoke", [f"retraining.warm_start={str(warm).lower()}", "retraining.forgetting=0.07"]
    )
    run = settings_of_run(settings, tmp_path / "data", tmp_path / "old", tmp_path)
    encoder = (
        str(tmp_path / "models" / "interests+sentiment") if warm else settings.training.encoder
    )
    assert run.training.encoder == encoder
    assert (run.ingest.behaviour, run.ingest.max_users) == (str(tmp_path / "data"), None)
    assert (run.evaluation.old, run.gate.forgetting) == (tmp_path / "old", 0.07)
    assert run.gate.floors == settings.gate.floors and "alerts" not in run.of_training()


@pytest.mark.parametrize("origin", ["discovered", "labels"])
def test_a_retraining_goes_on_with_the_champion_s_discovered_interests(
    tmp_path: Path, origin: str
) -> None:
    card = {"labels": [], "interests": origin, "tasks": {}, "models": {"encoder": {}}, "text": {}}
    write_json(tmp_path / "card.json", card)
    settings = load_settings("smoke", ["prepare.interests.count=7"])
    run = settings_of_run(settings, tmp_path / "data", tmp_path / "old", tmp_path)
    assert run.prepare.interests.continues == (tmp_path if origin == "discovered" else None)
    assert run.prepare.interests.count == 7
    assert run.prepare.horizon == settings.prepare.horizon


# What was forgotten


def remembered(by: float = 0.0) -> dict[str, Any]:
    """An evaluation whose candidate is worse by so much on earlier data."""
    found, old = evaluation(), evaluation()
    old["baselines"]["champion"] = old["champion"]["metrics"]
    for metric in FORGETTING:
        old = worsened(old, metric, by)
        old["baselines"]["champion"] = evaluation()["champion"]["metrics"]
    found["old"] = {name: old[name] for name in ("metrics", "baselines", "differences")}
    return found


def test_the_gate_asks_what_was_forgotten() -> None:
    rules = GateSettings(floors={"interests.micro_f1": 0.1}, forgetting=0.05)
    kept, lost = decide(remembered(), rules), decide(remembered(0.1), rules)
    assert kept.passed and sum("on earlier data" in reason for reason in kept.reasons) == 2
    assert (
        not lost.passed
        and "on earlier data may be worse than the champion's by more than 0.05" in lost.reasons[0]
    )
    # where it was not asked
    assert decide(remembered(0.1), GateSettings(floors=rules.floors)).passed


@pytest.mark.parametrize("old", [None, {}, {"metrics": {}, "baselines": {}, "differences": {}}])
def test_what_was_not_measured_is_refused(old: Any) -> None:
    found = evaluation() | {"old": old}
    verdict = decide(found, GateSettings(floors={"interests.micro_f1": 0.1}, forgetting=0.05))
    assert not verdict.passed and verdict.reasons[0].startswith("on earlier data, ")
    found["champion"] = None  # a first model forgets nothing
    assert decide(found, GateSettings(floors={"interests.micro_f1": 0.1}, forgetting=0.05)).passed


def test_data_that_a_promotion_elsewhere_kept_is_found(
    dataset: Path,
    tiny_snapshots: Path,
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tasteloop.bundle.manifest import verify
    from validation.monitor.reference import keep_data

    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path))
    digest = verify(tiny_bundle)
    assert find_provenance(digest) is None and find_snapshots(digest) is None
    keep_data(tiny_bundle, dataset, tiny_snapshots)
    provenance, snapshots = find_provenance(digest), find_snapshots(digest)
    assert provenance is not None and snapshots is not None
    base = provenance.base_dataset
    assert base != dataset and read_parquet(base / "events.parquet").equals(
        read_parquet(dataset / "events.parquet")
    )
    assert Snapshots.read(snapshots).split(TEST).equals(Snapshots.read(tiny_snapshots).split(TEST))
