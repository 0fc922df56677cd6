"""A whole HTTP server in this process, over a session that answers at once: what a caller's bytes
meet.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from serving.http.server import Server
from serving.journal.tokens import FeedbackTokens

API, ADMIN = "api-token-of-a-test", "admin-token-of-a-test"
ASK = "/v1/models/sentiment:predict"
ONE = b'{"instances": [{"text": "fine"}]}'
KEY = b"key of a test"
TOKENS = FeedbackTokens(KEY)
FEEDBACK = json.dumps(
    {
        "feedback": [
            {"request": "r", "token": TOKENS.issue("r", "a" * 32), "kind": "click", "item": "1"}
        ]
    }
).encode()


class Session:
    """Answers from nothing: after a second where the text is `slow`, with a million characters for
    each of a recommendation's `k`.
    """

    digest = "d" * 64
    labels = ("Comedy", "Drama")
    models = ("interests", "recommend", "sentiment")

    def heard(self, *_: Any) -> list[dict[str, Any]]:
        return []

    def compute(self, model: str, questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if model == "recommend":
            return [{"recommendations": [entry(question["k"] or 1)]} for question in questions]
        if model == "interests":
            return [
                {
                    "interests": [
                        {
                            "label": "Drama",
                            "probability": 0.5,
                            "predicted": True,
                            "confident": False,
                        }
                    ]
                }
                for _ in questions
            ]
        if questions[0]["text"] == "slow":
            time.sleep(1.0)
        return [
            {"sentiment": "positive", "probability": 0.5, "confident": False} for _ in questions
        ]


def entry(millions: int) -> dict[str, Any]:
    return {"item": "1", "title": "x" * (1_000_000 * millions), "score": 1.0, "reasons": []}


@contextmanager
def open_house(
    journal: Any = None,
    api: str | None = API,
    admin: str | None = ADMIN,
    session: Any = None,
    histories: Any = None,
    **settings: Any,
) -> Iterator[Any]:
    """A server with everything but its ports and its loop.

    Args:
        session: answers in place of `Session`.
        histories: a `HistoryService`; its key is `KEY`.
    """
    from serving.answering.batching import Batcher
    from serving.answering.live import Live
    from serving.answering.predictor import Predictor
    from serving.http.access import Access
    from serving.http.routes import history_routes, routes
    from serving.settings import ServerSettings

    access = Access(api, admin, True)
    answered = routes(dict, journal, TOKENS)
    if histories is not None:
        answered += history_routes(histories, access)
    house = Server(ServerSettings(port=0, grpc_port=0, **settings), access, answered)
    live = Live(Predictor(session or Session(), "1"), journal, KEY if histories else None)
    live.histories = histories
    batcher = Batcher(live)
    house.open(batcher)
    try:
        yield house
    finally:
        house._listener.close()
        batcher.close()


@contextmanager
def running(house: Any) -> Iterator[tuple[str, int]]:
    """Its REST server in a thread; its address."""
    thread = threading.Thread(target=lambda: asyncio.run(house._rest_server.start()), daemon=True)
    thread.start()
    while not house._rest_server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield house._listener.getsockname()
    finally:
        house._rest_server.stop()
        thread.join(60)


def request(
    path: str = ASK,
    body: bytes = ONE,
    method: str = "POST",
    token: str | None = API,
    **headers: str,
) -> bytes:
    lines = {
        "Host": "localhost",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    if token:
        lines["Authorization"] = f"Bearer {token}"
    if body and "Transfer-Encoding" not in lines:
        lines.setdefault("Content-Length", str(len(body)))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def ask(address: tuple[str, int], *parts: bytes, until: int = 1, timeout: float = 30) -> bytes:
    """What comes for the parts until so many answers are whole, or the connection ends."""
    with socket.create_connection(address, timeout=timeout) as connection:
        for part in parts:
            connection.sendall(part)
        return read(connection, until)


def read(connection: socket.socket, until: int = 1) -> bytes:
    received = b""
    try:
        while _whole(received) < until and (part := connection.recv(65536)):
            received += part
    except ConnectionResetError:
        pass
    return received


def _whole(received: bytes) -> int:
    count = 0
    while match := re.search(rb"content-length: (\d+)\r\n(?:[^\r\n]+\r\n)*\r\n", received):
        if len(received) < match.end() + int(match[1]):
            break
        received, count = received[match.end() + int(match[1]) :], count + 1
    return count


def is_closed(connection: socket.socket) -> bool:
    """Waits for its end."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True
