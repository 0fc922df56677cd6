"""Records that survive kills, one monitor at a time, one retraining for one evidence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tasteloop.errors import TasteloopError
from validation.monitor.decision import Decision, Outcome
from validation.monitor.entries import RetrainingResult
from validation.monitor.execution import ATTEMPTS, carry_out, resume, run_of
from validation.monitor.ledger import HEAD, LEASE, LEDGER, Held, LeaseLost, Ledger

CRASHES = Path(__file__).parents[2] / "support/crashes.py"
HOUSE = Path(__file__).parents[3]
ONE = {
    "windows": 2,
    "decided": 1,
    "finished": 1,
    "runs": 1,
    "promoted": 1,
    "history": [["retrain", "promoted"]],
    "tokens_grow": True,
}


def decided(outcome: Outcome, key: str = "k" * 64) -> Decision:
    return Decision(
        outcome=outcome, reasons=("because",), evidence=("report",), key=key, causes=("labels",)
    )


class Trainer:
    """What a retraining was asked, and what it answers."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.runs = list(answers), []  # type: ignore[var-annotated]

    def __call__(self, run: str, decision: Decision) -> RetrainingResult:
        self.runs.append(run)
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return RetrainingResult.model_validate(answer)


def crash(directory: Path, how: str) -> Any:
    environment = {**os.environ, "PYTHONPATH": str(HOUSE), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, str(CRASHES), str(directory), how],
        env=environment,
        cwd=HOUSE,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_kill_before_any_line_leaves_exactly_one_retraining(tmp_path: Path) -> None:
    told = crash(tmp_path, "lines")
    assert told["killed"] > 100
    assert told["found"] == [ONE]


@pytest.mark.slow
def test_five_monitors_at_once_kills_and_wrong_clocks_leave_exactly_one_retraining(
    tmp_path: Path,
) -> None:
    assert crash(tmp_path, "together")["found"] == [ONE]


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    assert ledger.records() == [] and ledger.history() == []
    with ledger.lease() as lease:
        first = ledger.append(lease, "window", "a", {"text": "Amélie\n</script>"})
        second = ledger.append(lease, "decided", "a", {})
        assert ledger.append(lease, "window", "a", {"text": "another"}) == first  # the first stands
    assert ledger.records() == [first, second]
    assert len((tmp_path / "ledger" / LEDGER).read_text().splitlines()) == 2


def test_a_line_that_a_killed_writer_left_is_passed_over_and_cut_off(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with ledger.lease() as lease:
        records = [ledger.append(lease, "window", str(n), {"n": n}) for n in range(2)]
        head = (tmp_path / HEAD).read_bytes()
        ledger.append(lease, "window", "2", {"n": 2})
    (tmp_path / HEAD).write_bytes(head)  # which is replaced once the line is whole
    path = tmp_path / LEDGER
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(last, len(whole)):
        path.write_bytes(whole[:cut])
        assert ledger.records() == records[:2]
    with ledger.lease() as lease:
        ledger.append(lease, "window", "new", {})
    assert [r.key for r in ledger.records()] == ["0", "1", "new"]


@pytest.mark.parametrize("harm", ["change", "remove", "swap"])
def test_a_changed_past_is_refused(tmp_path: Path, harm: str) -> None:
    ledger = Ledger(tmp_path)
    with ledger.lease() as lease:
        for n in range(4):
            ledger.append(lease, "window", str(n), {"n": n})
    lines = (tmp_path / LEDGER).read_text().splitlines(keepends=True)
    if harm == "change":
        lines[1] = lines[1].replace('{"n":1}', '{"n":9}')
    elif harm == "remove":
        del lines[1]
    else:
        lines[1:3] = lines[2:0:-1]
    (tmp_path / LEDGER).write_text("".join(lines))
    with pytest.raises(TasteloopError, match=r"line [23] of the ledger .* Restore"):
        ledger.records()


@pytest.mark.parametrize(
    ("left", "gone"),
    [(3, "entry 4 is gone"), (1, "entries 2 to 4 are gone"), (0, "entries 1 to 4 are gone")],
)
def test_whole_lines_that_are_cut_from_the_end_are_named_and_nothing_is_written(
    tmp_path: Path, left: int, gone: str
) -> None:
    ledger = Ledger(tmp_path)
    with ledger.lease() as lease:
        for n in range(4):
            ledger.append(lease, "window", f"key{n}", {"n": n})
        lines = (tmp_path / LEDGER).read_bytes().splitlines(keepends=True)
        (tmp_path / LEDGER).write_bytes(b"".join(lines[:left]))

        with pytest.raises(
            TasteloopError,
            match=f"{gone}, the last of which was entry 4, 'window' of .* on key3.*backup",
        ):
            ledger.records()
        with pytest.raises(TasteloopError, match=gone):
            ledger.append(lease, "window", "new", {})
    assert (tmp_path / LEDGER).read_bytes() == b"".join(lines[:left])


def test_a_ledger_that_is_gone_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with ledger.lease() as lease:
        ledger.append(lease, "window", "a", {})
    (tmp_path / LEDGER).unlink()
    with pytest.raises(TasteloopError, match="entry 1 is gone"):
        ledger.records()
    (tmp_path / HEAD).unlink()  # the remedy that the message names
    assert ledger.records() == []


def test_other_lines_in_place_of_cut_ones_are_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with ledger.lease() as lease:
        ledger.append(lease, "window", "a", {})
        head = (tmp_path / HEAD).read_bytes()
        for name in (LEDGER, HEAD):
            (tmp_path / name).unlink()
        for key in ("b", "c"):
            ledger.append(lease, "window", key, {})
    (tmp_path / HEAD).write_bytes(head)
    with pytest.raises(TasteloopError, match=f"another one than {HEAD}"):
        ledger.records()


def test_a_kill_between_a_line_and_the_head_is_no_cut(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with ledger.lease() as lease:
        ledger.append(lease, "window", "a", {})
        head = (tmp_path / HEAD).read_bytes()
        ledger.append(lease, "window", "b", {})
        (tmp_path / HEAD).write_bytes(head)
        assert [r.key for r in ledger.records()] == ["a", "b"]
        ledger.append(lease, "window", "c", {})
    assert json.loads((tmp_path / HEAD).read_text())["number"] == 3


def test_a_ledger_without_a_head_is_read_and_has_one_from_the_next_entry_on(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with ledger.lease() as lease:
        for key in ("a", "b"):
            ledger.append(lease, "window", key, {})
        (tmp_path / HEAD).unlink()
        assert [r.key for r in ledger.records()] == ["a", "b"]
        ledger.append(lease, "window", "c", {})
    assert json.loads((tmp_path / HEAD).read_text())["number"] == 3


def test_a_head_that_cannot_be_read_is_one_message(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with ledger.lease() as lease:
        ledger.append(lease, "window", "a", {})
    for damaged in ("", "{", '{"number": 0}', "[]"):
        (tmp_path / HEAD).write_text(damaged)
        with pytest.raises(TasteloopError, match=rf"{HEAD} cannot be read.*backup"):
            ledger.records()


def test_one_monitor_at_a_time(tmp_path: Path) -> None:
    ledger, other = Ledger(tmp_path), Ledger(tmp_path)
    with ledger.lease() as lease:
        with pytest.raises(Held, match=f"process {os.getpid()}"), other.lease():
            pass
        ledger.append(lease, "window", "a", {})
    with other.lease() as after:
        assert after.token == lease.token + 1


def test_a_lease_that_ran_out_is_taken_over_and_fences_off_its_holder(tmp_path: Path) -> None:
    ahead = Ledger(tmp_path, clock=lambda: 10**18)  # a clock far ahead: to it the lease has run out
    ledger = Ledger(tmp_path)
    with ledger.lease() as old, ahead.lease() as new:
        ahead.append(new, "window", "a", {})
        with pytest.raises(LeaseLost, match="nothing was written"):
            ledger.append(old, "window", "b", {})
        with pytest.raises(LeaseLost):
            old.renew()
        assert old.lost and not new.lost
        ahead.append(new, "window", "c", {})
    assert [r.key for r in ledger.records()] == ["a", "c"]


def test_the_lease_of_a_process_that_is_gone_is_free_at_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with ledger.lease(seconds=3600):
        held = (tmp_path / LEASE).read_text()
    gone = subprocess.Popen(["true"])
    gone.wait()
    lease = json.loads(held)
    lease["holder"]["pid"] = gone.pid
    (tmp_path / LEASE).write_text(json.dumps(lease))
    with ledger.lease() as taken:
        assert taken.token == lease["token"] + 1
    lease["holder"]["host"] = "elsewhere"  # there it cannot be seen
    (tmp_path / LEASE).write_text(json.dumps(lease))
    with pytest.raises(Held, match="elsewhere"), ledger.lease():
        pass


def test_a_removed_lease_file_does_not_let_the_token_fall(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for _ in range(3):
        with ledger.lease() as lease:
            ledger.append(lease, "window", str(lease.token), {})
    (tmp_path / LEASE).unlink()
    with ledger.lease() as lease:
        assert lease.token == 4


def test_the_first_decision_on_an_evidence_stands(tmp_path: Path) -> None:
    ledger, trainer = Ledger(tmp_path), Trainer({"result": "promoted", "version": "2"})
    with ledger.lease() as lease:
        first = carry_out(lease, decided("retrain"), 5, trainer, pytest.fail)
        again = carry_out(lease, decided("alert-human"), 6, trainer, pytest.fail)
        assert resume(lease, trainer, pytest.fail) == []
    assert first == again and first.outcome == "retrain" and first.version == "2"
    assert trainer.runs == [run_of("k" * 64)]
    assert [(t.at, t.result) for t in ledger.triggers()] == [(5, "promoted")]


def test_a_retraining_that_fails_is_an_outcome_and_one_that_is_interrupted_is_carried_on(
    tmp_path: Path,
) -> None:
    ledger = Ledger(tmp_path)
    with ledger.lease() as lease:
        failed = carry_out(
            lease, decided("retrain", "a"), 1, Trainer(TasteloopError("no such file")), pytest.fail
        )
        assert (failed.result, failed.reason) == ("failed", "TasteloopError: no such file")
        with pytest.raises(KeyboardInterrupt):
            carry_out(lease, decided("retrain", "b"), 2, Trainer(KeyboardInterrupt()), pytest.fail)
    assert ledger.triggers()[-1].result is None
    with ledger.lease() as lease:
        trainer = Trainer({"result": "rejected"})
        assert [e.result for e in resume(lease, trainer, pytest.fail)] == ["rejected"]
    assert trainer.runs == [run_of("b")]


def test_a_retraining_that_always_dies_is_given_up(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with ledger.lease() as lease, pytest.raises(SystemExit):
        carry_out(lease, decided("retrain"), 1, Trainer(SystemExit()), pytest.fail)
    for _ in range(ATTEMPTS - 1):
        with ledger.lease() as lease, pytest.raises(SystemExit):
            resume(lease, Trainer(SystemExit()), pytest.fail)
    with ledger.lease() as lease:
        (entry,) = resume(lease, Trainer(), pytest.fail)
    assert entry.result == "failed" and f"{ATTEMPTS} attempts" in (entry.reason or "")


def test_an_alert_that_did_not_get_through_is_sent_again(tmp_path: Path) -> None:
    ledger, told = Ledger(tmp_path), []  # type: ignore[var-annotated]

    def unreachable(_: Decision) -> None:
        raise ConnectionError("nobody there")

    with ledger.lease() as lease:  # the pass goes on
        assert not carry_out(lease, decided("alert-human"), 1, Trainer(), unreachable).alerted
    with ledger.lease() as lease:
        (entry,) = resume(lease, Trainer(), told.append)
        assert resume(lease, Trainer(), told.append) == []
    assert entry.alerted and told == [decided("alert-human")]


def test_the_history_s_json_has_what_the_records_say_in_their_order(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, clock=lambda: 7)
    window = {"id": "r", "window": "0/1", "end": 1, "reference": "r", "champion": "c"}
    body = {"outcome": "retrain", "reasons": ["because"], "evidence": ["r"], "key": "k", "now": 5}
    result = {"run": "retrain-k", "result": "promoted", "version": "2", "gained": 0.5}
    worse = {"window": "0/1", "champion": "c", "to": "b", "reasons": ["worse"], "evidence": ["r"]}
    with ledger.lease() as lease:
        ledger.append(lease, "window", "k", window)
        ledger.append(lease, "decided", "k", body)
        ledger.append(lease, "started", "k", {"run": "retrain-k", "attempt": 1})
        ledger.append(lease, "finished", "k", result)
        ledger.append(lease, "rolling-back", "l", worse)
        ledger.append(lease, "rolled-back", "l", {"result": "moved", "reason": "another"})

    retrained, rolled_back = (list(entry.json().items()) for entry in ledger.history())

    head = {"number": 2, "time": 7, "window": "0/1", "champion": "c"}
    middle = {"alerted": False, "attempts": 1, "result": "promoted"}
    rest = {"run": "retrain-k", "version": "2", "gained": 0.5}
    assert retrained == list({**head, **body, **middle, **rest}.items())
    head = {"number": 5, "time": 7, "outcome": "rollback", "key": "l"}
    middle = {"alerted": False, "attempts": 0, "result": "moved"}
    assert rolled_back == list({**head, **worse, **middle, "reason": "another"}.items())


def test_an_entry_that_is_none_of_its_kind_is_named(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with ledger.lease() as lease:
        ledger.append(lease, "decided", "k", {"outcome": "dance"})

    with pytest.raises(TasteloopError, match="record 1 of the ledger is no entry of the kind 'dec"):
        ledger.history()


def test_history_is_read_by_people_and_scripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.cli.app import app

    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path))
    assert CliRunner().invoke(app, ["history"]).stdout == "no decision yet\n"
    assert json.loads(CliRunner().invoke(app, ["history", "--json"]).stdout) == []
    ledger = Ledger(tmp_path / "monitor")
    with ledger.lease() as lease:
        window = {
            "window": "0/86400000000",
            "champion": "c",
            "reference": "r",
            "id": "report",
            "end": 86400000000,
        }
        ledger.append(lease, "window", "a" * 64, window)
        carry_out(
            lease,
            decided("retrain", "a" * 64),
            1,
            Trainer({"result": "rejected", "reason": "worse"}),
            pytest.fail,
        )
        carry_out(lease, decided("alert-human", "b" * 64), 2, Trainer(), lambda _: None)
    lines = CliRunner().invoke(app, ["history"]).stdout.splitlines()
    assert "alert-human" in lines[0] and "a human was told" in lines[2]
    assert "1970-01-01 00:00 to 1970-01-02 00:00" in lines[3]
    assert lines[-1].strip() == f"run {run_of('a' * 64)}: rejected (worse)"
    newest = json.loads(CliRunner().invoke(app, ["history", "--json", "--last", "1"]).stdout)
    assert [e["outcome"] for e in newest] == ["alert-human"]
