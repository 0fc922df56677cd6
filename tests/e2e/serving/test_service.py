"""A server as its operator sees it: tokens, caps, overload, deadlines, callers who leave, SIGTERM,
metrics and logs.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.client import Client, ServingError
from tests.support.processes import VERSION, Running, run_server

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:ORJSONResponse is deprecated")]

API, ADMIN = "api-token-of-a-test", "admin-token-of-a-test"
ONE = {"instances": [{"text": "fine"}]}


def many(numbers: Iterator[int] = count()) -> dict[str, Any]:
    """A request that takes long: texts that the server has not seen, so that none is answered from
    its cache.
    """
    return {
        "instances": [
            {"text": f"a long and winding film number {next(numbers)} " * 40} for _ in range(256)
        ]
    }


MANY = many()
ASK = "/v1/models/sentiment:predict"


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def stub(channel: Any) -> Any:
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

    return GRPCInferenceServiceStub(channel)


def infer(*texts: str) -> Any:
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

    tensor = pb.ModelInferRequest.InferInputTensor(
        name="text", datatype="BYTES", shape=[len(texts)]
    )
    tensor.contents.bytes_contents.extend(text.encode() for text in texts)
    return pb.ModelInferRequest(model_name="sentiment", inputs=[tensor])


def number(metrics: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that bear the labels."""
    total = 0.0
    for line in metrics.splitlines():
        if line.split("{")[0].split(" ")[0] == name and all(
            f'{k}="{v}"' in line for k, v in labels.items()
        ):
            total += float(line.rsplit(" ", 1)[1])
    return total


# With tokens, JSON logs and nowhere to write


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    names = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "HF_HOME")
    return {name: str(tmp_path_factory.mktemp(name)) for name in names}


@pytest.fixture(scope="module")
def guarded(serve: Callable[..., Running], tiny_bundle: Path, places: dict[str, str]) -> Running:
    options = (
        "--bundle",
        str(tiny_bundle),
        "--version",
        VERSION,
        "--log-format",
        "json",
        "--log-level",
        "info",
    )
    tokens = {
        "TASTELOOP_API_TOKEN": API,
        "TASTELOOP_ADMIN_TOKEN": ADMIN,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return serve(*options, **tokens, **places)


@pytest.fixture(scope="module")
def asks(guarded: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=guarded.http, headers=bearer(API), trust_env=False) as client:
        yield client


def test_a_token_is_needed_for_everything_but_probes(guarded: Running, asks: httpx.Client) -> None:
    for path in ("/", "/v2/health/live", "/v2/health/ready"):
        assert httpx.get(guarded.http + path).status_code == 200
    for path in (
        "/v2",
        "/metrics",
        "/openapi.json",
        "/v1/models",
        "/v2/models/sentiment",
        "/nothing",
    ):
        response = httpx.get(guarded.http + path)
        assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    assert httpx.post(guarded.http + ASK, json=ONE).status_code == 401
    assert httpx.post(guarded.http + ASK, json=ONE, headers=bearer(API + "x")).status_code == 401
    assert asks.post(ASK, json=ONE).status_code == 200
    assert asks.get("/openapi.json").json()["security"] == [{"token": []}, {"header": []}]


def test_our_client_shows_the_token(guarded: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(guarded.http, token=API) as client:
        assert client.predict("sentiment", ONE["instances"])
    monkeypatch.setenv("TASTELOOP_API_TOKEN", API)
    with Client(guarded.http) as client:
        assert client.predict("sentiment", ONE["instances"])
    # behind a gateway, which passes its own token on
    monkeypatch.setenv("TASTELOOP_GATEWAY_TOKEN", "a-token-of-the-gateway")
    with Client(guarded.http) as client:
        assert client.predict("sentiment", ONE["instances"])
    monkeypatch.delenv("TASTELOOP_API_TOKEN")
    for _ in range(2):  # with the gateway's alone, then with none
        with Client(guarded.http) as client, pytest.raises(ServingError, match="show a token"):
            client.predict("sentiment", ONE["instances"])
        monkeypatch.delenv("TASTELOOP_GATEWAY_TOKEN", raising=False)


def test_a_token_is_needed_over_grpc(guarded: Running) -> None:
    import grpc
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

    with grpc.insecure_channel(guarded.grpc) as channel:
        assert stub(channel).ServerReady(pb.ServerReadyRequest()).ready
        with pytest.raises(grpc.RpcError) as caught:
            stub(channel).ModelInfer(infer("fine"))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        response, call = stub(channel).ModelInfer.with_call(
            infer("fine"), metadata=[*bearer(API).items(), ("x-request-id", "over-grpc")]
        )
        assert response.id == dict(call.trailing_metadata())["x-request-id"] == "over-grpc"
        both = [*bearer("a-token-of-the-gateway").items(), ("x-tasteloop-token", API)]
        assert stub(channel).ModelInfer(infer("fine"), metadata=both).model_name


def test_grpc_lets_a_caller_in_before_it_reads_the_message(guarded: Running) -> None:
    import grpc

    with grpc.insecure_channel(guarded.grpc) as channel:
        ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")  # bytes as they are
        refused = []
        for metadata in ([], [*bearer(API).items()]):
            with pytest.raises(grpc.RpcError) as caught:
                ask(b"\xff\x00 no message", metadata=metadata)
            refused.append((caught.value.code(), caught.value.details()))
    (stranger, _), (caller, message) = refused
    assert (stranger, caller) == (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INVALID_ARGUMENT)
    assert "13 bytes of the message are no ModelInferRequest" in message
    assert "Error" not in message and "class" not in message


def test_the_admin_takes_a_model_out_of_service_and_back(asks: httpx.Client) -> None:
    unload, load = (f"/v2/repository/models/interests/{verb}" for verb in ("unload", "load"))
    ready = "/v2/models/interests/ready"
    assert asks.post(unload).status_code == 403
    assert asks.get(ready).status_code == 200
    assert asks.post(unload, headers=bearer(ADMIN)).json() == {"name": "interests", "unload": True}
    assert asks.get(ready).status_code == 404
    assert (
        asks.post("/v1/models/interests:predict", json={"instances": [{"events": []}]}).status_code
        == 404
    )
    assert asks.get("/v1/models").json() == {"models": ["recommend", "sentiment"]}
    assert asks.post(load, headers=bearer(ADMIN)).json() == {"name": "interests", "load": True}
    assert asks.get(ready).status_code == 200
    assert (
        asks.post("/v2/repository/models/nothing/unload", headers=bearer(ADMIN)).status_code == 404
    )


def test_a_request_is_named(asks: httpx.Client) -> None:
    body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["fine"]}]}
    named = asks.post("/v2/models/sentiment/infer", json=body, headers={"x-request-id": "mine"})
    assert (named.headers["x-request-id"], named.json()["id"]) == ("mine", "mine")
    for bad in ("with a space", "x" * 129):
        response = asks.post(ASK, json=ONE, headers={"x-request-id": bad})
        assert response.status_code == 200 and len(response.headers["x-request-id"]) == 32


def test_metrics_count_what_happened(asks: httpx.Client) -> None:
    def now() -> str:
        return asks.get("/metrics").text

    before = now()
    for _ in range(3):
        asks.post(ASK, json=MANY)
    asks.post(ASK, json={})
    asks.post("/v1/models/made-up-by-a-caller:predict", json=ONE)
    after = now()

    def more(name: str, **labels: str) -> float:
        return number(after, name, **labels) - number(before, name, **labels)

    good = {"model": "sentiment", "version": VERSION, "code": "200", "protocol": "v1"}
    assert more("tasteloop_requests_total", **good) == 3
    assert more("tasteloop_requests_total", model="sentiment", code="400") == 1
    assert more("tasteloop_requests_total", model="", code="404") == 1
    assert more("tasteloop_batch_instances_sum", model="sentiment") == 3 * 256
    assert more("tasteloop_request_seconds_count", model="sentiment") == 4
    assert more("tasteloop_stage_seconds_count", stage="queue") >= 3
    for stage in ("tokenise", "encode"):  # the second time the texts' vectors are at hand
        assert more("tasteloop_stage_seconds_count", stage=stage) >= 1
    assert number(after, "tasteloop_queue_instances") == 0
    assert number(after, "tasteloop_ready") == 1
    assert "made-up-by-a-caller" not in after


def test_it_writes_nothing_and_logs_one_object_a_line(
    guarded: Running, asks: httpx.Client, places: dict[str, str]
) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"x-request-id": "to-be-found", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    assert (
        asks.post(
            ASK, json={"instances": [{"text": "a secret opinion"}]}, headers=headers
        ).status_code
        == 200
    )
    guarded.process.send_signal(signal.SIGTERM)
    output, _ = guarded.process.communicate(timeout=60)
    assert guarded.process.returncode == 0
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert len(lines) >= len(output.splitlines()) - 2  # what is written before logging is set up
    [found] = [line for line in lines if line.get("request") == "to-be-found"]
    assert (found["model"], found["version"], found["code"], found["trace"]) == (
        "sentiment",
        VERSION,
        "200",
        trace,
    )
    assert {"seconds", "queue", "tokenise", "encode", "batch"} <= set(found)
    assert "a secret opinion" not in output and API not in output and ADMIN not in output
    for place in places.values():
        assert list(Path(place).rglob("*")) == []


def test_beyond_loopback_it_does_not_start_without_a_token(tiny_bundle: Path) -> None:
    for options, message in (
        (
            ("--host", "0.0.0.0"),
            "error: 0.0.0.0 can be reached from other machines: set TASTELOOP_API_TOKEN",
        ),
        (("--queue", "0"), "error: instances that may wait; more are refused: "),
        (("--timeout", "-1"), "error: seconds from a request's arrival to its answer: "),
    ):
        process = run_server(
            "--bundle", str(tiny_bundle), "--port", "0", "--grpc-port", "0", *options
        )
        output, _ = process.communicate(timeout=120)
        assert (process.returncode, output.startswith(message)) == (2, True), output


# Under load: one instance may wait


@pytest.fixture(scope="module")
def busy(serve: Callable[..., Running], tiny_bundle: Path) -> Running:
    options = (
        "--queue 1 --max-body 500000 --max-bodies 4500000 --max-instances 256 --log-level error"
    )
    return serve("--bundle", str(tiny_bundle), *options.split())


def metrics(server: Running) -> str:
    return httpx.get(server.http + "/metrics").text


def test_too_much_is_refused_and_the_rest_answered(busy: Running) -> None:
    def ask(_: int) -> httpx.Response:
        return httpx.post(busy.http + ASK, json=MANY, timeout=120)

    with ThreadPoolExecutor(10) as threads:
        responses = list(threads.map(ask, range(10)))
    codes = [response.status_code for response in responses]
    assert set(codes) == {200, 429} and codes.count(200) >= 2, codes
    for response in responses:
        if response.status_code == 200:
            assert len(response.json()["predictions"]) == 256
        else:
            assert (
                int(response.headers["retry-after"]) >= 1
                and "queue is full" in response.json()["error"]
            )
    assert number(metrics(busy), "tasteloop_queue_refusals_total") == codes.count(429)
    assert httpx.post(busy.http + ASK, json=ONE).status_code == 200


def test_too_much_is_refused_over_grpc(busy: Running) -> None:
    import grpc

    texts = [instance["text"] for instance in MANY["instances"]]
    with grpc.insecure_channel(busy.grpc) as channel:
        calls = [stub(channel).ModelInfer.future(infer(*texts)) for _ in range(10)]
        codes = [call.code() for call in calls]
        refused = [call for call in calls if call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED]
        assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert all(int(dict(call.trailing_metadata())["retry-after"]) >= 1 for call in refused)


def test_a_full_queue_refuses_before_a_body_has_come(busy: Running) -> None:
    host, port = busy.http.removeprefix("http://").split(":")

    def told_at_its_head() -> str:
        with (
            socket.create_connection((host, int(port)), timeout=0.1) as connection,
            suppress(TimeoutError),
        ):
            connection.sendall(
                f"POST {ASK} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9\r\n\r\n".encode()
            )
            return connection.recv(100).decode()
        return ""

    assert told_at_its_head() == ""  # nothing waits: the body is waited for
    deadline = time.monotonic() + 60
    with ThreadPoolExecutor(3) as threads:
        head = ""
        while not head.startswith("HTTP/1.1 429 "):
            assert time.monotonic() < deadline and head == ""
            held = [
                threads.submit(httpx.post, busy.http + ASK, json=many(), timeout=120)
                for _ in range(3)
            ]
            while not (head or all(one.done() for one in held)):
                head = told_at_its_head()
            wait(held)


def behind_a_large_request(server: Running, ask: Callable[[], bool | None]) -> None:
    """Ask while somebody's large request is computed, again and again until the queue was met and
    nothing computed.

    Args:
        ask: returns whether it was answered; None: who asks cannot know.
    """

    def computed() -> float:
        return number(metrics(server), "tasteloop_batch_instances_count")

    for attempt in range(40):
        before = computed()
        with ThreadPoolExecutor(1) as thread:
            held = thread.submit(httpx.post, server.http + ASK, json=many(), timeout=120)
            time.sleep(0.02 * attempt)
            answered = ask()
        # in order: what was queued is done after it
        while httpx.post(server.http + ASK, json=ONE).status_code != 200:
            time.sleep(0.01)
        if held.result().status_code != 200:  # who asked came first
            continue
        more = computed() - before - 2
        assert more in ((1,) if answered else (0, 1))
        if not more:
            return
    pytest.fail("whatever was asked was computed, though nobody waited for it")


def test_a_deadline_is_kept_and_nothing_computed_after_it(busy: Running) -> None:
    def ask() -> bool:
        while True:
            response = httpx.post(busy.http + ASK, json=ONE, headers={"x-request-timeout-ms": "10"})
            if response.status_code != 429:  # the large one was not taken from the queue yet
                break
        assert response.status_code == 200 or (
            response.status_code,
            "deadline" in response.text,
        ) == (504, True)
        return response.status_code == 200

    behind_a_large_request(busy, ask)


def test_grpcs_own_deadline_is_kept_and_nothing_computed_after_it(busy: Running) -> None:
    import grpc

    with grpc.insecure_channel(busy.grpc) as channel:
        grpc.channel_ready_future(channel).result(10)

        def ask() -> bool:
            while True:
                try:
                    stub(channel).ModelInfer(infer("fine"), timeout=0.02)
                except grpc.RpcError as error:
                    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:  # type: ignore[attr-defined]
                        continue
                    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
                    return False
                return True

        behind_a_large_request(busy, ask)


def test_nothing_is_computed_for_a_caller_who_left(busy: Running) -> None:
    host, port = busy.http.removeprefix("http://").split(":")
    body = json.dumps(ONE).encode()

    def ask() -> None:
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST {ASK} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            time.sleep(0.02)

    behind_a_large_request(busy, ask)


def test_a_bad_deadline_is_refused(busy: Running) -> None:
    for bad in ("0", "-5", "soon", "1.5", "", "9" * 30, "9" * 5000):
        response = httpx.post(busy.http + ASK, json=ONE, headers={"x-request-timeout-ms": bad})
        assert (
            response.status_code == 400
            and "whole number of milliseconds" in response.json()["error"]
        )


def test_the_body_cap_is_a_setting(busy: Running) -> None:
    assert (
        "larger than 500000 bytes"
        in httpx.post(busy.http + ASK, content=b" " * 500_001).json()["error"]
    )


def test_bodies_under_way_are_bounded_together(busy: Running) -> None:
    host, port = busy.http.removeprefix("http://").rsplit(":", 1)
    head = f"POST {ASK} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 480001\r\n\r\n"
    slow = [socket.create_connection((host, int(port)), timeout=30) for _ in range(9)]
    try:
        for connection in slow:  # 4.32 MB, nearly whole
            connection.sendall(head.encode() + b" " * 480_000)
        deadline = time.monotonic() + 60
        large = {"instances": [{"text": "fine " * 2000}] * 40}  # 0.4 MB
        while (refused := httpx.post(busy.http + ASK, json=large, timeout=60)).status_code != 429:
            assert time.monotonic() < deadline, "what the slow ones hold is not counted"
        assert "retry-after" in refused.headers
        assert httpx.post(busy.http + ASK, json=ONE, timeout=60).status_code == 200
    finally:
        for connection in slow:
            connection.close()
    deadline = time.monotonic() + 60
    while httpx.post(busy.http + ASK, json=large, timeout=60).status_code != 200:
        assert time.monotonic() < deadline, "what was held is not given back"


def test_a_body_that_does_not_come_is_not_waited_for(busy: Running) -> None:
    host, port = busy.http.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = f"POST {ASK} HTTP/1.1\r\nHost: {host}\r\nX-Request-Timeout-Ms: 200\r\nContent-Length: 50\r\n\r\n{{"
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


def test_endless_headers_are_cut(busy: Running) -> None:
    host, port = busy.http.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nX-Endless: ".encode())
        with pytest.raises(OSError):
            for _ in range(1000):
                connection.sendall(b"x" * 10_000)
                time.sleep(0.001)


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({}, ONE, 200),
        ({}, None, 400),
        ({"ce-specversion": "9.9"}, ONE, 400),
        ({"ce-datacontenttype": "application/json"}, "not JSON", 400),
    ],
)
def test_a_cloud_event_is_answered_by_one(
    busy: Running, headers: dict[str, str], body: Any, status: int
) -> None:
    event = {
        "ce-id": "1",
        "ce-source": "test",
        "ce-type": "question",
        "ce-specversion": "1.0",
        **headers,
    }
    content = b"" if body is None else json.dumps(body).encode()
    response = httpx.post(
        busy.http + ASK, content=content, headers={"content-type": "application/json", **event}
    )
    assert response.status_code == status, response.text
    if status == 200:
        assert response.headers["ce-specversion"] == "1.0" and response.json()["predictions"]
    else:
        assert response.json()["error"]


# SIGTERM


def test_on_sigterm_it_is_not_ready_first_and_loses_no_request(
    serve: Callable[..., Running], tiny_bundle: Path
) -> None:
    import grpc

    running = serve(
        "--bundle", str(tiny_bundle), "--linger", "2", "--log-level", "info", "--log-format", "json"
    )
    answered: list[int] = []
    over_grpc: list[Any] = []
    refused: list[Any] = []

    def rest() -> None:
        with httpx.Client(base_url=running.http, trust_env=False, timeout=60) as client:
            try:
                while True:
                    answered.append(client.post(ASK, json=ONE).status_code)
            except httpx.TransportError:  # the port is closed; what was lost is counted below
                return

    def rpc() -> None:
        with grpc.insecure_channel(running.grpc) as channel:
            try:
                while True:
                    over_grpc.append(
                        len(stub(channel).ModelInfer(infer("fine"), timeout=60).outputs)
                    )
            except grpc.RpcError as error:
                refused.append(error.code())  # type: ignore[attr-defined]

    # Its log is read as it comes: a pipe that is full would hold the server up.
    output: list[str] = []
    reader = threading.Thread(
        target=lambda: output.append(running.process.communicate()[0]), daemon=True
    )
    callers = [threading.Thread(target=rest) for _ in range(4)] + [
        threading.Thread(target=rpc) for _ in range(2)
    ]
    for caller in [reader, *callers]:
        caller.start()
    while len(answered) < 20 or len(over_grpc) < 20:
        time.sleep(0.01)
    running.process.send_signal(signal.SIGTERM)
    while (probe := httpx.get(running.http + "/v2/health/ready")).status_code == 200:
        time.sleep(0.01)
    assert probe.status_code == 503
    while_not_ready = httpx.post(running.http + ASK, json=ONE)
    assert (while_not_ready.status_code, while_not_ready.headers["connection"]) == (200, "close")
    for caller in [*callers, reader]:
        caller.join(60)
    assert running.process.returncode == 0
    lines = [json.loads(line) for line in output[0].splitlines() if '"answered"' in line]
    logged = [line["code"] for line in lines if line.get("model") == "sentiment"]
    assert set(answered) == {200} and set(over_grpc) == {3}
    # What reaches gRPC's core while it closes, before a handler saw it, is cancelled by it instead
    # of turned away.
    assert len(refused) == 2 and set(refused) <= {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
    }
    assert logged.count("200") == len(answered) + 1 and logged.count("OK") == len(over_grpc)
    assert len(logged) == len(answered) + 1 + len(over_grpc)


# In this process, with a session that misbehaves


class Misbehaving:
    digest = "d" * 64
    models = ("interests", "recommend", "sentiment")

    def heard(self, *_: Any) -> list[dict[str, Any]]:
        return []

    def compute(self, model: str, questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if questions[0]["text"] == "slow":
            time.sleep(0.5)
            return [{"sentiment": "positive", "probability": 0.5}]
        if questions[0]["text"] == "end the thread":
            raise SystemExit
        raise RuntimeError("a secret of the house")


@pytest.fixture(scope="module")
def misbehaving() -> Any:
    """The ASGI application over `Misbehaving`."""
    from serving.answering.batching import Batcher
    from serving.answering.live import Live
    from serving.answering.predictor import Predictor
    from serving.http.access import Access
    from serving.http.server import Server
    from serving.settings import ServerSettings

    house = Server(ServerSettings(port=0, grpc_port=0), Access(None, None, True))
    batcher = Batcher(Live(Predictor(Misbehaving(), "1")))  # type: ignore[arg-type]
    house.open(batcher)
    house._rest_server.create_application()
    yield house._rest_server.app
    house._listener.close()
    batcher.close()


def in_process(app: Any, work: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
    async def inside() -> Any:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await work(client)

    return asyncio.run(inside())


@pytest.mark.parametrize("path", [ASK, "/v2/models/sentiment/infer"])
def test_our_own_errors_keep_their_text(
    misbehaving: Any, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    tensor = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}]}
    response = in_process(
        misbehaving, lambda client: client.post(path, json=ONE if "v1" in path else tensor)
    )
    assert response.status_code == 500
    words = response.json()["error"].split()
    assert words[:2] == ["internal", "error"] and len(words) == 3
    assert words[2] in caplog.text and "a secret of the house" in caplog.text


def test_health_answers_while_an_answer_is_computed(misbehaving: Any) -> None:
    async def both(client: httpx.AsyncClient) -> tuple[bool, int, int]:
        slow = asyncio.create_task(client.post(ASK, json={"instances": [{"text": "slow"}]}))
        await asyncio.sleep(0.1)
        health = await client.get("/v2/health/ready")
        return slow.done(), health.status_code, (await slow).status_code

    assert in_process(misbehaving, both) == (False, 200, 200)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_it_is_not_alive_when_nobody_computes_any_more(misbehaving: Any) -> None:
    async def work(client: httpx.AsyncClient) -> list[int]:
        probes = [await client.get("/v2/health/live")]
        body = {"instances": [{"text": "end the thread"}]}
        probes.append(await client.post(ASK, json=body, headers={"x-request-timeout-ms": "300"}))
        probes += [await client.get(f"/v2/health/{what}") for what in ("live", "ready")]
        return [probe.status_code for probe in probes]

    assert in_process(misbehaving, work) == [200, 504, 503, 503]
