"""Load from a second process on loopback: ours beside a plain kserve.Model, in one run.

    python benchmarks/serving/load.py --bundle DIR --dataset DIR --encoder DIR [--seconds 20]
    [--rounds 3]

--dataset is a directory that `ingest` wrote (reviews.parquet, events.parquet). Every text is asked
once: a number is put behind it, so that a cache of texts helps nobody. Rounds of the servers
alternate; the tables hold medians.

  single       one caller: p50 beside the raw engine's, in the server's own process settings
  concurrent   16 callers, each asking again when answered: throughput, p50, p99
  steady       interests and recommend with 40 events, arriving at random at 60% of what 16 callers
  got overload     arriving at three times what 16 callers got, for a minute: codes, p99 of what was
  accepted, memory soak         only where asked (`--only soak`): half an hour of all three models,
  and what becomes of the memory
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import polars as pl
import psutil
from servers import HOUSE, Running, ours, plain

CALLERS = 16
_KEPT = 3.0  # seconds that an idle connection is used again; the servers close them after five
# of the whole run, so that no question comes twice and a cache of texts helps nobody
_NUMBERS = itertools.count(1)
Bodies = Iterator[bytes]


@dataclass
class Measured:
    """One load's outcome; latencies in seconds, of answers with 200 only."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    memory: list[float] = field(default_factory=list)  # MB

    @property
    def rate(self) -> float:
        return self.codes["200"] / self.seconds

    def quantile(self, q: float) -> float:
        """Milliseconds."""
        return 1000 * float(np.quantile(self.latencies, q)) if self.latencies else float("nan")


class Connection:
    """HTTP/1.1 with as little work as possible: the generator shares the processor with what it
    measures.
    """

    def __init__(self, url: str, path: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        )
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._used = 0.0

    async def ask(self, body: bytes) -> str:
        """The status, or what happened instead of one."""
        try:
            if time.perf_counter() - self._used > _KEPT:
                self.close()
            if self._streams is None:
                self._streams = await asyncio.open_connection(self._host, self._port)
            reader, writer = self._streams
            writer.write(f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            self._used = time.perf_counter()
            if b"connection: close" in head:
                self.close()
            return head.split(b" ", 2)[1].decode()
        except (OSError, EOFError) as error:
            self.close()
            return type(error).__name__

    def close(self) -> None:
        if self._streams:
            self._streams[1].close()
        self._streams = None


async def closed(
    server: Running, path: str, bodies: Bodies, callers: int, seconds: float
) -> Measured:
    """Callers that ask again as soon as they are answered."""
    measured = Measured()
    end = time.perf_counter() + seconds

    async def caller() -> None:
        connection = Connection(server.http, path)
        while (started := time.perf_counter()) < end:
            code = await connection.ask(next(bodies))
            measured.codes[code] += 1
            if code == "200":
                measured.latencies.append(time.perf_counter() - started)
        connection.close()

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    measured.seconds = time.perf_counter() - started
    return measured


async def arriving(
    server: Running, path: str, bodies: Bodies, rate: float, seconds: float
) -> Measured:
    """Requests at random times, `rate` a second, whether or not earlier ones are answered; time is
    from arrival.
    """
    measured, idle, draw = Measured(), [], random.Random(0)
    process = psutil.Process(server.pid)

    async def one(due: float) -> None:
        connection = idle.pop() if idle else Connection(server.http, path)
        code = await connection.ask(next(bodies))
        measured.codes[code] += 1
        if code == "200":
            measured.latencies.append(time.perf_counter() - due)
        idle.append(connection)

    started = due = time.perf_counter()
    sampled, tasks = started, set()
    while due < started + seconds:
        due += draw.expovariate(rate)
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(one(due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        if due > sampled:
            measured.memory.append(process.memory_info().rss / 2**20)
            sampled += 1
    if tasks:
        await asyncio.wait(tasks)
    measured.seconds = time.perf_counter() - started
    for connection in idle:
        connection.close()
    return measured


def reviews(dataset: Path) -> Bodies:
    """V1 bodies for `sentiment`, none twice."""
    texts = pl.read_parquet(dataset / "reviews.parquet")["text"].to_list()
    random.Random(0).shuffle(texts)
    for text in itertools.cycle(texts):
        yield json.dumps({"instances": [{"text": f"{text} {next(_NUMBERS)}"}]}).encode()


def histories(dataset: Path, events: int = 40) -> Bodies:
    """V1 bodies of one user's last events, none twice: a search with a number is the last."""
    frame = pl.read_parquet(dataset / "events.parquet").sort("user", "time")
    users = [
        part.tail(events - 1) for part in frame.partition_by("user") if len(part) >= events - 1
    ]
    histories_of_users = [
        [{k: v for k, v in row.items() if k != "user"} for row in user.to_dicts()] for user in users
    ]
    for rows in itertools.cycle(histories_of_users):
        events_of_question = [
            *rows,
            {"kind": "search", "text": f"film {next(_NUMBERS)}", "time": rows[-1]["time"]},
        ]
        yield json.dumps({"instances": [{"events": events_of_question}]}).encode()


def raw(bundle: Path, dataset: Path) -> float:
    """Milliseconds, p50, of the engine's own call for one review, in a process of its own."""
    script = """
import itertools, json, sys, time
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from load import reviews
from tasteloop.runtime.session import Session
session, times = Session.load(Path(sys.argv[1])), []
for body in itertools.islice(reviews(Path(sys.argv[2])), 300):
    instances = json.loads(body)["instances"]
    started = time.perf_counter()
    session.answer("sentiment", instances)
    times.append(time.perf_counter() - started)
print(1000 * sorted(times[50:])[125])
"""
    command = [sys.executable, "-c", script, str(bundle), str(dataset), str(Path(__file__).parent)]
    return float(
        subprocess.run(command, cwd=HOUSE, capture_output=True, text=True, check=True).stdout
    )


def middle(rounds: list[Measured], of: Callable[[Measured], float]) -> float:
    return statistics.median(of(measured) for measured in rounds)


def say(*cells: object) -> None:
    sys.stdout.write(
        "| " + " | ".join(f"{c:.4g}" if isinstance(c, float) else str(c) for c in cells) + " |\n"
    )
    sys.stdout.flush()


def head(title: str, *cells: str) -> None:
    sys.stdout.write(f"\n{title}\n\n")
    say(*cells)
    say(*["---"] * len(cells))


def compare(
    servers: list[Running], dataset: Path, seconds: float, rounds: int, engine: float
) -> float:
    """`single` and `concurrent`; returns what 16 callers got of ours."""
    path, bodies = "/v1/models/sentiment:predict", reviews(dataset)
    one: dict[str, list[Measured]] = {server.name: [] for server in servers}
    many: dict[str, list[Measured]] = {server.name: [] for server in servers}
    for number in range(rounds + 1):  # the first warms
        for server in servers:
            alone = asyncio.run(closed(server, path, bodies, 1, seconds / 4 if number else 2))
            together = asyncio.run(closed(server, path, bodies, CALLERS, seconds if number else 2))
            if number:
                one[server.name].append(alone)
                many[server.name].append(together)
    head("One caller", "", "p50 ms", "p99 ms", "x raw engine call")
    for name, measured_runs in one.items():
        p50 = middle(measured_runs, lambda m: m.quantile(0.5))
        say(name, p50, middle(measured_runs, lambda m: m.quantile(0.99)), p50 / engine)
    say("raw engine call", engine, "", "")
    head(f"{CALLERS} callers", "", "answers/s", "p50 ms", "p99 ms", "codes")
    for name, measured_runs in many.items():
        codes = dict(sum((m.codes for m in measured_runs), Counter()))
        p50, p99 = (
            middle(measured_runs, lambda m: m.quantile(0.5)),
            middle(measured_runs, lambda m: m.quantile(0.99)),
        )
        say(name, middle(measured_runs, lambda m: m.rate), p50, p99, codes)
    if len(servers) > 1:
        first, second = (many[server.name] for server in servers)
        rates = [middle(measured_runs, lambda m: m.rate) for measured_runs in (first, second)]
        tails = [
            middle(measured_runs, lambda m: m.quantile(0.99)) for measured_runs in (first, second)
        ]
        say("ratio", f"{rates[0] / rates[1]:.2f}x", "", f"{tails[0] / tails[1]:.2f}x", "")
    return middle(many[servers[0].name], lambda m: m.rate)


def steady(server: Running, dataset: Path, seconds: float) -> None:
    head("Arriving at 60% of capacity, 40 events", "", "capacity/s", "p50 ms", "p99 ms", "codes")
    for model in ("interests", "recommend"):
        path, bodies = f"/v1/models/{model}:predict", histories(dataset)
        capacity = asyncio.run(closed(server, path, bodies, CALLERS, seconds)).rate
        measured = asyncio.run(arriving(server, path, bodies, 0.6 * capacity, seconds))
        say(
            model,
            capacity,
            measured.quantile(0.5),
            measured.quantile(0.99),
            dict(measured.codes),
        )


def overload(server: Running, dataset: Path, capacity: float, seconds: float) -> None:
    path, bodies = "/v1/models/sentiment:predict", reviews(dataset)
    calm = asyncio.run(arriving(server, path, bodies, 0.6 * capacity, seconds / 3))
    pressed = asyncio.run(arriving(server, path, bodies, 3 * capacity, seconds))
    head(
        "Overload", "", "answers/s", "p50 ms", "p99 ms", "codes", "memory MB, first to last (most)"
    )
    for name, measured in (("0.6x capacity", calm), ("3x capacity", pressed)):
        memory = (
            f"{measured.memory[0]:.0f} to {measured.memory[-1]:.0f} ({max(measured.memory):.0f})"
        )
        say(
            name,
            measured.rate,
            measured.quantile(0.5),
            measured.quantile(0.99),
            dict(measured.codes),
            memory,
        )
    say("ratio", "", "", f"{pressed.quantile(0.99) / calm.quantile(0.99):.2f}x", "", "")


def soak(server: Running, dataset: Path, rate: float, seconds: float) -> None:
    """All three models at a moderate rate; memory after a tenth of the time and at the end, medians
    of a twentieth.
    """
    bodies = {
        "sentiment": reviews(dataset),
        "interests": histories(dataset),
        "recommend": histories(dataset),
    }

    async def together() -> list[Measured]:
        requests = ((f"/v1/models/{model}:predict", own) for model, own in bodies.items())
        return list(
            await asyncio.gather(
                *(arriving(server, path, own, rate / 3, seconds) for path, own in requests)
            )
        )

    of_models = asyncio.run(together())
    memory = of_models[0].memory
    part = max(1, len(memory) // 20)
    early, late = (statistics.median(m) for m in (memory[2 * part : 3 * part], memory[-part:]))
    head(
        f"Soak, {seconds / 60:.0f} minutes at {rate:g} requests/s",
        "",
        "answers",
        "p50 ms",
        "p99 ms",
        "codes",
    )
    for model, measured in zip(bodies, of_models, strict=True):
        say(
            model,
            len(measured.latencies),
            measured.quantile(0.5),
            measured.quantile(0.99),
            dict(measured.codes),
        )
    sys.stdout.write(
        f"\nResident memory: {memory[0]:.0f} MB at the start, {early:.0f} after a tenth, {late:.0f} at the end "
        f"({late / early - 1:+.1%}), at most {max(memory):.0f}.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument(
        "--encoder", type=Path, help="what the peer serves; without it ours alone is measured"
    )
    parser.add_argument(
        "--seconds", type=float, default=20, help="of one load (default: %(default)s)"
    )
    parser.add_argument("--overload-seconds", type=float, default=60)
    parser.add_argument(
        "--rounds", type=int, default=3, help="of each server (default: %(default)s)"
    )
    parser.add_argument(
        "--only", choices=("compare", "steady", "overload", "soak"), help="one part of it"
    )
    parser.add_argument(
        "--soak-seconds", type=float, default=1800, help="of `--only soak` (default: %(default)s)"
    )
    parser.add_argument(
        "--soak-rate", type=float, default=9, help="requests a second then (default: %(default)s)"
    )
    parser.add_argument(
        "--serve", nargs="*", default=[], metavar="OPTION", help="for ours: --serve=--max-wait=0.1"
    )
    arguments = parser.parse_args()
    engine = (
        raw(arguments.bundle, arguments.dataset)
        if arguments.only in (None, "compare")
        else float("nan")
    )
    with ours(arguments.bundle, *arguments.serve) as server:
        if arguments.only == "soak":
            soak(server, arguments.dataset, arguments.soak_rate, arguments.soak_seconds)
            return
        if arguments.only in (None, "compare"):
            if arguments.encoder:
                with plain(arguments.encoder) as peer:
                    both = [server, peer]
                    capacity = compare(
                        both, arguments.dataset, arguments.seconds, arguments.rounds, engine
                    )
            else:
                capacity = compare(
                    [server], arguments.dataset, arguments.seconds, arguments.rounds, engine
                )
        else:
            bodies = reviews(arguments.dataset)
            path = "/v1/models/sentiment:predict"
            capacity = asyncio.run(closed(server, path, bodies, CALLERS, arguments.seconds)).rate
        if arguments.only in (None, "steady"):
            steady(server, arguments.dataset, arguments.seconds)
        if arguments.only in (None, "overload"):
            overload(server, arguments.dataset, capacity, arguments.overload_seconds)


if __name__ == "__main__":
    main()
