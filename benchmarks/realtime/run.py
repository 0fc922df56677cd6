"""Stored histories beside a naive peer, in one run: a list in Valkey, and events sent along.

    python -m benchmarks.realtime.run --bundle DIR [--users 1000000] [--seconds 30] [--kills 1000]

What it does, each with a line of the table that it prints:

  size         a store of so many users with 40 events each: seconds to load, bytes a user
  append       the store alone: events one at a time, flushed: append, and the read after it
  offered      a real server over that store: requests arriving at random, one event or more each;
               after one in ten the read of a user, which shows the event
  question     the same question with 40 events sent along and with `user`, in turn
  consumed     the first recommendation is consumed, acknowledged and asked for again
  peer         RPUSH and LRANGE of JSON in Valkey: the same, each sent twice as after a timeout
  kills        a writer that is killed at its flushes and at any moment
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from serving.histories.protocol import Histories, StoredEvent
from serving.histories.sqlite import SqliteHistories
from tasteloop.behaviour.events import Event
from tasteloop.privacy.pseudonyms import pseudonym

KEY = "key of the realtime benchmark"
ADMIN = "admin-token-of-the-benchmark"
EVENTS = 40
NOW = time.time_ns() // 1000
_CONNECTIONS = 200  # of the callers
_OFFERED = ((50.0, 1), (200.0, 1), (500.0, 10), (2_000.0, 20))  # events a second, events a request
_POOL = 500  # histories that the users of a store share; their ids differ


def quantiles(seconds: Sequence[float]) -> str:
    """p50 and p99 in milliseconds."""
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return f"p50 {1000 * statistics.median(ordered):.2f} ms, p99 {1000 * p99:.2f} ms"


def report(name: str, text: str) -> None:
    print(f"| {name} | {text} |", flush=True)


def user_of(number: int) -> str:
    return f"user {number}"


def histories(users: int, items: Sequence[str], seed: int = 1) -> Iterator[tuple[str, Any]]:
    """So many users with histories of ratings and clicks over two years."""
    draw = random.Random(seed)
    pool = []
    for _ in range(_POOL):
        times = sorted(NOW - draw.randint(10**9, 6 * 10**13) for _ in range(EVENTS))
        chosen = draw.sample(items, EVENTS)
        pool.append(
            [
                Event(draw.choice(["rate", "click"]), item, when, draw.randint(0, 4) / 4)
                for item, when in zip(chosen, times, strict=True)
            ]
        )
    for number in range(users):
        events = pool[number % _POOL]
        ids = draw.randbytes(8 * EVENTS)
        stored = [StoredEvent(ids[8 * n : 8 * n + 8], event) for n, event in enumerate(events)]
        yield pseudonym(user_of(number), KEY.encode()), stored


def measure_appends(store: Histories, users: int, count: int) -> tuple[list[float], list[float]]:
    """Seconds of appends of one event, each durable before the next, and of reads after them."""
    draw = random.Random(2)
    appends, reads = [], []
    for _ in range(count):
        user = pseudonym(user_of(draw.randrange(users)), KEY.encode())
        event = StoredEvent(draw.randbytes(8), Event("click", "50", time.time_ns() // 1000))
        started = time.perf_counter()
        seq = store.append(user, [event], NOW).result(60).seq
        appended = time.perf_counter()
        history = store.read(user, NOW)
        reads.append(time.perf_counter() - appended)
        appends.append(appended - started)
        assert history.seq >= seq and event in history.events
    return appends, reads


@contextmanager
def server(bundle: Path, store: str, home: Path) -> Iterator[tuple[str, Any]]:
    """A real server with a store: its address, and its process."""
    ready = home / "ready.json"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "serving", "--bundle", str(bundle), "--port", "0"]
    command += ["--grpc-port", "0", "--ready-file", str(ready), "--histories", store]
    environment = {
        **os.environ,
        "TASTELOOP_HOME": str(home),
        "TASTELOOP_PSEUDONYM_KEY": KEY,
        "TASTELOOP_ADMIN_TOKEN": ADMIN,
    }
    with subprocess.Popen(command, env=environment) as process:
        try:
            while not ready.exists():
                assert process.poll() is None, "the server ended"
                time.sleep(0.1)
            yield json.loads(ready.read_text())["http"], psutil.Process(process.pid)
        finally:
            process.terminate()


class Caller:
    """One connection that is kept open."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = parts.hostname, parts.port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ADMIN}\r\n"
        writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(answer.partition("content-length: ")[2].partition("\r\n")[0])
        return int(answer[9:12]), json.loads(await reader.readexactly(length))


async def offer(url: str, rate: float, each: int, seconds: float, users: int) -> dict[str, Any]:
    """Events at a rate, so many a request; requests arrive at random, each on an idle connection.
    One that finds all connections busy is not sent, and counted.
    """
    draw = random.Random(3)
    idle: list[Caller] = []
    codes: dict[int | str, int] = {}
    under_way = 0
    acknowledged: list[float] = []
    visible: list[float] = []

    async def send(number: int) -> None:
        nonlocal under_way
        if under_way >= _CONNECTIONS:
            codes["not sent"] = codes.get("not sent", 0) + 1
            return
        under_way += 1
        caller = idle.pop() if idle else Caller(url)
        rows = [
            {
                "user": user_of(draw.randrange(users)),
                "id": f"{rate} {each} {number} {n}",
                "kind": "click",
                "item": "50",
            }
            for n in range(each)
        ]
        user = rows[0]["user"]
        started = time.perf_counter()
        code, answer = await caller.ask("POST", "/v1/events", {"events": rows})
        codes[code] = codes.get(code, 0) + 1
        if code == 202:
            acknowledged.append(time.perf_counter() - started)
            if number % 10 == 0:
                began = time.perf_counter()
                _, export = await caller.ask("GET", f"/v1/users/{user.replace(' ', '%20')}")
                assert export["seq"] >= answer["seq"][user], "an acknowledged event was not read"
                visible.append(time.perf_counter() - began)
        idle.append(caller)
        under_way -= 1

    started, tasks, at, number = time.perf_counter(), [], 0.0, 0
    while at < seconds:
        at += draw.expovariate(rate / each)
        await asyncio.sleep(max(0.0, started + at - time.perf_counter()))
        tasks.append(asyncio.create_task(send(number)))
        number += 1
    await asyncio.gather(*tasks)
    took = time.perf_counter() - started
    sent = codes.get(202, 0) * each
    return {"codes": codes, "rate": sent / took, "acknowledged": acknowledged, "visible": visible}


def processor(process: Any) -> float:
    """Seconds of processor time that a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


async def compare_questions(
    url: str, process: Any, count: int
) -> tuple[list[float], list[float], list[float], list[float]]:
    """Seconds of a question with its events sent along and with the stored history, in turn; by how
    much the second took longer; and the mean processor time of each in the server.
    """
    used = [0.0, 0.0]
    caller = Caller(url)
    sent, stored, more = [], [], []
    for number in range(count + 10):
        user = user_of(number)
        _, export = await caller.ask("GET", f"/v1/users/{user.replace(' ', '%20')}")
        events = [
            {name: value for name, value in event.items() if name != "id"}
            for event in export["events"]
        ]
        pair = []
        # each order as often, and another k, so that no cache of texts helps the second
        questions = [{"events": events, "k": 10}, {"user": user, "k": 10}]
        for turn in (0, 1) if number % 2 else (1, 0):
            started, before = time.perf_counter(), processor(process)
            code, answer = await caller.ask(
                "POST", "/v1/models/recommend:predict", {"instances": [questions[turn]]}
            )
            pair.append((turn, time.perf_counter() - started, answer["predictions"]))
            assert code == 200
            used[turn] += (processor(process) - before) / (count + 10)
        pair.sort(key=lambda each: each[0])
        assert pair[0][2] == pair[1][2], "a stored history is answered as one that is sent"
        if number >= 10:
            sent.append(pair[0][1])
            stored.append(pair[1][1])
            more.append(pair[1][1] - pair[0][1])
    return sent, stored, more, used


async def consume(url: str, rounds: int) -> int:
    """How often a consumed item was recommended after its acknowledgement."""
    caller = Caller(url)
    wrong = 0
    draw = random.Random(4)
    for number in range(rounds):
        user = f"shopper {number % 5}"
        question = {"instances": [{"user": user, "k": 10}]}
        _, answer = await caller.ask("POST", "/v1/models/recommend:predict", question)
        item = answer["predictions"][0]["recommendations"][0]["item"]
        kind = draw.choice(["purchase", "view", "hide", "skip"])
        row = {"user": user, "kind": kind, "item": item}
        code, _ = await caller.ask("POST", "/v1/events", {"events": [row]})
        assert code == 202
        _, answer = await caller.ask("POST", "/v1/models/recommend:predict", question)
        wrong += item in [one["item"] for one in answer["predictions"][0]["recommendations"]]
    return wrong


def measure_peer(count: int) -> str:
    """A list in Valkey: what a caller would have without a store."""
    import valkey

    from tests.support.valkey import valkey_server

    client = valkey.Valkey(port=valkey_server().port)
    draw = random.Random(2)
    appends, reads, doubled = [], [], 0
    for number in range(count):
        key = f"list:{number % 100}"
        row = json.dumps({"kind": "click", "item": "50", "time": NOW + number}).encode()
        started = time.perf_counter()
        client.rpush(key, row)
        client.ltrim(key, -500, -1)
        appended = time.perf_counter()
        client.rpush(key, row)  # its answer was lost, so it is sent again
        began = time.perf_counter()
        history = [json.loads(one) for one in client.lrange(key, 0, -1)]
        reads.append(time.perf_counter() - began)
        appends.append(appended - started)
        doubled += history[-1] == history[-2]
    for _ in range(EVENTS):
        item = str(draw.randint(1, 1682))
        client.rpush("size", json.dumps({"kind": "rate", "item": item, "value": 0.5, "time": NOW}))
    size = client.memory_usage("size")
    return (
        f"append {quantiles(appends)}; read {quantiles(reads)}; {doubled} of {count} counted twice; "
        f"{size} bytes a user"
    )


def measure_valkey(count: int, items: Sequence[str]) -> str:
    from serving.histories.valkey import ValkeyHistories
    from tests.support.valkey import valkey_address, valkey_server

    valkey_server().client().flushall()
    store = ValkeyHistories(valkey_address())
    users = 2_000
    before = store.statistics().bytes
    store.load(histories(users, items), NOW)
    size = (store.statistics().bytes - before) / users
    appends, reads = measure_appends(store, users, count)
    store.close()
    return (
        f"append {quantiles(appends)}; read {quantiles(reads)}; {size:.0f} bytes a user in memory"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--appends", type=int, default=2_000)
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--directory", type=Path, help="of the store; it stays, and is used again")
    arguments = parser.parse_args()
    from tasteloop.behaviour.items import Catalogue
    from tasteloop.bundle.names import ITEMS_FILE

    items = Catalogue.read(arguments.bundle / ITEMS_FILE).items
    print("| what | measured |\n|---|---|")
    with tempfile.TemporaryDirectory(dir=arguments.directory) as scratch:
        home = arguments.directory or Path(scratch)
        directory = home / f"histories-{arguments.users}"
        is_new = not directory.exists()
        store = SqliteHistories(directory)
        started = time.perf_counter()
        if is_new:
            store.load(histories(arguments.users, items), NOW)
        seconds, size = time.perf_counter() - started, store.statistics()
        report(
            "size",
            f"{size.users} users, {size.events} events, {size.bytes / size.users:.0f} bytes a user; "
            f"loaded in {seconds:.0f} s",
        )
        appends, reads = measure_appends(store, arguments.users, arguments.appends)
        report("append", f"append {quantiles(appends)}; read {quantiles(reads)}")
        store.close()
        with server(arguments.bundle, str(directory), home) as (url, process):
            for rate, each in _OFFERED:
                before = processor(process)
                out = asyncio.run(offer(url, rate, each, arguments.seconds, arguments.users))
                requests = sum(count for code, count in out["codes"].items() if code == 202)
                used = 1000 * (processor(process) - before) / max(1, requests)
                report(
                    f"offered {rate:.0f} events/s, {each} a request",
                    f"{out['rate']:.0f}/s, codes {out['codes']}; acknowledged {quantiles(out['acknowledged'])}; "
                    f"the read after it {quantiles(out['visible'])}; "
                    f"{used:.2f} ms of the server's processor a request",
                )
            sent, stored, more, used_by = asyncio.run(compare_questions(url, process, 300))
            report(
                "question",
                f"sent along {quantiles(sent)}; stored {quantiles(stored)}; more by {quantiles(more)}; "
                f"the server's processor {1000 * used_by[0]:.2f} and {1000 * used_by[1]:.2f} ms",
            )
            wrong = asyncio.run(consume(url, 200))
            report("consumed", f"{wrong} of 200 recommended again")
        report("valkey", measure_valkey(arguments.appends, items))
        report("peer", measure_peer(arguments.appends))
        if arguments.kills:
            from tests.support.history_kills import build_shim, run_kills

            found = run_kills(Path(scratch) / "killed", arguments.kills, build_shim(Path(scratch)))
            report("kills", ", ".join(f"{name} {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
