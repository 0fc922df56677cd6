"""What a step tells its run, and that it does not outlive it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from components.step import EVENTS, LOCK, RUN, step
from tasteloop.errors import TasteloopError
from tests.support.homes import ROOT, wait_for


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The directory of a run that lives: its lock is held."""
    (tmp_path / LOCK).touch()
    monkeypatch.setenv(RUN, str(tmp_path))
    with (tmp_path / LOCK).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield tmp_path


def python(code: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def events(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / EVENTS).read_text().splitlines()]


HEAD = "import logging\nfrom components.step import step\nfrom tasteloop.errors import TasteloopError\n"


def test_a_step_tells_when_it_began_what_it_made_and_how_long_it_took(run):
    code = (
        HEAD
        + "with step('gate', verdict='/v') as outputs:\n    outputs.update(passed=True, reason='größer')"
    )
    assert python(code).returncode == 0
    started, finished = events(run)
    assert (started["step"], started["event"]) == ("gate", "started")
    assert finished["event"] == "finished"
    assert finished["outputs"] == {"verdict": "/v", "passed": True, "reason": "größer"}
    assert finished["seconds"] >= 0


def test_a_step_tells_the_most_memory_that_it_had(run):
    code = HEAD + "with step('gate'):\n    held = b'x' * 2**28\n    del held"
    assert python(code).returncode == 0
    peak = events(run)[-1]["peak_bytes"]
    assert peak is None or 2**28 < peak < 2**30


def test_a_users_mistake_is_told_and_leaves_no_traceback(run):
    ended = python(HEAD + "with step('ingest'):\n    raise TasteloopError('no file x')")
    assert ended.returncode == 2
    assert "Traceback" not in ended.stdout + ended.stderr
    assert {k: events(run)[-1][k] for k in ("event", "known", "message")} == {
        "event": "failed",
        "known": True,
        "message": "no file x",
    }


def test_another_error_is_told_and_keeps_its_traceback(run):
    ended = python(HEAD + "with step('ingest'):\n    1 / 0")
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    assert events(run)[-1]["known"] is False
    assert events(run)[-1]["message"] == "ZeroDivisionError: division by zero"


def test_only_the_rooms_talk_below_a_warning(run):
    ended = python(
        HEAD + "with step('ingest'):\n"
        "    for name in ('tasteloop.behaviour.events', 'httpx', 'validation.gate.gates'):\n"
        "        logging.getLogger(name).info('info of %s', name)\n"
        "    logging.getLogger('httpx').warning('careful')"
    )
    assert ended.stdout.splitlines() == [
        "-- step ingest started",
        "info of tasteloop.behaviour.events",
        "info of validation.gate.gates",
        "careful",
        "-- step ingest finished",
    ]


def test_what_breaks_after_the_step_still_fails_the_process(run):
    ended = python(HEAD + "with step('ingest'):\n    pass\nraise OSError('disk full')")
    assert ended.returncode == 1
    assert "disk full" in ended.stderr


def test_outside_a_run_nothing_is_written_and_the_error_is_the_callers(tmp_path, monkeypatch):
    monkeypatch.delenv(RUN, raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TasteloopError), step("ingest"):
        raise TasteloopError("no")
    assert list(tmp_path.iterdir()) == []


def test_a_step_ends_when_its_run_is_killed(tmp_path):
    """The run is a process that holds the lock; the step, its grandchild as under kfp, cleans up
    and ends.
    """
    inner = HEAD + (
        "import pathlib, time\n"
        "with step('finetune'):\n"
        "    try:\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        f"        pathlib.Path({str(tmp_path / 'cleaned')!r}).touch()\n"
    )
    outer = (
        "import fcntl, os, subprocess, sys\n"
        f"lock = open({str(tmp_path / LOCK)!r}, 'wb')\n"
        "fcntl.flock(lock, fcntl.LOCK_EX)\n"
        f"os.environ[{RUN!r}] = {str(tmp_path)!r}\n"
        "subprocess.run(['sh', '-c', '\"$0\" -c \"$1\"; true', sys.executable, sys.argv[1]])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", outer, inner], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: (tmp_path / EVENTS).exists())
        assert not (tmp_path / "cleaned").exists()
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    wait_for(lambda: (tmp_path / "cleaned").exists())


def test_a_failure_is_recorded_and_shown_without_the_secrets_of_addresses_and_of_the_environment(
    run,
):
    code = HEAD + (
        "with step('record'):\n"
        "    logging.getLogger('tasteloop.x').warning('asking %s', 'http://user:h0rse-battery@h/')\n"
        "    words = 'api-key-of-a-test', 'h0rse' + '-battery'\n"
        "    raise OSError('http://user:h0rse-battery@127.0.0.1:9/ is away; key ' + words[0], words[1])"
    )

    done = python(
        code,
        env={
            **os.environ,
            "CLOUD_ACCESS_KEY": "api-key-of-a-test",
            "DATABASE": "x://u:h0rse-battery@h/",
        },
    )

    recorded, traceback = (run / EVENTS).read_text(), done.stderr.rpartition("OSError")[2]
    assert "asking http://***@h/" in done.stdout
    for said in (recorded, traceback):
        assert "http://***@127.0.0.1:9/ is away; key ***" in said
    for said in (recorded, traceback, done.stdout):
        assert "h0rse-battery" not in said and "api-key-of-a-test" not in said
