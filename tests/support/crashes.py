"""A monitor that is killed: run as `python crashes.py DIRECTORY lines|together`, it prints what was
found as JSON.

Each pass is a process of its own (a fork), killed with SIGKILL just before a given line of the
ledger, the file layer or its own training runs. `together` starts five at once, two of them with a
clock that is an hour off.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tasteloop import files
from validation.monitor import execution
from validation.monitor import ledger as keeping
from validation.monitor.decision import DecisionSettings, Evidence, Finding, decide, key_of
from validation.monitor.entries import RetrainingResult
from validation.monitor.execution import carry_out, resume
from validation.monitor.ledger import Held, LeaseLost, Ledger, wall
from validation.monitor.windows import HOUR

_WATCHED = {m.__file__ for m in (files, keeping, execution)} | {__file__}
_READING = (
    "_parse",
    "_read",
    "_head",
    "_hash",
    "last",
    "records",
    "evidence",
    "triggers",
    "history",
    "evidence",
    "<listcomp>",
    "<genexpr>",
)
SEVERE = Finding(measure="labels", effect=0.4, p=0.0005, n=300)


def evidence() -> list[Evidence]:
    return [
        Evidence(
            id=f"report {n}",
            window=f"{n}/{n + 1}",
            end=(n + 1) * HOUR,
            reference="r",
            champion="c",
            findings=(SEVERE,),
        )
        for n in range(2)
    ]


def once(directory: Path, clock: Callable[[], int] = wall) -> None:
    """One pass of a monitor."""
    ledger = Ledger(directory / "ledger", clock)

    def train(run: str, _: Any) -> RetrainingResult:
        """A training in two steps that is carried on, and promotes once."""
        training = directory / "runs" / run
        training.mkdir(parents=True, exist_ok=True)
        with (training / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (training / "model").exists():
                files.atomic_write(training / "model", run)
            if not (training / "promoted").exists():
                files.atomic_write(training / "promoted", run)
        return RetrainingResult(result="promoted")

    def alert(_: Any) -> None:
        raise AssertionError("nothing here calls a human")

    try:
        with ledger.lease() as lease:
            resume(lease, train, alert)
            for seen in evidence():
                key = key_of(seen.reference, seen.window, seen.champion)
                ledger.append(lease, "window", key, seen.model_dump(mode="json"))
            now = clock()
            carry_out(
                lease,
                decide(ledger.evidence(), ledger.triggers(), now, DecisionSettings()),
                now,
                train,
                alert,
            )
    except (Held, LeaseLost):
        pass


def skewed(by: int) -> int:
    return wall() + by


def forked(work: Callable[[], None]) -> int:
    """Start a process; returns its id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def killed_before(line: int, work: Callable[[], None]) -> Callable[[], None]:
    left = line

    def step(frame: Any, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in _WATCHED or frame.f_code.co_name in _READING:
            return None
        if event == "line":
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return step

    def run() -> None:
        sys.settrace(step)
        work()

    return run


def outcome_of(directory: Path) -> dict[str, Any]:
    ledger = Ledger(directory / "ledger")
    kinds = [r.kind for r in ledger.records()]
    return {
        "windows": kinds.count("window"),
        "decided": kinds.count("decided"),
        "finished": kinds.count("finished"),
        "runs": len(list((directory / "runs").iterdir())),
        "promoted": len(list((directory / "runs").glob("*/promoted"))),
        "history": [(e.outcome, e.result) for e in ledger.history()],
        "tokens_grow": (tokens := [r.token for r in ledger.records()]) == sorted(tokens),
    }


def lines(directory: Path) -> dict[str, Any]:
    """Kill at every line, then run again; stop when a pass came through."""
    results: dict[str, int] = {}
    for line in range(100_000):
        home = directory / str(line)
        _, status = os.waitpid(forked(killed_before(line, partial(once, home))), 0)
        came_through = not os.WIFSIGNALED(status)
        if not came_through and line % 3 == 0:  # some are killed twice
            os.waitpid(forked(killed_before(line // 2, partial(once, home))), 0)
        _, again = os.waitpid(forked(partial(once, home)), 0)
        assert again == 0, f"the pass after a kill before line {line} failed"
        outcome = json.dumps(outcome_of(home))
        results[outcome] = results.get(outcome, 0) + 1
        if came_through:
            assert status == 0
            break
    return {"killed": line, "found": [json.loads(outcome) for outcome in results]}


def together(directory: Path) -> dict[str, Any]:
    """Five monitors at once, again and again; half of them are killed, two have wrong clocks."""
    chance = random.Random(0)
    results: dict[str, int] = {}
    for turn in range(20):
        home = directory / str(turn)
        skews = [0, 0, 0, HOUR, -HOUR]
        children = [forked(partial(once, home, partial(skewed, skew))) for skew in skews]
        for child in children:
            time.sleep(chance.random() * 0.004)
            if chance.random() < 0.5:
                os.kill(child, signal.SIGKILL)
        for child in children:
            os.waitpid(child, 0)
        _, status = os.waitpid(forked(partial(once, home)), 0)
        assert status == 0
        outcome = json.dumps(outcome_of(home))
        results[outcome] = results.get(outcome, 0) + 1
    return {"found": [json.loads(outcome) for outcome in results]}


if __name__ == "__main__":
    print(json.dumps({"lines": lines, "together": together}[sys.argv[2]](Path(sys.argv[1]))))
