"""The loop: from what has come to what was done about it, once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from pipelines.loop.answers import read_answers
from pipelines.loop.contracts import PassReport
from pipelines.loop.metrics import write_metrics
from pipelines.loop.monitoring import watch_once
from pipelines.loop.rollback import restore_previous_champion, roll_back_if_worse
from pipelines.settings import Settings
from serving.journal.answered import Answered
from serving.journal.writer import Journal
from serving.release import registry
from serving.settings import JournalSettings
from tasteloop.errors import TasteloopError
from tasteloop.files import read_json, read_parquet, write_parquet
from tasteloop.runtime.session import Session
from tests.support.champions import promote
from tests.support.watching import HOURS, retrain, settings
from tests.support.webhooks import Webhook
from validation.monitor.entries import RollingBackEntry
from validation.monitor.ledger import Held, Ledger
from validation.monitor.reference import Reference, keep_reference, reference_path
from validation.monitor.windows import HOUR

HOUSE, WATCHING = Path(__file__).parents[3], Path(__file__).parents[2] / "support/watching.py"
LENGTH = HOURS * HOUR


@pytest.fixture(scope="module")
def made(
    tiny_bundle: Path, tiny_snapshots: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Reference]]:
    """A home whose champion is the tiny bundle, with its reference."""
    home = tmp_path_factory.mktemp("monitored") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TASTELOOP_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        promote(tiny_bundle, home.parent)
        keep_reference(tiny_bundle, tiny_snapshots, settings().watch)
        yield home, Reference.read(reference_path(Session.load(tiny_bundle).digest))


@pytest.fixture
def home(made: tuple[Path, Reference], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same home with nothing seen yet."""
    home, _ = made
    monkeypatch.setenv("TASTELOOP_HOME", str(home))
    yield home
    for name in ("incoming", "journal", "trained", "monitor/windows"):
        shutil.rmtree(home / name, ignore_errors=True)
    for path in [home / "promotions", *(p for p in (home / "monitor").iterdir() if p.is_file())]:
        path.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def behaviour(tiny_dataset: Path) -> pl.DataFrame:
    """Every user of the data set, once more, in one window."""
    events = read_parquet(tiny_dataset / "events.parquet")
    return events.with_columns(time=(pl.col("time") - events["time"].min()) // 5)  # type: ignore[operator]


def dramatic(behaviour: pl.DataFrame, bundle: Path) -> pl.DataFrame:
    """All turn to drama."""
    catalogue = Session.load(bundle).catalogue
    drama = [
        i
        for i, labels in zip(catalogue.items, catalogue.labels, strict=True)
        if labels == ["Drama"]
    ]
    return behaviour.with_columns(
        item=pl.Series(np.random.default_rng(0).choice(drama, behaviour.height))
    )


def arrive(home: Path, reference: Reference, windows: list[pl.DataFrame], name: str = "a") -> None:
    """Windows one after the other, and one event after them that closes the last."""
    tables = [
        w.with_columns(time=pl.col("time") + reference.end + n * LENGTH)
        for n, w in enumerate(windows)
    ]
    last = (
        tables[-1]
        .head(1)
        .with_columns(time=pl.lit(reference.end + len(windows) * LENGTH + 3 * HOUR))
    )
    write_parquet(
        home / "incoming" / f"{name}.parquet", pl.concat([*tables, last.cast(tables[-1].schema)])
    )


def once(chosen: Settings | None = None, **options: Any) -> PassReport:
    return watch_once(chosen or settings(), **{"retrain": retrain, **options})


def outcomes(home: Path) -> list[tuple[str, str | None]]:
    return [(e.outcome, e.result) for e in Ledger(home / "monitor").history()]


def test_without_a_champion_or_a_closed_window_it_says_so(
    home: Path, made: tuple[Path, Reference], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = once()
    assert (
        watched.outcome is None
        and "nothing has come yet" in watched.note
        and watched.champion == "1"
    )
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path))
    assert "tasteloop run" in once().note


def test_the_same_behaviour_is_healthy_and_is_looked_at_once(
    home: Path, made: tuple[Path, Reference], behaviour: pl.DataFrame
) -> None:
    arrive(home, made[1], [behaviour])
    watched = once()
    assert watched.outcome in ("healthy", "watch") and len(watched.windows) == 1
    again = once()
    assert again.windows == () and again.decision == watched.decision
    assert [r.kind for r in Ledger(home / "monitor").records()] == ["window", "decided"]
    decided_by = read_json(home / "monitor" / "settings.json")
    assert (
        decided_by["decision"] == settings().decision.model_dump(mode="json")
        and "alerts" not in decided_by
    )
    metrics = write_metrics().read_text()
    assert f'tasteloop_monitor_decision{{outcome="{watched.outcome}"}} 1.0' in metrics
    assert 'tasteloop_monitor_effect{measure="labels"}' in metrics


def test_a_change_of_taste_is_answered_once_with_one_retraining(
    home: Path, made: tuple[Path, Reference], behaviour: pl.DataFrame, tiny_bundle: Path
) -> None:
    moved = dramatic(behaviour, tiny_bundle)
    arrive(home, made[1], [moved])
    assert once().outcome == "watch"  # one window is not enough
    arrive(home, made[1], [moved, moved])
    watched = once()
    assert (watched.outcome, watched.decision and watched.decision.result) == (
        "retrain",
        "promoted",
    )
    assert watched.decision is not None
    assert watched.decision.json()["events"] == 2 * behaviour.height
    once()
    assert (home / "promotions").read_text().count("\n") == 1
    assert outcomes(home)[-1] == ("retrain", "promoted")


def test_answers_of_the_journal_are_judged_when_their_truth_is_mature(
    home: Path, made: tuple[Path, Reference], behaviour: pl.DataFrame, tiny_bundle: Path
) -> None:
    session, start = Session.load(tiny_bundle), made[1].end
    kept = Journal(JournalSettings(directory=home / "journal", bound=10_000))
    for (user,), told in behaviour.sort("time").group_by("user", maintain_order=True):
        asked = {
            "events": [
                {"kind": "rate", "item": i, "value": v}
                for i, v in told.head(10)["item", "value"].rows()
            ]
        }
        at = told["time"][9] + start
        for model in ("interests", "recommend"):
            for version in ("1", "another"):
                outputs = session.answer(model, [asked])
                kept.answered(
                    Answered(
                        f"{model}-{version}-{user}",
                        model,
                        version,
                        "v1",
                        at,
                        [asked],
                        outputs,
                        users=[str(user)],
                    )
                )
    kept.close()
    arrive(home, made[1], [behaviour])
    once()
    (evidence,) = Ledger(home / "monitor").evidence()
    found = {f.measure: f for f in evidence.findings}
    assert read_answers(start, start + LENGTH, "1").height == 2 * 60  # the champion's only
    assert found["quality.f1"].n >= 50 and found["quality.ndcg@10"].n >= 50
    assert found["quality.f1"].low is not None and found["prediction.interests"].n >= 50


def test_late_and_repeated_and_disordered_events_change_nothing(
    home: Path, made: tuple[Path, Reference], behaviour: pl.DataFrame
) -> None:
    arrive(home, made[1], [behaviour])
    first = once()
    seen = Ledger(home / "monitor").evidence()
    # all again, in another order
    arrive(home, made[1], [behaviour.sample(fraction=1, shuffle=True, seed=1)], "b")
    assert once().decision == first.decision and Ledger(home / "monitor").evidence() == seen
    shutil.rmtree(home / "monitor" / "windows")
    for name in ("ledger.jsonl", "ledger.head.json", "lease.json"):
        (home / "monitor" / name).unlink()
    once()  # and where both are there from the beginning
    assert [e.findings for e in Ledger(home / "monitor").evidence()] == [e.findings for e in seen]


def test_a_broken_field_calls_a_human_and_trains_nothing(
    home: Path, made: tuple[Path, Reference], behaviour: pl.DataFrame
) -> None:
    broken = behaviour.with_columns(value=pl.lit(None, pl.Float32))
    with Webhook([204]) as (url, got):
        chosen = settings()
        chosen = chosen.model_copy(
            update={"alerts": chosen.alerts.model_copy(update={"webhook": url})}
        )
        arrive(home, made[1], [broken, broken])
        watched = once(chosen)
        assert watched.outcome == "alert-human" and once(chosen).decision == watched.decision
    assert not (home / "promotions").exists()
    ((headers, event),) = got
    assert headers["content-type"].startswith("application/cloudevents+json")
    assert event["specversion"] == "1.0" and event["type"] == "tasteloop.monitor.alert-human"
    assert watched.decision is not None and event["id"].startswith(watched.decision.key)
    assert watched.decision.alerted and "without a value" in json.dumps(event["data"])


def test_a_webhook_that_is_down_holds_nothing_up_and_is_tried_again(
    home: Path, made: tuple[Path, Reference], behaviour: pl.DataFrame
) -> None:
    chosen = settings()
    broken = behaviour.with_columns(value=pl.lit(None, pl.Float32))
    arrive(home, made[1], [broken])
    with Webhook([500, 503, 204]) as (url, got):
        change = {"webhook": url, "tries": 2}
        chosen = chosen.model_copy(update={"alerts": chosen.alerts.model_copy(update=change)})
        watched = once(chosen)
        assert (
            watched.outcome == "alert-human"
            and watched.decision is not None
            and not watched.decision.alerted
        )
        assert "alerts_waiting 1.0" in write_metrics().read_text()
        (entry,) = once(chosen).resumed
        assert entry.alerted and len(got) == 3
        assert len({event["id"] for _, event in got}) == 1


def test_a_worse_champion_is_rolled_back_and_the_ledger_says_why(
    home: Path, made: tuple[Path, Reference], tiny_bundle: Path, tmp_path: Path
) -> None:
    """The evidence of two versions is in the ledger as their windows left it; the registry is the
    real one.
    """
    from tasteloop.bundle.manifest import seal
    from validation.monitor.decision import Evidence, Finding, key_of

    shutil.copytree(tiny_bundle, tmp_path / "other")
    (tmp_path / "other" / "README.md").write_text("another one")
    digest, first = seal(tmp_path / "other"), made[1].champion
    promote(tmp_path / "other", tmp_path, first)

    def window(n: int, champion: str, f1: float) -> Evidence:
        found = Finding(measure="quality.f1", value=f1, low=f1 - 0.02, high=f1 + 0.02, n=400)
        return Evidence(
            id=f"{n}",
            window=f"{n}/{n + 1}",
            end=n + 1,
            reference="r",
            champion=champion,
            findings=(found,),
        )

    ledger = Ledger(home / "monitor")
    with ledger.lease() as lease:
        for n, (champion, f1) in enumerate(
            [(first, 0.6), (first, 0.58), (digest, 0.5), (digest, 0.49)]
        ):
            seen = window(n, champion, f1)
            ledger.append(
                lease, "window", key_of("r", seen.window, champion), seen.model_dump(mode="json")
            )
        rules, evidence = settings().rollback, ledger.evidence()
        assert roll_back_if_worse(lease, rules, evidence[:3], evidence[2]) is None  # one window
        entry = roll_back_if_worse(lease, rules, evidence, evidence[3])
    assert (
        entry is not None
        and entry.result == "rolled back"
        and "quality.f1 is 0.5200 at most" in entry.reasons[0]
    )
    assert registry.pointer() == ("1", first)
    assert outcomes(home) == [("rollback", "rolled back")]
    said = (
        CliRunner()
        .invoke(__import__("pipelines.cli.app", fromlist=["app"]).app, ["history"])
        .stdout
    )
    assert "rollback" in said and f"to {first[:12]}: rolled back" in said


def test_a_rollback_that_was_killed_before_it_was_told_is_not_done_twice(
    home: Path, made: tuple[Path, Reference]
) -> None:
    first = made[1].champion
    begun = RollingBackEntry(
        window="0/1", champion="b" * 64, to=first, reasons=("worse",), evidence=("report",)
    )
    assert restore_previous_champion(begun).json_facts() == {
        "result": "rolled back",
        "version": "1",
    }
    elsewhere = begun.model_copy(update={"to": "a" * 64})
    assert restore_previous_champion(elsewhere).result == "moved"
    assert registry.pointer() == ("1", first)


def test_another_monitor_and_wrong_options_are_told(
    home: Path,
    made: tuple[Path, Reference],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from pipelines.cli.app import main

    def run(*arguments: str) -> tuple[object, str]:
        monkeypatch.setattr("sys.argv", ["tasteloop", "monitor", "-p", "smoke", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().err

    with Ledger(home / "monitor").lease():
        with pytest.raises(Held):
            once()
        code, told = run("--once")
        assert code == 5 and "another monitor is at work" in told
    for wrong in (
        (),
        ("--once", "--every", "1h"),
        ("--every", "soon"),
        ("--every", "0h"),
        ("--once", "--events", "no"),
    ):
        assert run(*wrong)[0] == 2


def test_a_file_without_its_columns_is_refused_by_name(
    home: Path, made: tuple[Path, Reference]
) -> None:
    write_parquet(home / "incoming" / "a.parquet", pl.DataFrame({"user": ["u"], "when": [1]}))
    with pytest.raises(
        TasteloopError, match=r"a\.parquet has no column 'kind', 'time'; it has: user, when"
    ):
        once()
    (home / "incoming" / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(TasteloopError, match="not a whole Parquet file"):
        once()


# Processes


def process(home: Path, *options: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "TASTELOOP_HOME": str(home),
        "PYTHONPATH": str(HOUSE),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(WATCHING), str(home), *options]
    return subprocess.Popen(command, cwd=HOUSE, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_five_monitors_at_once_two_with_wrong_clocks_retrain_once(
    home: Path, made: tuple[Path, Reference], behaviour: pl.DataFrame, tiny_bundle: Path
) -> None:
    moved = dramatic(behaviour, tiny_bundle)
    arrive(home, made[1], [moved, moved])
    arrive(home, made[1], [moved.reverse(), moved], "again")
    started = [process(home, "--skew", skew) for skew in ("0", "0", "0", "1", "-1")]
    told = [json.loads(p.communicate(timeout=800)[0]) for p in started]
    assert [p.returncode for p in started] == [0] * 5
    assert {t["outcome"] for t in told} == {"retrain"} and len(
        {t["decision"]["key"] for t in told}
    ) == 1
    assert outcomes(home) == [("retrain", "promoted")]
    assert (home / "promotions").read_text().count("\n") == 1
    kinds = [r.kind for r in Ledger(home / "monitor").records()]
    assert [kinds.count(kind) for kind in ("window", "decided", "finished")] == [2, 1, 1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_monitor_that_is_killed_at_each_step_is_carried_on(
    home: Path, made: tuple[Path, Reference], behaviour: pl.DataFrame, tiny_bundle: Path
) -> None:
    moved = dramatic(behaviour, tiny_bundle)
    arrive(home, made[1], [moved, moved])
    for kind in ("window", "window", "decided", "started", "trained"):
        killed = process(home, "--kill", kind)
        killed.communicate(timeout=300)
        assert killed.returncode == -signal.SIGKILL, kind
    last = process(home)
    told = json.loads(last.communicate(timeout=300)[0])
    assert [e["result"] for e in told["resumed"]] == ["promoted"]
    assert outcomes(home) == [("retrain", "promoted")]
    assert (home / "promotions").read_text().count("\n") == 1
    kinds = [r.kind for r in Ledger(home / "monitor").records()]
    assert kinds == ["window", "window", "decided", "started", "started", "started", "finished"]


@pytest.mark.slow
def test_sigterm_ends_the_loop_cleanly(home: Path, made: tuple[Path, Reference]) -> None:
    command = [sys.executable, "-m", "pipelines.cli", "monitor", "--every", "1h", "-p", "smoke"]
    running = subprocess.Popen(
        command, cwd=HOUSE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    first = running.stdout.readline()
    assert "version 1" in first or "reference" in first
    running.terminate()
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0 and out.endswith("stopped\n") and "Traceback" not in err
    assert read_json(home / "monitor" / "lease.json")["until"] == 0
