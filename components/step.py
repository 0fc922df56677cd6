"""How a step reports to the run that it is part of: when it began, its outputs, why it failed.

A run on one machine names its directory in `TASTELOOP_RUN`; its steps append their events to
`steps.jsonl` there, one JSON object a line, and end when the run is gone. Elsewhere (a cluster,
`tasteloop step`) nothing is written.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasteloop import process
from tasteloop.errors import TasteloopError
from tasteloop.opt_out import VARIABLES
from tasteloop.redaction import redact

RUN = "TASTELOOP_RUN"
EVENTS = "steps.jsonl"
LOCK = "lock"  # held by a run for as long as it lives
MARK = "-- step "  # begins the line that parts a step's own words from those around it

ROOMS = ("tasteloop", "validation", "serving")

QUIET = {  # no step calls home, and libraries speak only of errors
    **VARIABLES,
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # bars redraw; a pipe wants lines
    "TRANSFORMERS_VERBOSITY": "error",
}


@contextmanager
def step(name: str, **outputs: object) -> Iterator[dict[str, object]]:
    """Run a step's work inside; `outputs` are its artifacts' paths, and the body adds its plain
    results.
    """
    process.begin()
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    run = os.environ.get(RUN)
    if run:
        atexit.register(_leave)  # before the libraries register theirs, so that it comes last
        _log_plainly()
        threading.Thread(target=_end_with, args=(Path(run) / LOCK,), daemon=True).start()
    began = time.perf_counter()
    _append_event(run, step=name, event="started")
    try:
        yield outputs
    except BaseException as error:
        atexit.unregister(_leave)
        known = isinstance(error, TasteloopError)
        message = redact(str(error) if known else f"{type(error).__name__}: {error}")
        _append_event(
            run,
            step=name,
            event="failed",
            seconds=time.perf_counter() - began,
            known=known,
            message=message,
        )
        if known and run:
            # the run shows the message; a traceback would only hide it
            raise SystemExit(2) from None
        raise
    _append_event(
        run,
        step=name,
        event="finished",
        seconds=time.perf_counter() - began,
        processor_seconds=time.process_time(),
        peak_bytes=_peak_bytes(),
        outputs=outputs,
    )


def _log_plainly() -> None:
    """Only the rooms' own messages, without kfp's prefix; of libraries what they warn of."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    ours = tuple(f"{room}." for room in ROOMS)
    for handler in logging.getLogger().handlers:
        handler.addFilter(lambda r: r.levelno >= logging.WARNING or r.name.startswith(ours))


def _append_event(run: str | None, **event: object) -> None:
    if run:
        with (Path(run) / EVENTS).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"time": time.time(), **event}, ensure_ascii=False) + "\n")
        sys.stdout.write(f"{MARK}{event['step']} {event['event']}\n")
        sys.stdout.flush()


def _peak_bytes() -> int | None:
    """The most memory that this process had resident, without its children; None where the system
    does not say. Unlike `getrusage` it leaves out what the process was before it became a step.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    peak = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(peak[1]) * 1024 if peak else None


def _leave() -> None:
    """End without the interpreter's teardown, which takes one to two seconds where torch is
    loaded.
    """
    # else kfp failed after the step: the exit code has to say so
    if not hasattr(sys, "last_value"):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _end_with(lock: Path) -> None:
    """Interrupt this process once the run's lock is free: the run was killed, and another may be at
    work.
    """
    with lock.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)  # for `finally` clauses that stop servers
    os._exit(130)
