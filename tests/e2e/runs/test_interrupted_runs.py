"""Runs of the smoke profile at the same time, killed and carried on, and ended by SIGTERM."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.support.homes import reused, settings, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


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
