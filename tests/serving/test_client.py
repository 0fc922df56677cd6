"""`serving.client` against a real HTTP server that answers what each test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from serving.client import Client, ServingError


class Server(ThreadingHTTPServer):
    """Answers `status` and `content` to everything and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.content, self.delay = 200, b"{}", threading.Event()
        self.requests: list[tuple[str, str, Any]] = []
        self.delay.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answers(self, content: Any, status: int = 200) -> None:
        self.status = status
        self.content = content if isinstance(content, bytes) else json.dumps(content).encode()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.requests.append((self.command, self.path, json.loads(body) if body else None))
        self.server.delay.wait(10)
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content)

    do_GET = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.delay.set()
        server.shutdown()
        thread.join()


def test_predict(server: Server) -> None:
    server.answers({"predictions": [{"probability": 0.5}], "model_version": "3"})
    with Client(server.url + "/") as client:
        assert client.predict("sentiment", [{"text": "a"}]) == [{"probability": 0.5}]
    assert server.requests == [
        ("POST", "/v1/models/sentiment:predict", {"instances": [{"text": "a"}]}),
    ]


def test_infer_returns_the_whole_response(server: Server) -> None:
    response = {"model_version": "3", "outputs": []}
    server.answers(response)
    with Client(server.url) as client:
        assert client.infer("recommend", [{"name": "events"}], {"k": 2}) == response
    assert server.requests[0][1:] == (
        "/v2/models/recommend/infer",
        {"inputs": [{"name": "events"}], "parameters": {"k": 2}},
    )


def test_ready(server: Server) -> None:
    with Client(server.url) as client:
        server.answers({"ready": True})
        assert client.ready()
        server.answers({"error": "no"}, 503)
        assert not client.ready()


@pytest.mark.parametrize(
    ("status", "content", "message"),
    [
        (
            400,
            {"error": "unknown event kind 'veiw'"},
            r"refused the question \(400\): unknown event kind 'veiw'",
        ),
        (404, b"", r"refused the question \(404\): Not Found"),
        (500, {"error": "internal error 12ab"}, r"failed \(500\): internal error 12ab"),
        (502, b"<html>bad gateway</html>", r"failed \(502\): <html>bad gateway"),
        (200, b"<html>", r"failed \(200\): <html>"),
        (200, {"detail": "what?"}, 'without "predictions": is it a Tasteloop server'),
        (200, [1], 'without "predictions"'),
    ],
)
def test_errors_say_what_came(server: Server, status: int, content: Any, message: str) -> None:
    server.answers(content, status)
    with Client(server.url) as client, pytest.raises(ServingError, match=message) as caught:
        client.predict("sentiment", [{"text": "a"}])
    assert caught.value.status in (status, None)


def test_nobody_there(server: Server) -> None:
    with Client("http://127.0.0.1:9") as client:
        with pytest.raises(
            ServingError, match="no server at http://127.0.0.1:9; start one with `tasteloop serve`"
        ):
            client.predict("sentiment", [{"text": "a"}])
        assert not client.ready()


def test_too_slow(server: Server) -> None:
    server.delay.clear()
    with (
        Client(server.url, timeout=0.1) as client,
        pytest.raises(ServingError, match=r"within 0\.1 s"),
    ):
        client.predict("sentiment", [{"text": "a"}])


@pytest.mark.parametrize(
    "url",
    [
        "",
        "not a url",
        "127.0.0.1:8080",
        "ftp://127.0.0.1",
        "http://",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:0",
        "http://127.0.0.1:8O80",
        "http://[::1",
        "http://127.0.0.1\n:8080",
        "http://☃☃☃" + "x" * 80 + ".example",
    ],
)
def test_an_impossible_address(url: str) -> None:
    with (
        pytest.raises(ServingError, match="is no address of a server; give one such as http"),
        Client(url) as client,
    ):
        client.predict("sentiment", [{"text": "a"}])


def test_a_refused_address_leaves_its_password_out() -> None:
    with pytest.raises(ServingError) as caught:
        Client("http://user:SECRET@127.0.0.1:8O80")
    assert "SECRET" not in str(caught.value) and "127.0.0.1:8O80" in str(caught.value)


def test_what_json_cannot_carry() -> None:
    with (
        Client("http://127.0.0.1:9") as client,
        pytest.raises(ServingError, match="cannot be written as JSON"),
    ):
        client.predict("recommend", [{"events": [{"kind": "rate", "value": float("nan")}]}])


@pytest.mark.parametrize(
    ("tokens", "headers"),
    [
        ({}, (None, None)),
        ({"token": "server"}, ("Bearer server", None)),
        ({"gateway_token": "gateway"}, ("Bearer gateway", None)),
        ({"token": "server", "gateway_token": "gateway"}, ("Bearer gateway", "server")),
    ],
)
def test_a_gateway_has_authorization_for_itself(
    tokens: dict[str, str], headers: tuple[str | None, str | None], server: Server
) -> None:
    with Client(server.url, **tokens) as client:
        sent = client._http.headers

    assert (sent.get("authorization"), sent.get("x-tasteloop-token")) == headers


def test_no_proxy_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    server.answers({"ready": True})
    with Client(server.url) as client:
        assert client.ready()
