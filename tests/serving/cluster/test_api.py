"""One call of the Kubernetes API, and what its refusals become, against a server of HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from kubernetes.client import ApiClient, Configuration

from serving.cluster.api import ApiStatus, ConnectionLost, Refusal, call, first_dropped_field
from serving.cluster.trainjob import Jobs
from tasteloop.errors import TasteloopError

JOB = {"metadata": {"name": "a"}, "spec": {"trainer": {"args": ["x"]}}}


class Server(ThreadingHTTPServer):
    """Answers every request with `response`, and keeps the requests."""

    response: tuple[int, Any] = (200, {})

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str, str, Any]] = []

    def client(self) -> ApiClient:
        configuration = Configuration()
        configuration.host = f"http://127.0.0.1:{self.server_port}"
        configuration.retries = False
        return ApiClient(configuration)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = json.loads(body) if body else None
        content_type = self.headers.get("Content-Type", "")
        self.server.requests.append((self.command, self.path, content_type, content))
        status, response = self.server.response
        text = response if isinstance(response, str) else json.dumps(response)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = do_PATCH = answer

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize(
    ("method", "body", "content_type"),
    [
        ("POST", {"a": 1}, "application/json"),
        ("PATCH", {"a": 1}, "application/apply-patch+yaml"),
        ("PATCH", [{"op": "replace"}], "application/json-patch+json"),
    ],
)
def test_a_call_has_the_content_type_of_its_body(
    server: Server, method: str, body: Any, content_type: str
) -> None:
    server.response = (200, {"kind": "Thing"})

    assert call(server.client(), method, "/apis/x", [("dryRun", "All")], body) == {"kind": "Thing"}
    assert server.requests == [(method, "/apis/x?dryRun=All", content_type, body)]


@pytest.mark.parametrize("response", ["<html>", "[]", {"details": []}, {"message": {}}, ""])
def test_a_refusal_that_says_nothing_has_the_reason_of_http(server: Server, response: Any) -> None:
    server.response = (403, response)

    with pytest.raises(Refusal) as caught:
        call(server.client(), "GET", "/apis/x")
    assert (caught.value.status, caught.value.message) == (403, "Forbidden")
    assert (caught.value.name, caught.value.causes) == (None, ())


def test_a_job_is_created_after_a_dry_run_that_keeps_all_of_it(server: Server) -> None:
    server.response = (201, JOB)

    Jobs(server.client(), "n")._create(JOB)
    path = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/n/trainjobs"
    assert [request[:2] for request in server.requests] == [
        ("POST", f"{path}?dryRun=All"),
        ("POST", path),
    ]

    server.response = (201, {**JOB, "spec": {"trainer": {}}})
    with pytest.raises(TasteloopError, match=r"would drop spec\.trainer\.args without a word"):
        Jobs(server.client(), "n")._create(JOB)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "details", "message"),
    [
        (404, {"name": "trainjobs"}, r"has no trainjobs\.trainer\.kubeflow\.org"),
        (403, {"name": "a"}, "may not get trainjobs in n: refused"),
        (422, {}, "refuses the TrainJob: refused"),
        (409, {}, "the cluster answered 409: refused"),
    ],
)
def test_a_refused_job_is_explained(
    server: Server, status: int, details: dict[str, str], message: str
) -> None:
    server.response = (status, {"message": "refused", "details": details})
    with pytest.raises(TasteloopError, match=message) as caught:
        Jobs(server.client(), "n").read("a")
    assert not isinstance(caught.value, ConnectionLost)


def test_a_job_that_is_not_there_is_none_and_a_server_in_trouble_is_no_answer(
    server: Server,
) -> None:
    jobs = Jobs(server.client(), "n")
    server.response = (404, {"message": "not found", "details": {"name": "a"}})
    assert jobs.read("a") is None
    for status in (429, 500, 503):
        server.response = (status, "")
        with pytest.raises(ConnectionLost, match=f"the cluster answered {status}"):
            jobs.read("a")


def test_a_server_that_is_gone_is_a_lost_connection(server: Server) -> None:
    client = server.client()
    client.configuration.host = "http://127.0.0.1:1"
    with pytest.raises(ConnectionLost, match="127.0.0.1:1 was lost or refused"):
        call(client, "GET", "/apis/x")


def test_what_a_server_adds_is_nothing_dropped() -> None:
    assert first_dropped_field({"a": [1]}, {"a": [1, 2], "b": 3}, "spec") is None
    assert first_dropped_field({"a": {"b": 1}}, {"a": None}, "spec") == "spec.a"
    assert first_dropped_field({"a": [1, 2]}, {"a": [1]}, "spec") == "spec.a"
    assert ApiStatus.parse(None) == ApiStatus()
