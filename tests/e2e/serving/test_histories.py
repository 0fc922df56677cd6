"""Stored histories on a real server: what a user does changes the next answer."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Struct
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

from serving.client import Client, ServingError
from serving.http.rpc import HISTORIES_SERVICE
from tasteloop.behaviour.items import Catalogue
from tasteloop.bundle.names import ITEMS_FILE
from tasteloop.files import read_parquet
from tasteloop.privacy.pseudonyms import pseudonym
from tests.support.processes import HOUSE, VERSION, Running, run_server

pytestmark = pytest.mark.slow

ADMIN = "admin-token-of-a-test"
KEY = {"TASTELOOP_PSEUDONYM_KEY": "key of these tests, long enough"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def ours(serve: Callable[..., Running], tiny_bundle: Path, home: Path) -> Running:
    return serve(
        *("--bundle", str(tiny_bundle), "--version", VERSION, "--histories", "on"),
        *("--history-seconds", "1"),
        TASTELOOP_HOME=str(home),
        TASTELOOP_ADMIN_TOKEN=ADMIN,
        **KEY,
    )


def recommended(client: Client, **instance: Any) -> list[str]:
    [answer] = client.predict("recommend", [instance])
    return [entry["item"] for entry in answer["recommendations"]]


def test_nothing_that_was_consumed_is_recommended_after_its_acknowledgement(
    ours: Running, tiny_bundle: Path
) -> None:
    everything = set(Catalogue.read(tiny_bundle / ITEMS_FILE).items)
    consumed: set[str] = set()
    with Client(ours.http) as client:
        while items := recommended(client, user="ann", k=5):
            assert not consumed & set(items)
            kind = ("view", "purchase", "hide", "skip")[len(consumed) % 4]
            sent = client.send([{"user": "ann", "kind": kind, "item": items[0]}])
            consumed.add(items[0])
            assert sent["seq"]["ann"] == len(consumed)
            assert items[0] not in recommended(client, user="ann", k=5)

    assert consumed == everything


def test_an_impression_hides_nothing(ours: Running) -> None:
    with Client(ours.http) as client:
        before = recommended(client, user="ben", k=5)
        client.send([{"user": "ben", "kind": "impression", "item": item} for item in before])

        assert set(recommended(client, user="ben", k=5)) & set(before)


def test_a_stored_history_is_answered_as_one_that_is_sent_along(
    ours: Running, questions: dict[str, list[dict[str, Any]]]
) -> None:
    with Client(ours.http) as client:
        for model in ("interests", "recommend"):
            for number, question in enumerate(questions[model]):
                user = f"{model} {number}"
                times = [
                    {**event, "time": event.get("time", 1_700_000_000_000_000 + place)}
                    for place, event in enumerate(question["events"])
                ]
                if times:
                    client.send([{"user": user, **event} for event in times])
                rest = {name: value for name, value in question.items() if name != "events"}

                [stored] = client.predict(model, [{**rest, "user": user}])

                assert stored == client.predict(model, [{**rest, "events": times}])[0]


def test_grpc_takes_events_and_knows_users(ours: Running) -> None:
    events = [
        {"user": "gus", "id": "1", "kind": "click", "item": "i1", "time": 1_700_000_000_000_000},
        {"user": "gus", "kind": "zap"},
    ]
    with grpc.insecure_channel(ours.grpc) as channel:
        append = channel.unary_unary(
            f"/{HISTORIES_SERVICE}/Append", Struct.SerializeToString, Struct.FromString
        )
        message = ParseDict({"events": events}, Struct())

        first, again = (MessageToDict(append(message)) for _ in range(2))
        with pytest.raises(grpc.RpcError) as refused:
            append(ParseDict({"rows": []}, Struct()))
        request = pb.ModelInferRequest(model_name="recommend")
        tensor = request.inputs.add(name="events", datatype="BYTES", shape=[1])
        tensor.contents.bytes_contents.append(json.dumps({"user": "gus", "min_seq": 1}).encode())
        answer = GRPCInferenceServiceStub(channel).ModelInfer(request)
        tensor.contents.bytes_contents[0] = json.dumps({"user": "gus", "min_seq": 9}).encode()
        with pytest.raises(grpc.RpcError) as stale:
            GRPCInferenceServiceStub(channel).ModelInfer(request)

    assert (first["new"], again["new"], again["accepted"]) == (1, 0, 1)
    assert [row["reason"] for row in first["refused"]] == ["unknown_kind"]
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert json.loads(answer.parameters["histories"].string_param) == [{"events": 1, "seq": 1}]
    assert stale.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_the_command_line_asks_about_a_user(ours: Running) -> None:
    with Client(ours.http) as client:
        client.send([{"user": "eve", "kind": "rate", "item": "i3", "value": 1.0}])
        expected = recommended(client, user="eve", k=3)

    command = [sys.executable, "-m", "pipelines.cli", "predict", "recommend", "--user", "eve"]
    done = subprocess.run(
        [*command, "-k", "3", "--url", ours.http], cwd=HOUSE, capture_output=True, text=True
    )

    assert [row["item"] for row in json.loads(done.stdout)["recommendations"]] == expected


def test_the_admin_exports_and_erases(ours: Running) -> None:
    with Client(ours.http) as client, Client(ours.http, token=ADMIN) as admin:
        client.send([{"user": "joe", "kind": "like", "item": "i3"}])
        with pytest.raises(ServingError):
            client.erase("joe")

        assert [event["item"] for event in admin.user("joe")["events"]] == ["i3"]
        assert admin.erase("joe") == {"erased": 1, "seq": 2}
        assert admin.user("joe")["events"] == []


def test_the_document_describes_histories(ours: Running) -> None:
    document = httpx.get(f"{ours.http}/openapi.json").json()

    assert {"/v1/events", "/v1/users/{user}"} <= document["paths"].keys()
    assert document["components"]["schemas"]["UserEvent"]["required"] == ["user", "kind"]


def test_a_second_server_is_refused_and_a_kill_keeps_what_was_acknowledged(
    ours: Running, serve: Callable[..., Running], tiny_bundle: Path, home: Path
) -> None:
    arguments = ("--bundle", str(tiny_bundle), "--version", VERSION, "--histories", "on")
    environment = {"TASTELOOP_HOME": str(home), "TASTELOOP_ADMIN_TOKEN": ADMIN, **KEY}
    second = run_server(*arguments, "--port", "0", "--grpc-port", "0", **environment)
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 2 and "valkey://HOST" in output

    with Client(ours.http) as client:
        client.send([{"user": "kim", "id": str(n), "kind": "view", "item": "i1"} for n in range(9)])
    ours.process.send_signal(signal.SIGKILL)
    ours.process.wait()
    after = serve(*arguments, "--history-seconds", "1", **environment)
    with Client(after.http) as client:
        assert client.predict("recommend", [{"user": "kim", "min_seq": 9}]).histories == [
            {"events": 9, "seq": 9}
        ]
    after.process.send_signal(signal.SIGTERM)
    after.process.wait(60)

    assert after.process.returncode == 0
    users = [user for path in (home / "incoming").iterdir() for user in read_parquet(path)["user"]]
    assert users.count(pseudonym("kim", KEY["TASTELOOP_PSEUDONYM_KEY"].encode())) == 9
