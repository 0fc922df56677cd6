"""A source may be an address: of a plain or a compressed file too, and of one that answers at the
second try.
"""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tasteloop.datasets import fetch as fetching
from tasteloop.datasets.catalogue import CATALOGUE, Archive, Source
from tasteloop.datasets.fetch import fetch
from tasteloop.errors import TasteloopError

PLAIN = b"user,item\n1,2\n" * 1_000


class Server:
    """Answers with a body once it has failed so many times.

    Attributes:
        requests: how many there were.
        cut: bytes of the body that are announced and never sent.
    """

    def __init__(self) -> None:
        self.body, self.failures, self.code, self.cut, self.requests = b"", 0, 503, 0, 0
        self.address = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests += 1
        if self.requests <= self.failures:
            handler.send_error(self.code)
            return
        handler.send_response(200)
        handler.send_header("content-length", str(len(self.body)))
        handler.end_headers()
        handler.wfile.write(self.body[: len(self.body) - self.cut])


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("TASTELOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetching, "_BETWEEN_TRIES", 0.0)
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        state.address = f"http://127.0.0.1:{web.server_address[1]}/reads.csv"
        yield state
        web.shutdown()


def add(monkeypatch: pytest.MonkeyPatch, server: Server, body: bytes, kind: Any = "file") -> None:
    server.body = body
    sha256 = hashlib.sha256(body).hexdigest()
    source = Source(
        name="tiny",
        gives="behaviour",
        archives=(Archive(server.address, sha256, ("reads.csv",), kind=kind),),
        description="tiny",
        terms="free as air",
    )
    monkeypatch.setitem(CATALOGUE, "tiny", source)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "body"), [("file", PLAIN), ("gzip", gzip.compress(PLAIN))], ids=["file", "gzip"]
)
def test_a_plain_and_a_compressed_file_are_sources(
    server: Server, monkeypatch: pytest.MonkeyPatch, kind: str, body: bytes
) -> None:
    add(monkeypatch, server, body, kind)

    assert (fetch("tiny") / "reads.csv").read_bytes() == PLAIN


def test_a_damaged_gzip_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, server, gzip.compress(PLAIN)[:-20], "gzip")

    with pytest.raises(TasteloopError, match="cannot read the members"):
        fetch("tiny")


def test_an_address_is_tried_three_times(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, server, PLAIN)
    server.failures = 2

    assert (fetch("tiny") / "reads.csv").read_bytes() == PLAIN
    assert server.requests == 3


def test_what_an_address_does_not_have_is_asked_once(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(monkeypatch, server, PLAIN)
    server.failures, server.code = 9, 404

    with pytest.raises(TasteloopError, match="HTTP Error 404"):
        fetch("tiny")

    assert server.requests == 1


def test_a_download_that_ends_early_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(monkeypatch, server, PLAIN)
    server.cut = 10

    with pytest.raises(TasteloopError, match="could not be downloaded"):
        fetch("tiny")

    assert server.requests == 3
