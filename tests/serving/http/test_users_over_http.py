"""Events in and histories out over HTTP, on a server in this process."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from google.protobuf.struct_pb2 import Struct
from kserve.errors import InvalidInput

from serving.answering.predictor import Predictor
from serving.client import Client
from serving.histories.protocol import Bounds, Stale, StoreAway, StoreBusy, StoreFull
from serving.histories.service import HistoryService
from serving.histories.sqlite import SqliteHistories
from serving.http.rpc import HISTORIES_SERVICE, _history_methods
from tasteloop.privacy.pseudonyms import pseudonym
from tasteloop.runtime.questions import EXCEPTIONS, Exceptions
from tests.support.edge import ADMIN, API, KEY, Session, open_house, running

CLICK = {"kind": "click", "item": "50"}
OLD = "2026-01-01T00:00:00Z"


class Echo(Session):
    """Recommends the items of the history that it is asked about, newest first."""

    def __init__(self) -> None:
        self.questions: list[Any] = []

    def compute(self, model: str, questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self.questions += questions
        return [
            {
                "recommendations": [
                    {
                        "item": event.item,
                        "title": event.kind,
                        "score": 1.0,
                        "reason": "",
                        "reasons": [],
                    }
                    for event in reversed(question["events"])
                ]
            }
            for question in questions
        ]


@contextmanager
def server(directory: Path, repeat_days: float | None = None, **bounds: Any) -> Iterator[Any]:
    """A server with a store; `.api` and `.admin` ask it, `.session` was asked."""
    store = SqliteHistories(directory, Bounds(**bounds), shards=1)
    session = Echo()
    service = HistoryService(store, KEY, repeat_days=repeat_days)
    try:
        with open_house(session=session, histories=service) as house, running(house) as address:
            url = f"http://127.0.0.1:{address[1]}"
            api, admin = (
                httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=60)
                for token in (API, ADMIN)
            )
            with api, admin:
                live = house.admission.live
                yield SimpleNamespace(api=api, admin=admin, session=session, store=store, live=live)
    finally:
        store.close()


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Any]:
    with server(tmp_path) as ours:
        yield ours


def send(ours: Any, *events: Any, key: str | None = None) -> httpx.Response:
    headers = {} if key is None else {"idempotency-key": key}
    answer: httpx.Response = ours.api.post("/v1/events", json={"events": events}, headers=headers)
    return answer


def ask(ours: Any, **instance: Any) -> httpx.Response:
    body = {"instances": [instance]}
    answer: httpx.Response = ours.api.post("/v1/models/recommend:predict", json=body)
    return answer


def items(answer: httpx.Response) -> list[str]:
    [prediction] = answer.json()["predictions"]
    return [entry["item"] for entry in prediction["recommendations"]]


def test_what_was_acknowledged_is_in_the_next_answer(ours: Any) -> None:
    for number in range(20):
        sent = send(ours, {"user": "ann", "kind": "click", "item": str(number)})
        assert sent.status_code == 202
        assert sent.json()["seq"] == {"ann": number + 1} and sent.json()["durable"] == "disk"

        answer = ask(ours, user="ann", min_seq=number + 1)

        assert items(answer) == [str(n) for n in range(number, -1, -1)]
        assert answer.json()["histories"] == [{"events": number + 1, "seq": number + 1}]


def test_a_question_without_a_user_or_with_an_unknown_one_is_answered_as_it_came(ours: Any) -> None:
    send(ours, {"user": "ann", **CLICK})

    sent_along = ask(ours, events=[{"kind": "view", "item": "9"}])
    unknown = ask(ours, user="bob")

    assert items(sent_along) == ["9"] and "histories" not in sent_along.json()
    assert items(unknown) == [] and unknown.json()["histories"] == [{"events": 0, "seq": 0}]
    assert EXCEPTIONS not in ours.session.questions[0]
    assert ours.session.questions[1][EXCEPTIONS] == Exceptions()


def test_a_question_with_both_gets_the_union_by_event_id(ours: Any) -> None:
    send(
        ours,
        {"user": "ann", "id": "a", "kind": "click", "item": "1"},
        {"user": "ann", "kind": "click", "item": "2", "time": OLD},
    )

    answer = ask(
        ours,
        user="ann",
        events=[
            {"id": "a", "kind": "click", "item": "1"},
            {"kind": "click", "item": "2", "time": OLD},
            {"id": "b", "kind": "click", "item": "3"},
            {"kind": "click", "item": "1"},
        ],
    )

    assert items(answer) == ["1", "3", "1", "2"]
    assert answer.json()["histories"] == [{"events": 4, "seq": 2}]


def test_what_the_store_does_not_have_yet_is_409_and_not_a_stale_answer(ours: Any) -> None:
    send(ours, {"user": "ann", **CLICK})

    answer = ask(ours, user="ann", min_seq=2)

    assert answer.status_code == 409
    assert "has seq 1, min_seq is 2" in answer.json()["error"]
    assert ours.session.questions == []


@pytest.mark.parametrize(
    ("instance", "message"),
    [
        ({"user": "ann", "min_seq": -1}, "min_seq"),
        ({"user": "ann", "min_seq": "7"}, "min_seq"),
        ({"min_seq": 1, "events": []}, "unknown key 'min_seq'"),
        ({}, "'events' is missing"),
        ({"user": "ann", "events": 5}, "a list is expected"),
        ({"user": "ann", "events": [7]}, "an event is an object"),
        ({"user": "ann", "events": [{}]}, "unknown event kind"),
        ({"user": "ann", "events": [{"id": 7, **CLICK}]}, r"events[0].id"),
        ({"events": [{"id": "a", **CLICK}]}, "unknown key 'id'"),
        ({"user": 7}, "a string of 1 to 256 characters"),
    ],
)
def test_a_mistake_in_a_question_is_400(ours: Any, instance: Any, message: str) -> None:
    answer = ask(ours, **instance)

    assert (answer.status_code, message in answer.json()["error"]) == (400, True), answer.text


def test_refused_rows_are_named_and_the_others_stored(ours: Any) -> None:
    sent = send(
        ours,
        {"user": "ann", "id": "1", **CLICK},
        {"user": "ann", "kind": "zap"},
        {"user": "bob", **CLICK},
        {"user": "ann", "id": "1", "kind": "click", "item": "51"},
        {"user": "ann", "kind": "rate", "item": "50", "value": 4},
        {"user": "ann", "id": "1", **CLICK},
    )

    assert sent.status_code == 202
    answer = sent.json()
    assert [(row["index"], row["reason"]) for row in answer["refused"]] == [
        (1, "unknown_kind"),
        (3, "conflict"),
        (4, "off_scale"),
    ]
    assert (answer["accepted"], answer["new"], answer["seq"]) == (3, 2, {"ann": 1, "bob": 1})


def test_the_same_request_ten_times_counts_once_and_another_body_is_409(ours: Any) -> None:
    events = [{"user": "ann", **CLICK}, {"user": "ann", **CLICK}]

    answers = [send(ours, *events, key="k").json() for _ in range(10)]
    other = send(ours, events[0], key="k")

    assert [answer["new"] for answer in answers] == [2] + 9 * [0]
    assert {answer["accepted"] for answer in answers} == {2}
    assert other.status_code == 409
    assert ask(ours, user="ann").json()["histories"] == [{"events": 2, "seq": 2}]


def test_a_key_is_not_spent_on_a_request_that_is_refused_whole(ours: Any) -> None:
    too_many = [{"user": "ann", **CLICK}] * 1_001

    assert send(ours, *too_many, key="k").status_code == 400
    assert send(ours, {"user": "ann", **CLICK}, key="k").json()["new"] == 1


def test_a_key_is_bound_to_the_headers_of_a_binary_cloud_event_too(ours: Any) -> None:
    headers = {
        "ce-specversion": "1.0",
        "ce-type": "click",
        "ce-source": "s",
        "ce-subject": "ann",
        "content-type": "application/json",
        "idempotency-key": "k",
    }

    statuses = [
        ours.api.post("/v1/events", content=b'{"item": "50"}', headers={**headers, "ce-id": name})
        for name in ("1", "1", "2")
    ]

    assert [answer.status_code for answer in statuses] == [202, 202, 409]


def test_too_many_instances_are_refused_before_a_history_is_read(
    ours: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    monkeypatch.setattr(ours.store, "read", lambda user, *_: reads.append(user))
    body = {"instances": [{"user": "ann"}] * 300}

    answer = ours.api.post("/v1/models/recommend:predict", json=body)

    assert answer.status_code == 400 and "send at most 256" in answer.json()["error"]
    assert reads == []


def test_a_question_waits_for_its_history_until_its_deadline(
    ours: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()
    monkeypatch.setattr(ours.store, "read", lambda *_: answered.wait(30))

    answer = ours.api.post(
        "/v1/models/recommend:predict",
        json={"instances": [{"user": "ann"}]},
        headers={"x-request-timeout-ms": "50"},
    )
    answered.set()

    assert answer.status_code == 504


@pytest.mark.parametrize("user", ["a:predict", "a/infer", "..", "%2F", "a?b#c"])
def test_a_user_of_any_name_that_is_taken_can_be_seen_and_erased(ours: Any, user: str) -> None:
    send(ours, {"user": user, **CLICK})

    with Client(str(ours.admin.base_url), token=ADMIN) as admin:
        assert admin.user(user)["seq"] == 1
        assert admin.erase(user) == {"erased": 1, "seq": 2}


def test_a_number_that_json_has_not_is_the_callers_mistake_over_grpc(ours: Any) -> None:
    message = Struct()
    event = message.fields["events"].list_value.values.add().struct_value
    event.fields["value"].number_value = float("nan")
    methods = _history_methods(HistoryService(ours.store, KEY))
    handler = methods.service(SimpleNamespace(method=f"/{HISTORIES_SERVICE}/Append"))

    with pytest.raises(InvalidInput, match="not finite"):
        asyncio.run(handler.unary_unary(message, None))


def test_two_writers_of_one_user_lose_nothing(ours: Any) -> None:
    def write(writer: int) -> list[int]:
        rows = [
            {"user": "ann", "id": f"{writer} {n}", "kind": "click", "item": "1"} for n in range(30)
        ]
        return [send(ours, row).status_code for row in rows]

    with ThreadPoolExecutor(4) as pool:
        statuses = [status for part in pool.map(write, range(4)) for status in part]

    assert statuses == 120 * [202]
    assert ask(ours, user="ann").json()["histories"] == [{"events": 120, "seq": 120}]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"events": 3}', b'{"events": [], "x": 1}'])
def test_a_body_without_events_is_400(ours: Any, body: bytes) -> None:
    assert ours.api.post("/v1/events", content=body).status_code == 400


@pytest.mark.parametrize(
    ("error", "status"),
    [(StoreFull("no room"), 507), (StoreAway("away"), 503), (StoreBusy(), 429)],
)
def test_a_store_that_cannot_write_is_not_the_callers_fault(
    ours: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def fail(*_: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(error)
        return future

    monkeypatch.setattr(ours.store, "append", fail)

    answer = send(ours, {"user": "ann", **CLICK})

    assert answer.status_code == status
    assert ("retry-after" in answer.headers) == (status == 429)


def test_the_deadline_of_the_caller_ends_the_wait(
    ours: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours.store, "append", lambda *_: Future())

    answer = ours.api.post(
        "/v1/events",
        json={"events": [{"user": "ann", **CLICK}]},
        headers={"x-request-timeout-ms": "50"},
    )

    assert answer.status_code == 504 and "send it again" in answer.json()["error"]


def test_the_admin_sees_and_erases_a_user_and_nobody_else_does(ours: Any) -> None:
    user = "ann/é ?"
    path = "/v1/users/ann%2F%C3%A9%20%3F"
    send(ours, {"user": user, "id": "7", "time": OLD, **CLICK})
    assert ours.api.get(path).status_code == ours.api.delete(path).status_code == 403

    export = ours.admin.get(path).json()
    erasure = ours.admin.delete(path).json()

    assert export["user"] == user and export["seq"] == 1
    assert [(event["kind"], event["item"]) for event in export["events"]] == [("click", "50")]
    assert erasure == {"erased": 1, "seq": 2}
    assert ours.admin.get(path).json()["events"] == []
    again = send(ours, {"user": user, "id": "7", "time": OLD, **CLICK}).json()
    assert [row["reason"] for row in again["refused"]] == ["erased"]
    assert send(ours, {"user": user, **CLICK}).json()["seq"] == {user: 3}


def test_what_was_consumed_stays_known_when_its_event_is_dropped(tmp_path: Path) -> None:
    with server(tmp_path, events=2) as ours:
        for kind, item in (("view", "1"), ("hide", "2"), ("impression", "3"), ("view", "4")):
            send(ours, {"user": "ann", "kind": kind, "item": item})
        send(ours, {"user": "ann", "kind": "view", "item": "5"})

        answer = ask(ours, user="ann")

        assert items(answer) == ["5", "4"]
        exceptions = ours.session.questions[-1][EXCEPTIONS]
        assert exceptions == Exceptions(left_out=frozenset({"1", "2"}))


def test_where_repeats_are_allowed_what_was_consumed_comes_back_and_what_was_refused_never(
    tmp_path: Path,
) -> None:
    with server(tmp_path, repeat_days=30, events=4) as ours:
        for kind, item, when in (
            ("view", "1", OLD),
            ("hide", "2", OLD),
            ("view", "3", OLD),
            ("dislike", "4", OLD),
            ("view", "5", OLD),
            ("view", "6", None),
        ):
            send(ours, {"user": "ann", "kind": kind, "item": item, "time": when})

        ask(ours, user="ann")
        ask(ours, user="ann", events=[{"kind": "view", "item": "1"}])

        first, second = (question[EXCEPTIONS] for question in ours.session.questions)
        assert first == Exceptions(frozenset({"2", "4", "6"}), frozenset({"1", "3", "5"}))
        assert second == Exceptions(frozenset({"1", "2", "4", "6"}), frozenset({"3", "5"}))


def test_a_model_that_is_swapped_in_reads_the_same_history(ours: Any) -> None:
    send(ours, {"user": "ann", **CLICK})
    before = ask(ours, user="ann").json()

    ours.live.swap(Predictor(Echo(), "2"))
    send(ours, {"user": "ann", "kind": "click", "item": "51"})
    after = ask(ours, user="ann", min_seq=2)

    assert (before["model_version"], after.json()["model_version"]) == ("1", "2")
    assert items(after) == ["51", "50"]


def test_events_that_come_late_and_out_of_order_are_where_they_belong(ours: Any) -> None:
    for when, item in (("2026-03-01", "3"), ("2025-01-01", "1"), ("2026-02-01", "2")):
        sent = send(ours, {"user": "ann", "kind": "view", "item": item, "time": when})
        assert sent.json()["new"] == 1

    assert items(ask(ours, user="ann")) == ["3", "2", "1"]


def test_v2_reads_histories_too_and_says_which(ours: Any) -> None:
    send(ours, {"user": "ann", **CLICK})
    element = json.dumps({"user": "ann", "min_seq": 1})
    tensor = {"name": "events", "datatype": "BYTES", "shape": [1], "data": [element]}

    answer = ours.api.post("/v2/models/recommend/infer", json={"inputs": [tensor]}).json()

    assert answer["outputs"][0]["data"] == ["50"]
    assert json.loads(answer["parameters"]["histories"]) == [{"events": 1, "seq": 1}]


def test_no_raw_user_is_stored_or_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    name = "ann.example.person"
    with server(tmp_path) as ours:
        send(ours, {"user": name, "id": f"{name}/1", **CLICK}, key=f"{name} key")
        ask(ours, user=name)
        ours.admin.get(f"/v1/users/{name}")
        ours.admin.delete(f"/v1/users/{name}")
        stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())

    # the callers' own log lines are not the server's
    ours_logged = [
        f"{record.getMessage()} {vars(record)}"
        for record in caplog.records
        if not record.name.startswith("http")
    ]
    assert name.encode() not in stored
    assert bytes.fromhex(pseudonym(name, KEY)) in stored
    assert not any(name in line for line in ours_logged)


@pytest.mark.alone
def test_a_hot_user_of_a_thousand_events_a_second_is_kept_up_with(tmp_path: Path) -> None:
    with server(tmp_path, events=500) as ours:
        started = time.monotonic()
        for block in range(20):
            rows = [
                {"user": "hot", "id": f"{block} {n}", "kind": "view", "item": str(n)}
                for n in range(100)
            ]
            assert send(ours, *rows).json()["new"] == 100
        seconds = time.monotonic() - started

        assert ask(ours, user="hot").json()["histories"] == [{"events": 500, "seq": 2_000}]
        assert seconds < 2.0
        assert threading.active_count() < 50


def test_under_a_new_pseudonym_key_a_user_is_a_stranger_and_nothing_stale_is_answered(
    tmp_path: Path, ours: Any
) -> None:
    send(ours, {"user": "ann", **CLICK})
    renewed = HistoryService(ours.store, b"another key of a test")

    export = asyncio.run(renewed.export("ann"))

    assert export["seq"] == 0 and export["events"] == []
    with pytest.raises(Stale):
        asyncio.run(renewed.resolve([{"min_seq": 1}], [pseudonym("ann", b"another key of a test")]))
    assert asyncio.run(renewed.erase("ann"))["erased"] == 0
    assert items(ask(ours, user="ann")) == ["50"]


def test_without_a_store_the_server_is_as_it_was() -> None:
    with open_house(session=Echo()) as house, running(house) as address:
        headers = {"authorization": f"Bearer {API}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{address[1]}", headers=headers) as client:
            assert client.post("/v1/events", json={"events": [CLICK]}).status_code == 404
            assert client.get("/v1/users/ann").status_code == 404
            body = {"instances": [{"user": "ann"}]}
            answer = client.post("/v1/models/recommend:predict", json=body)
            assert answer.status_code == 400 and "'events' is missing" in answer.json()["error"]
            assert "/v1/events" not in client.get("/openapi.json").json()["paths"]
