"""A monitor as a process: `python watching.py HOME [--skew HOURS] [--kill KIND|trained]`.

It passes until no other monitor is in its way, on two windows of changed taste, with a retraining
that is real and
small: it promotes once, whoever asks how often. `--kill` ends it with SIGKILL right after it has
written a record of that kind for the first time, or when the training has promoted and nobody was
told yet.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from pipelines.loop.contracts import Retraining
from pipelines.loop.monitoring import watch_once
from pipelines.settings import Settings, load_settings
from tasteloop.files import atomic_write
from validation.monitor.entries import RetrainingResult
from validation.monitor.ledger import Held, LeaseLost, wall
from validation.monitor.windows import HOUR

HOURS = 200


def settings() -> Settings:
    changed = {
        "watch.windows": {"hours": HOURS, "horizon_hours": 1, "lateness_hours": 2},
        "watch.drift": {"draws": 199, "texts": 120},
        "watch.answers": 200,
        "decision.minimum": 20,
        "decision.alpha": 0.05,
        "decision.windows": 2,
    }
    return load_settings(
        "smoke", [f"{name}={json.dumps(value)}" for name, value in changed.items()]
    )


def retrain(retraining: Retraining) -> RetrainingResult:
    """A training that promotes once and remembers it."""
    trained = Path(os.environ["TASTELOOP_HOME"]) / "trained" / retraining.run
    event_count = retraining.source(0).events.filter(_before(retraining.until)).height
    with (trained.parent.parent / "promotions").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        if not trained.exists():
            atomic_write(trained, str(event_count))
            stream.write(f"{retraining.run}\n")
    facts = {"result": "promoted", "reason": "better", "events": event_count}
    return RetrainingResult.model_validate(facts)


def _before(until: int) -> Any:
    import polars as pl

    return pl.col("time") < until


def killed_after(kind: str) -> None:
    """SIGKILL when `Ledger.append` has written a record of that kind, or when `retrain` returns."""

    def step(frame: Any, event: str, _: Any) -> Any:
        code = frame.f_code
        mine = (code.co_name, Path(code.co_filename).name) in (
            ("append", "ledger.py"),
            ("retrain", "watching.py"),
        )
        if not mine:
            return None
        if event == "return" and frame.f_locals.get("kind", "trained") == kind:
            os.kill(os.getpid(), signal.SIGKILL)
        return step

    sys.settrace(step)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("--skew", type=int, default=0)
    parser.add_argument("--kill")
    options = parser.parse_args()
    os.environ["TASTELOOP_HOME"] = str(options.home)
    if options.kill:
        killed_after(options.kill)
    while True:
        try:
            report = watch_once(settings(), lambda: wall() + options.skew * HOUR, retrain=retrain)
            break
        except Held:
            time.sleep(0.2)
        except LeaseLost:
            pass
    print(json.dumps(report.json()))


if __name__ == "__main__":
    main()
