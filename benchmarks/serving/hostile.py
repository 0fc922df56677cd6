"""What hostile callers cost those who behave: latency, memory and log of our server, attacked and
not, in one run.

    python benchmarks/serving/hostile.py --bundle DIR --dataset DIR [--seconds 30] [--rounds 3]

In every round the same load arrives twice, once alone and once while a process of its own attacks
the same server:

  300 idle      connections on which nothing is ever sent
  300 trickling connections that send one byte of a request head a second
  1,000 bodies  hostile requests at random times, one connection each: nested, bombs, wrong lengths,
  false claims

The attackers come from loopback addresses of their own (--addresses), as those of a real attack
would; those who behave come from 127.0.0.1. A connection that the server closes is opened anew.
Memory is the server's resident set at
rest: it is read a moment after the load ended. The log is what the server wrote to its standard
error.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import multiprocessing
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from load import arriving, head, middle, reviews, say
from servers import Running, ours

PATH = "/v1/models/sentiment:predict"
IDLE, TRICKLING, BODIES = 300, 300, 1000
_REST = 3.0  # seconds after a load before memory is read
_PATIENCE = 40.0  # seconds that an attacker waits for an answer


def hostile_requests() -> dict[str, bytes]:
    """Whole requests, by what is wrong with them."""
    deep = b'{"instances": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    texts = json.dumps({"instances": [{"text": "x" * 19_000}] * 200}).encode()
    answers = json.dumps({"instances": [{"events": [], "k": 1000}] * 256}).encode()
    claims = json.dumps(
        {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [10**9], "data": ["a"]}]}
    ).encode()
    digits = b'{"instances": [{"text": "a", "k": ' + b"9" * 100_000 + b"}]}"
    bomb = gzip.compress(b'{"instances": [{"text": "' + b" " * 64 * 2**20 + b'"}]}')
    trailers = b"".join(b"x-%d: %s\r\n" % (n, b"y" * 8000) for n in range(100))
    post = b"POST %s HTTP/1.1\r\nHost: localhost\r\n"

    def request(path: bytes, body: bytes, *more: bytes) -> bytes:
        head = post % path + b"".join(line + b"\r\n" for line in more)
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body

    v1, v2 = PATH.encode(), b"/v2/models/sentiment/infer"
    recommend = b"/v1/models/recommend:predict"
    return {
        "nested 200,000 deep": request(v1, deep),
        "4 MB that is no JSON": request(v1, b"\xff" * (4 * 2**20 - 1)),
        "8 MB": request(v1, b" " * 8 * 2**20),
        "200 long texts": request(v1, texts),
        "256 instances of k = 1000": request(recommend, answers),
        "a shape of 1e9": request(v2, claims),
        "a number of 100,000 digits": request(v1, digits),
        "a header length of 5,000 digits": request(
            v2, b"{}", b"Inference-Header-Content-Length: " + b"9" * 5000
        ),
        "gzip of 64 MB": request(v1, bomb, b"Content-Encoding: gzip"),
        "half of a gzip": request(v1, bomb[: len(bomb) // 2], b"Content-Encoding: gzip"),
        "800 kB of trailers": post % v1
        + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
        + trailers
        + b"\r\n",
        "200 kB of head": post % v1 + b"x: " + b"y" * 200_000 + b"\r\n\r\n",
        "a wrong chunk length": post % v1
        + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        "no HTTP": bytes(range(256)) * 40,
        "unload with a newline": request(b"/v2/repository/models/sentiment/unload%0A", b""),
        "another origin": request(
            v1, b'{"instances": [{"text": "a"}]}', b"Origin: https://example.com"
        ),
        "less than announced": post % v1 + b"Content-Length: 100000\r\n\r\n{",
    }


class Attack:
    """Everything that is done to one server for a number of seconds, in an event loop of its
    own.
    """

    def __init__(self, url: str, seconds: float, addresses: int) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self._end = time.monotonic() + seconds
        self._sources = [f"127.0.0.{n + 2}" for n in range(addresses)]
        self._draw = random.Random(0)
        self.outcomes: Counter[str] = Counter()

    async def run(self) -> None:
        requests = hostile_requests()
        bodies = [list(requests.items())[n % len(requests)] for n in range(BODIES)]
        self._draw.shuffle(bodies)
        now = time.monotonic()
        due = sorted(self._draw.uniform(now, self._end - 2) for _ in bodies)
        await asyncio.gather(
            *(self._hold(trickle=False) for _ in range(IDLE)),
            *(self._hold(trickle=True) for _ in range(TRICKLING)),
            *(self._send(name, body, when) for (name, body), when in zip(bodies, due, strict=True)),
        )

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        source = (self._draw.choice(self._sources), 0)
        return await asyncio.open_connection(self._host, self._port, local_addr=source)

    async def _hold(self, trickle: bool) -> None:
        """Keep a connection open for as long as the attack goes on."""
        kind = "trickling" if trickle else "idle"
        request = (
            b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"y" * 10_000
        )
        await asyncio.sleep(self._draw.uniform(0, 1))
        while time.monotonic() < self._end:
            try:
                reader, writer = await self._connect()
                sent = 0
                while time.monotonic() < self._end and not reader.at_eof():
                    if trickle:
                        writer.write(request[sent : sent + 1])
                        sent += 1
                    try:
                        await asyncio.wait_for(reader.read(1024), 1.0)
                    except TimeoutError:
                        continue
                writer.close()
                self.outcomes[
                    f"{kind}: closed by the server"
                    if reader.at_eof()
                    else f"{kind}: open to the end"
                ] += 1
            except OSError as error:
                self.outcomes[f"{kind}: {type(error).__name__}"] += 1
            await asyncio.sleep(0.5)

    async def _send(self, name: str, body: bytes, when: float) -> None:
        await asyncio.sleep(max(0.0, when - time.monotonic()))
        status = b""
        try:
            reader, writer = await self._connect()
            writer.write(body)
            status = await asyncio.wait_for(reader.readline(), _PATIENCE)
            # whoever keeps the connection open is left then
            while await asyncio.wait_for(reader.read(2**16), 1.0):
                pass
        except TimeoutError:
            pass
        except OSError as error:
            self.outcomes[f"{name}: {type(error).__name__}"] += 1
            return
        writer.close()
        self.outcomes[
            f"{name}: {status.split()[1].decode() if status else 'closed without an answer'}"
        ] += 1


def attack(url: str, seconds: float, addresses: int, outcomes: Any) -> None:
    """In a process of its own, so that it does not slow down the callers that are measured."""
    one = Attack(url, seconds, addresses)
    asyncio.run(one.run())
    outcomes.put(dict(one.outcomes))


@contextmanager
def attacked(
    url: str, seconds: float, addresses: int, outcomes_of_attack: Counter[str]
) -> Iterator[None]:
    outcomes: Any = multiprocessing.Queue()
    process = multiprocessing.Process(
        target=attack, args=(url, seconds + 2, addresses, outcomes), daemon=True
    )
    process.start()
    time.sleep(2)  # until its connections are open
    yield
    outcomes_of_attack.update(outcomes.get(timeout=seconds + 2 * _PATIENCE))
    process.join()


def resident(server: Running) -> float:
    """MB."""
    return float(psutil.Process(server.pid).memory_info().rss / 2**20)


def logged(server: Running) -> int:
    """Bytes that a server wrote to its standard error, which is a file without a name."""
    return os.stat(f"/proc/{server.pid}/fd/2").st_size


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument(
        "--dataset", type=Path, required=True, help="a directory that `ingest` wrote"
    )
    parser.add_argument(
        "--seconds", type=float, default=30, help="of one load (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument(
        "--rate",
        type=float,
        default=20,
        help="requests a second that behave (default: %(default)s)",
    )
    parser.add_argument(
        "--addresses", type=int, default=20, help="of the attackers (default: %(default)s)"
    )
    parser.add_argument(
        "--serve",
        nargs="*",
        default=[],
        metavar="OPTION",
        help="for the server: --serve=--max-wait=1",
    )
    arguments = parser.parse_args()
    bodies, outcomes = reviews(arguments.dataset), Counter[str]()
    calm, hostile = [], []
    with ours(arguments.bundle, *arguments.serve) as server:

        def load() -> Any:
            return asyncio.run(arriving(server, PATH, bodies, arguments.rate, arguments.seconds))

        load()  # warms
        time.sleep(_REST)
        memory, log = [resident(server)], logged(server)
        for _ in range(arguments.rounds):
            calm.append(load())
            with attacked(server.http, arguments.seconds, arguments.addresses, outcomes):
                hostile.append(load())
            time.sleep(_REST)
            memory.append(resident(server))
        log = logged(server) - log
    head(
        f"{arguments.rate:g} requests/s that behave, {arguments.rounds} rounds",
        "",
        "p50 ms",
        "p99 ms",
        "codes",
    )
    for name, rounds in (("alone", calm), ("attacked", hostile)):
        codes = dict(sum((one.codes for one in rounds), Counter[str]()))
        say(
            name,
            middle(rounds, lambda m: m.quantile(0.5)),
            middle(rounds, lambda m: m.quantile(0.99)),
            codes,
        )
    ratios = [
        one.quantile(0.99) / other.quantile(0.99) for one, other in zip(hostile, calm, strict=True)
    ]
    say("ratio of each round", "", ", ".join(f"{ratio:.2f}x" for ratio in ratios), "")
    sys.stdout.write(
        f"\nResident memory after each round, MB: {', '.join(f'{each:.0f}' for each in memory)}\n"
    )
    sys.stdout.write(f"Log: {log / 2**20:.2f} MB in all rounds\n")
    head("What became of the attackers", "", "times")
    for name, times in sorted(outcomes.items()):
        say(name, times)
    return int(any(name.rpartition(": ")[2].startswith("5") for name in outcomes))


if __name__ == "__main__":
    sys.exit(main())
