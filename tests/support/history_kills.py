"""A writer of histories that is killed: `python -m tests.support.history_kills DIRECTORY ROUNDS`.

Each round is a process of its own (a fork) that opens the store, sends again what was not
acknowledged, and sends more, until it is killed: right before or after its nth flush to the disk,
or at any moment. What was found in the end is printed as JSON. `LD_PRELOAD` has the flush that
kills, which `build_shim` makes.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from serving.histories.protocol import Bounds
from serving.histories.sqlite import SqliteHistories
from tests.support.histories import NOW, event

_SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <unistd.h>
static int at, before, count;
void arm(int flush, int is_before) { at = flush; before = is_before; count = 0; }
static int call(const char *name, int file) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int number = __sync_add_and_fetch(&count, 1);
    if (number == at && before) kill(getpid(), SIGKILL);
    int result = real(file);
    if (number == at) kill(getpid(), SIGKILL);
    return result;
}
int fsync(int file) { return call("fsync", file); }
int fdatasync(int file) { return call("fdatasync", file); }
"""
USERS = [f"{n:08x}" * 4 for n in range(40)]
BOUNDS = Bounds(events=2_000)
_EVENTS = 6  # of a round
_ACKNOWLEDGED, _ALL_SENT = b".", b"!"


def build_shim(directory: Path) -> Path:
    """The library whose `fsync` and `fdatasync` kill; gcc makes it."""
    source, shim = directory / "flush.c", directory / "flush.so"
    source.write_text(_SHIM)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    return shim


def run_kills(directory: Path, rounds: int, shim: Path) -> dict[str, Any]:
    """What a store is like after so many kills, by the report of `main`."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.history_kills", str(directory), str(rounds)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "LD_PRELOAD": str(shim)},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout))


def main(directory: Path, rounds: int) -> dict[str, Any]:
    draw = random.Random(11)
    shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
    acknowledged: set[tuple[str, int]] = set()
    unsure: list[tuple[str, int]] = []
    flushes = moments = number = 0
    for _ in range(rounds):
        # 1. what was not acknowledged, and more
        work = list(unsure)
        for _ in range(_EVENTS):
            number += 1
            work.append((draw.choice(USERS), number))
        at_flush = draw.random() < 0.7
        flush, before = draw.randint(1, 12), draw.randint(0, 1)

        # 2. a process that is killed meanwhile
        read, write = os.pipe()
        child = os.fork()
        if not child:
            try:
                if at_flush:
                    shim.arm(flush, before)
                _send(directory, work, write)
                os.write(write, _ALL_SENT)
                signal.pause()  # fewer flushes than that: killed here
            finally:
                os._exit(1)
        os.close(write)
        told = b""
        if at_flush:  # its end, or the byte after the last acknowledgement
            while not told.endswith(_ALL_SENT) and (part := os.read(read, 4096)):
                told += part
            was_moment = told.endswith(_ALL_SENT)
        else:
            time.sleep(draw.uniform(0.005, 0.12))
            was_moment = True
        if was_moment:
            os.kill(child, signal.SIGKILL)
        os.waitid(os.P_PID, child, os.WEXITED)
        flushes, moments = flushes + (not was_moment), moments + was_moment
        with os.fdopen(read, "rb") as stream:
            count = (told + stream.read()).count(_ACKNOWLEDGED)
        acknowledged.update(work[:count])
        unsure = work[count:]

    # 3. what is there
    store = SqliteHistories(directory, BOUNDS, forwards=True, shards=2)
    for user, each in unsure:
        store.append(user, [event(each)], NOW).result(60)
    acknowledged.update(unsure)
    stored: Counter[tuple[str, int]] = Counter()
    sequences = 0
    for user in USERS:
        history = store.read(user, NOW)
        sequences += history.seq
        stored.update((user, int.from_bytes(each.id, "big")) for each in history.events)
    forwarded: Counter[tuple[str, int]] = Counter()
    while batches := store.outgoing():
        for batch in batches:
            forwarded.update((user, int((one.item or "i0")[1:])) for user, one in batch.rows)
            store.confirm(batch)
    store.close()
    return {
        "kills_at_a_flush": flushes,
        "kills_at_a_moment": moments,
        "acknowledged": len(acknowledged),
        "lost": len(acknowledged - stored.keys()) + len(acknowledged - forwarded.keys()),
        "counted_twice": sequences - len(acknowledged) + sum(forwarded.values()) - len(forwarded),
    }


def _send(directory: Path, work: list[tuple[str, int]], acknowledge: int) -> None:
    """Append events two at a time, and acknowledge each with a byte."""
    store = SqliteHistories(directory, BOUNDS, forwards=True, shards=2)
    for start in range(0, len(work), 2):
        pair = work[start : start + 2]
        futures = [store.append(user, [event(number)], NOW) for user, number in pair]
        for future in futures:
            future.result(60)
            os.write(acknowledge, _ACKNOWLEDGED)


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
