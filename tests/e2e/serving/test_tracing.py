"""Spans as a collector gets them from a real server."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.processes import Running, run_server

pytestmark = pytest.mark.slow
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP; `failing` answers as one that is broken."""

    def __init__(self, failing: bool = False) -> None:
        self.failing, self.spans, self.service = failing, [], set[str]()
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1/traces"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def wait(self, is_complete: Callable[[list[Any]], bool], seconds: float = 30) -> list[Any]:
        deadline = time.monotonic() + seconds
        while not is_complete(self.spans) and time.monotonic() < deadline:
            time.sleep(0.05)
        return list(self.spans)


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )

        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if not self.server.failing:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                named = {a.key: a.value.string_value for a in resource.resource.attributes}
                self.server.service.add(named["service.name"])
                for scope in resource.scope_spans:
                    self.server.spans.extend(scope.spans)
        self.send_response(400 if self.server.failing else 200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        yield server
        server.shutdown()


def ask(server: Running, **headers: str) -> httpx.Response:
    url = f"{server.http}/v1/models/sentiment:predict"
    return httpx.post(
        url,
        json={"instances": [{"text": "a fine film"}]},
        headers=headers,
        trust_env=False,
        timeout=60,
    )


def test_a_request_continues_its_callers_trace_and_has_a_span_a_stage(
    serve: Callable[..., Running], tiny_bundle: Path, collector: Collector
) -> None:
    server = serve(
        "--bundle",
        str(tiny_bundle),
        "--version",
        "7",
        "--traces",
        collector.url,
        OTEL_BSP_SCHEDULE_DELAY="100",
    )
    response = ask(server, traceparent=f"00-{TRACE}-{PARENT}-01", **{"x-request-id": "an-id"})
    assert response.status_code == 200
    # a caller that does not record
    assert ask(server, traceparent=f"00-{TRACE}-{PARENT}-00").status_code == 200
    # probes are no spans
    assert httpx.get(f"{server.http}/v2/health/ready", trust_env=False).status_code == 200
    spans = collector.wait(lambda spans: any(s.name == "v1 sentiment" for s in spans))
    (request,) = [s for s in spans if s.parent_span_id.hex() == PARENT]
    assert request.name == "v1 sentiment" and request.trace_id.hex() == TRACE
    about = {a.key: a.value for a in request.attributes}
    assert about["tasteloop.request"].string_value == "an-id"
    assert about["tasteloop.model_version"].string_value == "7"
    assert about["tasteloop.code"].string_value == "200"
    stages = [s for s in spans if s.parent_span_id == request.span_id]
    assert [s.name for s in sorted(stages, key=lambda s: s.start_time_unix_nano)] == [
        "queue",
        "tokenise",
        "encode",
    ]
    for stage in stages:
        assert (
            request.start_time_unix_nano <= stage.start_time_unix_nano <= stage.end_time_unix_nano
        )
        assert stage.end_time_unix_nano <= request.end_time_unix_nano
    assert len(spans) == 4 and collector.service == {"tasteloop"}
    assert b"a fine film" not in b"".join(s.SerializeToString() for s in spans)


def test_a_collector_that_fails_costs_no_answer(
    serve: Callable[..., Running], tiny_bundle: Path
) -> None:
    with Collector(failing=True) as broken:
        server = serve(
            "--bundle", str(tiny_bundle), "--traces", broken.url, OTEL_BSP_SCHEDULE_DELAY="50"
        )
        assert [ask(server).status_code for _ in range(5)] == [200] * 5
        broken.shutdown()


def test_an_address_that_is_none_is_refused(tiny_bundle: Path) -> None:
    process = run_server(
        "--bundle", str(tiny_bundle), "--port", "0", "--grpc-port", "0", "--traces", "here"
    )
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "--traces: an address such as" in output and "'here'" in output
