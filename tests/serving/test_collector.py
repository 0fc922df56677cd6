"""KServe's logger's CloudEvents become the rows that the server itself would have written."""

from __future__ import annotations

import base64
import gzip
import json
import os
import socket
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving import collector
from serving.collector import REQUEST, RESPONSE, Pairs, application
from serving.http.access import Access
from serving.journal.answered import now
from serving.journal.reader import read_journal
from serving.journal.writer import Journal
from serving.settings import JournalSettings
from tasteloop.errors import TasteloopError
from tasteloop.privacy.pseudonyms import pseudonym

HOUSE = Path(__file__).parents[2]
KEY = b"0123456789abcdef"
TEXT = "a text that stays with its author"
USER = "ada@example.org"
METADATA = json.dumps({"X-Request-Id": ["r7"]})

INTERESTS = [{"interests": [{"label": "war", "probability": 0.5, "predicted": True}]}]
V1 = (
    {"instances": [{"text": TEXT, "user": USER}]},
    {"predictions": [{"sentiment": "positive", "probability": 0.5}]},
)
V2_ASKED = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [2], "data": [TEXT, TEXT]}]}
V2_ANSWERED = {
    "model_name": "sentiment",
    "outputs": [
        {"name": "sentiment", "datatype": "BYTES", "shape": [2], "data": ["positive", "negative"]},
        {"name": "probability", "datatype": "FP32", "shape": [2], "data": [0.75, 0.25]},
    ],
}
V2_RANKED = {
    "model_name": "recommend",
    "outputs": [
        {"name": "item", "datatype": "BYTES", "shape": [2, 2], "data": ["7", "9", "7", ""]},
        {"name": "score", "datatype": "FP32", "shape": [2, 2], "data": [1.5, 1.0, 1.25, 0.0]},
        {"name": "reasons", "datatype": "BYTES", "shape": [2, 2], "data": ["[]"] * 4},
    ],
}


def logged(
    kind: str, data: Any, identity: str = "e1", **attributes: str
) -> tuple[dict[str, str], bytes]:
    """An event as the logger sends it: binary mode, the request's content type for both."""
    from cloudevents.http import CloudEvent, to_binary

    event = CloudEvent(
        {
            "id": identity,
            "type": kind,
            "source": "http://localhost:9081/",
            "time": "2026-11-24T10:00:00Z",
            "datacontenttype": "application/x-www-form-urlencoded",
            "inferenceservicename": "taste",
            "namespace": "default",
            "component": "predictor",
            "endpoint": "",
            "metadata": "{}",
            **attributes,
        },
        json.dumps(data).encode(),
    )
    headers, body = to_binary(event, lambda data: data)
    return {name.lower(): value for name, value in headers.items()}, body


def answered(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "model_version": "3"}


def paired(request: Any, response: Any, **attributes: str) -> Any:
    pairs = Pairs(KEY)
    assert pairs.take(*logged(REQUEST, request, **attributes)) is None
    return pairs.take(*logged(RESPONSE, answered(response), **attributes))


def test_v1() -> None:
    one = paired(*V1)
    assert (one.request_id, one.model, one.version, one.protocol) == ("e1", "sentiment", "3", "v1")
    assert one.instances == [{"text": TEXT}]
    assert one.users == [pseudonym(USER, KEY)]
    assert one.time == 1_795_514_400_000_000
    assert paired(*V1, metadata=METADATA).request_id == "r7"
    for metadata in ("", "[]", '{"X-Request-Id": []}', "{", '{"Other": ["a"]}'):
        assert paired(*V1, metadata=metadata).request_id == "e1"


def test_v2() -> None:
    one = paired({**V2_ASKED, "parameters": {"user": USER}}, V2_ANSWERED)
    assert (one.model, one.protocol) == ("sentiment", "v2")
    assert one.instances == [{"text": TEXT}] * 2
    assert one.users == [pseudonym(USER, KEY)] * 2
    assert one.outputs == V1_OF_V2
    elements = [json.dumps({"events": [], "user": "b"}), json.dumps({"events": [], "k": 1})]
    tensor = {"name": "events", "datatype": "BYTES", "shape": [2], "data": elements}
    ranked = paired({"inputs": [tensor], "parameters": {"k": 2}}, V2_RANKED)
    assert ranked.instances == [{"events": [], "k": 2}, {"events": [], "k": 1}]
    assert ranked.users == [pseudonym("b", KEY), None]
    assert [
        [entry["item"] for entry in output["recommendations"]] for output in ranked.outputs
    ] == [["7", "9"], ["7"]]


V1_OF_V2 = [
    {"sentiment": "positive", "probability": 0.75},
    {"sentiment": "negative", "probability": 0.25},
]


def test_a_request_is_read_as_the_server_reads_it() -> None:
    """What the server answers is journalled: null parameters, nested data."""
    tensor = {
        "name": "text",
        "datatype": "BYTES",
        "shape": [2],
        "data": [[TEXT], ["b"]],
        "parameters": None,
    }
    one = paired({"inputs": [tensor], "parameters": None, "outputs": None, "id": None}, V2_ANSWERED)
    assert one.instances == [{"text": TEXT}, {"text": "b"}]

    elements = [[[json.dumps({"events": []})]], [[json.dumps({"events": []})]]]
    tensor = {
        "name": "events",
        "datatype": "BYTES",
        "shape": [2],
        "data": elements,
        "parameters": {"k": 2},
    }
    ranked = paired({"inputs": [tensor], "parameters": None}, V2_RANKED)
    assert ranked.instances == [{"k": 2, "events": []}] * 2


def test_answers_without_a_single_row_are_counted_by_their_request() -> None:
    names = (("item", "BYTES"), ("score", "FP32"), ("reasons", "BYTES"))
    outputs = [
        {"name": name, "datatype": kind, "shape": [2, 0], "data": []} for name, kind in names
    ]
    tensor = {"name": "events", "datatype": "BYTES", "shape": [2], "data": ['{"events": []}'] * 2}

    one = paired({"inputs": [tensor]}, {"model_name": "recommend", "outputs": outputs})

    assert one.outputs == [{"recommendations": []}] * 2


SHAPES: list[Any] = [
    [10**6, 0],
    [10**6, 1],
    [10**18, 10**18],
    [-1, -2],
    [2],
    [1, 1, 1],
    [1.5, 1],
    ["2", 1],
    [True],
    [],
    3,
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("data", [[], ["7"]])
def test_a_claimed_shape_makes_nothing_that_did_not_come(shape: Any, data: list[str]) -> None:
    outputs = [
        {"name": name, "datatype": "BYTES", "shape": shape, "data": data}
        for name in ("item", "score")
    ]
    outputs.append(
        {"name": "reasons", "datatype": "BYTES", "shape": shape, "data": ["[]" for _ in data]}
    )
    tensor = {"name": "events", "datatype": "BYTES", "shape": [1], "data": ['{"events": []}']}
    response = answered({"model_name": "recommend", "outputs": outputs})
    tracemalloc.start()
    try:
        pairs = Pairs(KEY)
        pairs.take(*logged(REQUEST, {"inputs": [tensor]}))
        with suppress(TasteloopError):
            one = pairs.take(*logged(RESPONSE, response))
            assert one is not None and len(one.outputs) == 1
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_an_answer_to_another_number_of_instances_is_refused() -> None:
    with pytest.raises(TasteloopError, match="2 answers came to 1 instances"):
        paired({"inputs": [{**V2_ASKED["inputs"][0], "shape": [1], "data": [TEXT]}]}, V2_ANSWERED)
    with pytest.raises(TasteloopError, match="no question to interests and its answer"):
        paired(V1[0], {"predictions": [{"interests": [3]}]})


@pytest.mark.parametrize("bad", ["a\r\nb", "a b", "x" * 129, "x" * 100_000, "ä", "\0"])
def test_a_request_id_is_taken_on_the_servers_terms(bad: str) -> None:
    assert paired(*V1, metadata=json.dumps({"X-Request-Id": [bad]})).request_id == "e1"
    structured = json.dumps({"id": bad, "type": REQUEST, "data": V1[0]}).encode()
    with pytest.raises(
        TasteloopError, match="a CloudEvent's id has 1 to 128 visible ASCII characters"
    ):
        Pairs(KEY).take({"content-type": "application/cloudevents+json"}, structured)


TIMES = [
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "9999-01-01T00:00:00Z",
    "1969-12-31",
    "soon",
    "9" * 5000,
]


@pytest.mark.parametrize("time_", TIMES)
def test_an_impossible_time_is_the_time_of_arrival(time_: str) -> None:
    before = now()
    assert before <= paired(*V1, time=time_).time <= now()


@pytest.mark.parametrize("data", [123, None, True, [], {}, "!", "äöü"])
def test_data_that_is_no_base64_is_refused(data: Any) -> None:
    event = json.dumps({"id": "e", "type": REQUEST, "data_base64": data}).encode()
    with pytest.raises(TasteloopError, match="data_base64 is no string of base64"):
        Pairs(KEY).take({"content-type": "application/cloudevents+json"}, event)


def test_the_halves_come_in_any_order_and_between_others() -> None:
    pairs = Pairs(KEY)
    order = [
        (RESPONSE, "a"),
        (REQUEST, "b"),
        (REQUEST, "a"),
        (REQUEST, "c"),
        (RESPONSE, "c"),
        (RESPONSE, "b"),
    ]
    pairs_taken = []
    for kind, identity in order:
        data = V1[0] if kind == REQUEST else answered(V1[1])
        pairs_taken.append(pairs.take(*logged(kind, data, identity)))
    assert [one and one.request_id for one in pairs_taken] == [None, None, "a", None, "c", "b"]


def test_structured_events_too() -> None:
    from cloudevents.http import CloudEvent, to_structured

    pairs = Pairs(KEY)
    for kind, data in ((REQUEST, V1[0]), (RESPONSE, answered(V1[1]))):
        for payload in (data, json.dumps(data).encode()) if kind == REQUEST else (data,):
            headers, body = to_structured(
                CloudEvent({"id": "e", "type": kind, "source": "s"}, payload)
            )
            one = pairs.take({name.lower(): value for name, value in headers.items()}, body)
    assert one is not None and one.instances == [{"text": TEXT}]


def test_requests_without_an_answer_are_given_up_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collector, "WAITING", 3)
    pairs = Pairs(KEY)
    for n in range(5):
        pairs.take(*logged(REQUEST, V1[0], f"e{n}"))
    assert pairs.unpaired == 2
    assert pairs.take(*logged(RESPONSE, answered(V1[1]), "e4")) is not None


def test_what_waits_is_bounded_in_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [logged(REQUEST, V1[0], f"e{n}") for n in range(5)]
    monkeypatch.setattr(collector, "WAITING_BYTES", 2 * len(events[0][1]))
    pairs = Pairs(KEY)
    for event in [*events, events[-1]]:  # the last one twice: it takes its own place
        pairs.take(*event)
    assert pairs.unpaired == 3
    assert pairs.take(*logged(RESPONSE, answered(V1[1]), "e4")) is not None
    assert pairs.take(*logged(RESPONSE, answered(V1[1]), "e3")) is not None
    assert pairs.take(*events[0]) is None and pairs.unpaired == 3


BAD: list[tuple[str, Any, str]] = [
    (
        "org.kubeflow.serving.inference.reqest",
        V1[0],
        "known: org.kubeflow.serving.inference.request",
    ),
    (REQUEST, 3, "neither V1"),
    (REQUEST, {}, "neither V1"),
    (REQUEST, {"inputs": []}, "neither V1"),
    (REQUEST, {"inputs": [{"name": "events", "data": ["{"]}]}, "neither V1"),
    (REQUEST, {"instances": [{"text": "a", "user": 3}]}, r"instances\[0\].user"),
    (RESPONSE, {}, "not a whole answer"),
    (RESPONSE, {"predictions": []}, "not a whole answer"),
    (
        RESPONSE,
        {"predictions": [{"sentiment": "positive", "probability": 0.5}]},
        "not a whole answer",
    ),
    (RESPONSE, answered({"predictions": [{"other": 1}]}), "not a whole answer"),
    (RESPONSE, answered({"model_name": "sentiment", "outputs": []}), "not a whole answer"),
    (
        RESPONSE,
        answered({**V2_ANSWERED, "outputs": V2_ANSWERED["outputs"][1:]}),
        "not a whole answer",
    ),
]


@pytest.mark.parametrize(("kind", "data", "message"), BAD)
def test_what_is_not_ours_is_refused(kind: str, data: Any, message: str) -> None:
    with pytest.raises(TasteloopError, match=message):
        Pairs(KEY).take(*logged(kind, data))


def test_no_cloudevent() -> None:
    with pytest.raises(TasteloopError, match="neither `ce-` headers"):
        Pairs(KEY).take({"content-type": "application/json"}, b"{}")
    headers, _ = logged(REQUEST, {})
    with pytest.raises(TasteloopError, match="not JSON"):
        Pairs(KEY).take(headers, b"\x05\x00\x00\x00")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(JournalSettings(directory=tmp_path, seconds=0.05))
    yield journal
    journal.close()


def test_the_round_trip(journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from starlette.testclient import TestClient

    client = TestClient(
        application(journal, Pairs(KEY), Access(None, None, local=True)), "http://localhost"
    )
    for kind, data in ((REQUEST, V1[0]), (RESPONSE, answered(V1[1]))):
        headers, body = logged(kind, data)
        assert client.post("/", content=body, headers=headers).status_code == 200
    assert client.post("/", content=b"{}").status_code == 400
    monkeypatch.setattr(collector, "LARGEST", 10)
    assert client.post("/", content=b" " * 11).status_code == 413
    journal.close()
    assert client.get("/").json()["written"]["answers"] == 1
    [row] = read_journal(tmp_path).to_dicts()
    assert (row["request"], row["user"], row["names"], row["numbers"]) == (
        "e1",
        pseudonym(USER, KEY),
        ["positive"],
        [0.5],
    )
    written = (
        b"".join(path.read_bytes() for path in tmp_path.rglob("*.parquet"))
        + json.dumps(row).encode()
    )
    assert TEXT.encode() not in written and USER.encode() not in written


def test_a_token_is_needed_where_there_is_one(journal: Journal) -> None:
    from starlette.testclient import TestClient

    token = "token-of-the-collector"
    client = TestClient(application(journal, Pairs(KEY), Access(token, None, local=False)))
    headers, body = logged(REQUEST, V1[0])
    for refused in (client.post("/", content=body, headers=headers), client.get("/")):
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    shown = {"authorization": f"Bearer {token}"}
    assert client.post("/", content=body, headers={**headers, **shown}).status_code == 200
    assert client.get("/", headers=shown).status_code == 200
    at_home = TestClient(
        application(journal, Pairs(KEY), Access(None, None, local=True)), "http://attacker.example"
    )
    assert at_home.post("/", content=body, headers=headers).status_code == 403


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=10,
)
FIELDS = {  # of requests, responses, tensors and envelopes: right, or nearly
    "instances": st.lists(
        st.sampled_from([V1[0]["instances"][0], {"events": []}, {}]) | JSON, max_size=4
    )
    | JSON,
    "predictions": st.lists(
        st.sampled_from([V1[1]["predictions"][0], *INTERESTS]) | JSON, max_size=4
    )
    | JSON,
    "name": st.sampled_from(
        ["text", "events", "item", "score", "reasons", "sentiment", "label", "probability"]
    )
    | JSON,
    "datatype": st.sampled_from(["BYTES", "FP32"]) | JSON,
    "shape": st.lists(st.integers(-2, 4) | st.sampled_from([10**6, 2**31, 2**70]), max_size=3)
    | JSON,
    "data": st.lists(st.sampled_from(["a", "[]", '{"events": []}', 0.5]) | JSON, max_size=4) | JSON,
    "data_base64": st.binary(max_size=20).map(lambda data: base64.b64encode(data).decode()) | JSON,
    "model_name": st.sampled_from(["sentiment", "recommend", "interests"]) | JSON,
    "model_version": st.just("3") | JSON,
    "parameters": st.dictionaries(st.sampled_from(["k", "user", "other"]), JSON, max_size=2) | JSON,
    "id": st.sampled_from(["e1", "e2"]) | JSON,
    "type": st.sampled_from([REQUEST, RESPONSE]) | JSON,
    "time": st.sampled_from(TIMES) | JSON,
    "metadata": st.just(METADATA) | JSON,
}


def some(*names: str, **more: Any) -> Any:
    return st.fixed_dictionaries({}, optional={**{name: FIELDS[name] for name in names}, **more})


TENSORS = st.lists(some("name", "datatype", "shape", "data", "parameters"), max_size=3) | JSON
PAYLOAD = (
    some("instances")
    | some("parameters", "id", inputs=TENSORS)
    | some("predictions", "model_version")
    | some("model_name", "model_version", outputs=TENSORS)
    | JSON
)
ENVELOPE = some("id", "type", "time", "metadata", "data_base64") | some(
    "id", "type", "time", "metadata", data=PAYLOAD
)
HEADER = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
ATTRIBUTES = st.fixed_dictionaries(
    {},
    optional={
        "ce-id": st.sampled_from(["e1", "e2"]) | HEADER,
        "ce-type": st.sampled_from([REQUEST, RESPONSE]) | HEADER,
        "ce-time": st.sampled_from(TIMES) | HEADER,
        "ce-metadata": st.just(METADATA) | HEADER,
        "content-type": st.sampled_from(["application/cloudevents+json", "application/json"])
        | HEADER,
    },
)
BODIES = (PAYLOAD | ENVELOPE).map(lambda body: json.dumps(body).encode()) | st.binary(max_size=60)


@pytest.mark.fuzz
@settings(suppress_health_check=list(HealthCheck))
@given(events=st.lists(st.tuples(ATTRIBUTES, BODIES), min_size=1, max_size=4))
def test_any_event_is_taken_or_refused_and_memory_is_bounded_by_it(
    journal: Journal, events: list[tuple[dict[str, str], bytes]]
) -> None:
    from starlette.testclient import TestClient

    pairs = Pairs(KEY)
    client = TestClient(
        application(journal, pairs, Access(None, None, local=True)), "http://localhost"
    )
    statuses = [
        client.post("/", content=body, headers=headers).status_code for headers, body in events
    ]
    assert set(statuses) <= {200, 400, 413, 429}

    tracemalloc.start()
    try:
        for headers, body in events:
            with suppress(TasteloopError):
                Pairs(KEY).take(headers, body)
        assert tracemalloc.get_traced_memory()[1] < 200_000 + 200 * sum(
            len(body) for _, body in events
        )
    finally:
        tracemalloc.stop()


def test_a_page_of_another_site_may_not_send_events(journal: Journal) -> None:
    from starlette.testclient import TestClient

    client = TestClient(
        application(journal, Pairs(KEY), Access(None, None, local=True)), "http://localhost"
    )
    headers, body = logged(REQUEST, V1[0])
    for foreign in (
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
    ):
        for kind in ("text/plain", "application/json"):
            more_headers = {**headers, "content-type": kind, **foreign}
            assert client.post("/", content=body, headers=more_headers).status_code == 403
    assert (
        client.post(
            "/", content=body, headers={**headers, "origin": "http://localhost"}
        ).status_code
        == 200
    )


def test_gzip_events_are_read_within_the_cap(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    from starlette.testclient import TestClient

    client = TestClient(
        application(journal, Pairs(KEY), Access(None, None, local=True)), "http://localhost"
    )
    headers, body = logged(REQUEST, V1[0])
    packed = gzip.compress(body)

    def send(body: bytes, encoding: str) -> tuple[int, str]:
        response = client.post("/", content=body, headers={**headers, "content-encoding": encoding})
        return response.status_code, response.text

    assert send(packed, "gzip")[0] == 200
    assert send(packed[:-1], "gzip") == (400, '{"error":"the gzip body is cut short"}')
    assert send(body, "gzip")[0] == 400
    assert send(packed, "br") == (
        415,
        '{"error":"Content-Encoding is \'br\'; allowed: gzip, identity"}',
    )
    monkeypatch.setattr(collector, "LARGEST", 1000)
    bomb = gzip.compress(b" " * 100_000)
    assert len(bomb) < 1000 and send(bomb, "gzip")[0] == 413


@pytest.mark.slow
def test_the_process_lets_go_of_who_sends_nothing_and_writes_what_it_took(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "serving.collector",
        "--port",
        str(port),
        "--journal",
        str(tmp_path / "journal"),
    ]
    environment = {**os.environ, "TASTELOOP_HOME": str(tmp_path)}
    with subprocess.Popen(
        command, cwd=HOUSE, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            while True:
                try:
                    client.get("/")
                    break
                except httpx.ConnectError:
                    assert process.poll() is None, process.communicate()
                    time.sleep(0.1)
            for kind, data in ((REQUEST, V1[0]), (RESPONSE, answered(V1[1]))):
                headers, body = logged(kind, data)
                assert client.post("/", content=body, headers=headers).status_code == 200
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(
                b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTrailer: "
            )
            with pytest.raises(OSError):
                for _ in range(1000):
                    connection.sendall(b"x" * 10_000)
                    time.sleep(0.001)
        process.terminate()
        assert process.wait(60) == 0

    assert read_journal(tmp_path / "journal")["request"].to_list() == ["e1"]


def test_an_answer_that_fits_no_table_keeps_no_other_out(journal: Journal, tmp_path: Path) -> None:
    for n, k in enumerate((1, 2**40, 2**70, 3)):
        assert journal.answered(
            paired({"instances": [{"text": TEXT, "k": k}]}, V1[1], identity=f"e{n}")
        )
    journal.close()
    assert (journal.status()["dropped"], journal.status()["error"]) == (2, None)
    assert sorted(read_journal(tmp_path)["request"]) == ["e0", "e3"]


def test_it_does_not_listen_to_everybody(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TASTELOOP_API_TOKEN", raising=False)
    monkeypatch.setattr("sys.argv", ["collector"])
    assert collector.main(["--host", "0.0.0.0"]) == 2
    assert "set TASTELOOP_API_TOKEN" in capsys.readouterr().err
