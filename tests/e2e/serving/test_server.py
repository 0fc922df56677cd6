"""A real server over V1, V2 REST and gRPC: it answers as the session does, and blames whom it
should.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from serving.client import Client, ServingError
from serving.release.answer_comparison import compare
from tests.support.processes import VERSION, Running, run_server

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:ORJSONResponse is deprecated")]

MODELS = ("interests", "recommend", "sentiment")
Questions = dict[str, list[dict[str, Any]]]
EXACT = 1e-6
NUMPY: dict[str, Any] = {"BYTES": object, "FP32": np.float32, "BOOL": bool}


def same(model: str, expected: list[dict[str, Any]], served: list[dict[str, Any]]) -> None:
    for want, got in zip(expected, served, strict=True):
        assert compare(model, want, got, EXACT) == []


def elements(model: str, instances: list[dict[str, Any]]) -> tuple[str, list[str]]:
    """The name and the elements of the model's V2 input tensor."""
    if model == "sentiment":
        return "text", [instance["text"] for instance in instances]
    return "events", [json.dumps(instance) for instance in instances]


def check_v2(
    model: str, expected: list[dict[str, Any]], outputs: dict[str, np.ndarray[Any, Any]]
) -> None:
    """V2's arrays say what the session's answers say."""

    def text(value: Any) -> str:
        return value.decode() if isinstance(value, bytes) else str(value)

    n = len(expected)
    if model == "sentiment":
        assert [text(value) for value in outputs["sentiment"]] == [
            answer["sentiment"] for answer in expected
        ]
        np.testing.assert_allclose(
            outputs["probability"], [answer["probability"] for answer in expected], rtol=EXACT
        )
        return
    key, name, number = {
        "interests": ("interests", "label", "probability"),
        "recommend": ("recommendations", "item", "score"),
    }[model]
    width = max(len(answer[key]) for answer in expected)
    assert outputs[name].shape == outputs[number].shape == (n, width)
    for row, answer in enumerate(expected):
        entries = answer[key]
        padding = width - len(entries)
        names = [entry[name] for entry in entries] + [""] * padding
        assert [text(value) for value in outputs[name][row]] == names
        np.testing.assert_allclose(
            outputs[number][row],
            [entry[number] for entry in entries] + [0.0] * padding,
            rtol=1e-5,
            atol=EXACT,
        )
        if model == "interests":
            assert outputs["predicted"][row].tolist() == [entry["predicted"] for entry in entries]
        else:
            reasons = [json.loads(text(value)) for value in outputs["reasons"][row]]
            for served, entry in zip(
                reasons, [entry["reasons"] for entry in entries] + [[]] * padding, strict=True
            ):
                assert [reason["kind"] for reason in served] == [reason["kind"] for reason in entry]


# Answers


@pytest.mark.parametrize("model", MODELS)
def test_v1_equals_the_session(
    server: Running, session: Any, questions: Questions, model: str
) -> None:
    response = httpx.post(
        f"{server.http}/v1/models/{model}:predict", json={"instances": questions[model]}
    )
    assert response.status_code == 200
    same(model, session.answer(model, questions[model]), response.json()["predictions"])
    assert response.json()["model_version"] == VERSION


def test_golden_answers_are_served(server: Running, golden: list[dict[str, Any]]) -> None:
    with Client(server.http) as client:
        for question in golden:
            served = client.predict(question["model"], [question["instance"]])
            assert compare(question["model"], question["answer"], served[0], 1e-4) == []


@pytest.mark.parametrize("model", MODELS)
def test_v2_equals_the_session(
    server: Running, session: Any, questions: Questions, model: str
) -> None:
    name, data = elements(model, questions[model])
    tensor = {"name": name, "datatype": "BYTES", "shape": [len(data)], "data": data}
    response = httpx.post(
        f"{server.http}/v2/models/{model}/infer", json={"id": "42", "inputs": [tensor]}
    ).json()
    assert (response["id"], response["model_name"], response["model_version"]) == (
        "42",
        model,
        VERSION,
    )
    check_v2(
        model,
        session.answer(model, questions[model]),
        {
            o["name"]: np.array(o["data"], NUMPY[o["datatype"]]).reshape(o["shape"])
            for o in response["outputs"]
        },
    )


def test_v2_k_is_for_instances_that_do_not_say(server: Running, questions: Questions) -> None:
    instance = {"events": questions["recommend"][0]["events"]}
    with Client(server.http) as client:
        tensor = {"name": "events", "datatype": "BYTES", "shape": [2]}
        tensor["data"] = [json.dumps(instance), json.dumps({**instance, "k": 1})]
        outputs = {o["name"]: o for o in client.infer("recommend", [tensor], {"k": 2})["outputs"]}
    assert outputs["item"]["shape"] == [2, 2]
    first, second, alone, padding = outputs["item"]["data"]
    assert first and second and alone == first and padding == ""


def test_v2_gives_the_outputs_that_were_asked_for(server: Running) -> None:
    body = {
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["fine"]}],
        "outputs": [{"name": "probability"}],
    }
    response = httpx.post(f"{server.http}/v2/models/sentiment/infer", json=body).json()
    assert [output["name"] for output in response["outputs"]] == ["probability"]


def test_no_content_type_is_needed_nor_a_special_one(server: Running) -> None:
    v1, v2 = "/v1/models/sentiment:predict", "/v2/models/sentiment/infer"
    bodies = {
        v1: b'{"instances": [{"text": "fine"}]}',
        v2: b'{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["fine"]}]}',
    }
    for path, body in bodies.items():
        for kind in (None, "application/json; charset=utf-8", "application/x-www-form-urlencoded"):
            headers = {"content-type": kind} if kind else {}
            assert (
                httpx.post(server.http + path, content=body, headers=headers).status_code == 200
            ), (
                path,
                kind,
            )


# The official clients


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_the_official_grpc_client(
    server: Running, session: Any, questions: Questions, model: str, raw: bool
) -> None:
    from kserve import InferenceGRPCClient, InferInput, InferRequest

    name, data = elements(model, questions[model])

    async def ask() -> Any:
        async with InferenceGRPCClient(server.grpc) as client:
            assert await client.is_server_live() and await client.is_server_ready()
            assert await client.is_model_ready(model)
            tensor = InferInput(name, [len(data)], "BYTES", None if raw else data)
            if raw:
                tensor.set_data_from_numpy(
                    np.array([element.encode() for element in data], dtype=object)
                )
            return await client.infer(InferRequest(model, [tensor], request_id="42"))

    response = run(ask())
    assert (response.id, response.model_name, response.model_version) == ("42", model, VERSION)
    check_v2(
        model,
        session.answer(model, questions[model]),
        {o.name: o.as_numpy() for o in response.outputs},
    )


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_the_official_rest_client(
    server: Running, session: Any, questions: Questions, model: str, binary: bool
) -> None:
    from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

    name, data = elements(model, questions[model])

    async def ask() -> Any:
        async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
            assert await client.is_server_live(server.http) and await client.is_server_ready(
                server.http
            )
            assert await client.is_model_ready(server.http, model)
            tensor = InferInput(name, [len(data)], "BYTES", None if binary else data)
            if binary:
                tensor.set_data_from_numpy(
                    np.array([element.encode() for element in data], dtype=object)
                )
            parameters = {"binary_data_output": binary}
            return await client.infer(
                server.http,
                InferRequest(model, [tensor], request_id="42", parameters=parameters),
                model_name=model,
            )

    response = run(ask())
    assert (response.id, response.model_name) == ("42", model)  # this client drops the version
    check_v2(
        model,
        session.answer(model, questions[model]),
        {o.name: o.as_numpy() for o in response.outputs},
    )


def test_the_official_rest_client_over_v1(
    server: Running, session: Any, questions: Questions
) -> None:
    from kserve import InferenceRESTClient, RESTConfig

    async def ask() -> Any:
        async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
            body = {"instances": questions["sentiment"]}
            return await client.infer(server.http, body, model_name="sentiment")

    same(
        "sentiment", session.answer("sentiment", questions["sentiment"]), run(ask())["predictions"]
    )


# Metadata and health


def test_health(server: Running) -> None:
    get = httpx.get
    assert get(server.http + "/").json() == {"status": "alive"}
    assert get(server.http + "/v2/health/live").json() == {"live": True}
    assert get(server.http + "/v2/health/ready").json() == {"ready": True}
    assert get(server.http + "/v1/models").json() == {"models": list(MODELS)}
    assert get(server.http + "/v1/models/recommend").json() == {"name": "recommend", "ready": True}
    assert get(server.http + "/v2/models/recommend/ready").json() == {
        "name": "recommend",
        "ready": True,
    }
    assert get(server.http + "/metrics").status_code == 200


def test_metadata_is_true(server: Running, session: Any) -> None:
    server_metadata = httpx.get(server.http + "/v2").json()
    assert (server_metadata["name"], server_metadata["extensions"]) == (
        "tasteloop",
        ["binary_tensor_data"],
    )
    shapes = {
        "interests": {
            "label": [-1, -1],
            "probability": [-1, -1],
            "predicted": [-1, -1],
            "confident": [-1, -1],
        },
        "recommend": dict.fromkeys(("item", "score", "reason", "reasons", "against"), [-1, -1]),
        "sentiment": {"sentiment": [-1], "probability": [-1], "confident": [-1]},
    }
    types = {"probability": "FP32", "score": "FP32", "predicted": "BOOL", "confident": "BOOL"}
    for model in MODELS:
        metadata = httpx.get(f"{server.http}/v2/models/{model}").json()
        assert (metadata["name"], metadata["versions"]) == (model, [VERSION])
        name = "text" if model == "sentiment" else "events"
        assert metadata["inputs"] == [{"name": name, "datatype": "BYTES", "shape": [-1]}]
        assert metadata["outputs"] == [
            {"name": name, "datatype": types.get(name, "BYTES"), "shape": shape}
            for name, shape in shapes[model].items()
        ]


def test_the_version_in_a_path_is_the_one_served(server: Running) -> None:
    for rest in ("", "/ready"):
        path = f"{server.http}/v2/models/recommend/versions/"
        assert httpx.get(f"{path}{VERSION}{rest}").status_code == 200
        refused = httpx.get(f"{path}99{rest}")
        assert refused.status_code == 404
        assert refused.json() == {"error": "model 'recommend' has no version '99'; served: '3'"}


def test_models_cannot_be_unloaded(server: Running) -> None:
    for verb in ("load", "unload"):
        refused(
            httpx.post(f"{server.http}/v2/repository/models/sentiment/{verb}"),
            501,
            "TASTELOOP_ADMIN_TOKEN",
        )
    assert "repository" not in httpx.get(server.http + "/openapi.json").text
    assert httpx.get(server.http + "/v2/models/sentiment/ready").status_code == 200


def test_it_listens_on_loopback_only(server: Running) -> None:
    connections = psutil.Process(server.process.pid).connections("tcp")
    listening = {
        c.laddr.ip.removeprefix("::ffff:") for c in connections if c.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


# Bad requests


def event(**fields: Any) -> dict[str, Any]:
    return {"instances": [{"events": [fields]}]}


BAD_V1: list[tuple[str, Any, int, str]] = [
    ("sentiment", b"", 400, "Unrecognized request format"),
    ("sentiment", b'{"instances": [', 400, "Unrecognized request format"),
    ("sentiment", b'{"instances": [{"text": "\xff"}]}', 400, "not valid UTF-8"),
    ("sentiment", b'{"instances": [{"text": "\\ud800"}]}', 400, "Unrecognized request format"),
    ("sentiment", b"[" * 100_000, 400, "Unrecognized request format"),
    ("sentiment", {}, 400, 'must be a JSON object {"instances"'),
    ("sentiment", [], 400, 'must be a JSON object {"instances"'),
    ("sentiment", 3, 400, 'must be a JSON object {"instances"'),
    ("sentiment", "text", 400, 'must be a JSON object {"instances"'),
    ("sentiment", {"instances": None}, 400, 'Expected "instances" to be a list'),
    ("sentiment", {"instances": {"text": "a"}}, 400, 'Expected "instances" to be a list'),
    ("sentiment", {"instances": []}, 400, "empty"),
    ("sentiment", {"instances": ["a"]}, 400, "instances[0] is a string"),
    ("sentiment", {"instances": [{"text": "a"}] * 257}, 400, "at most 256"),
    ("sentiment", {"instances": [{"text": "a"}], "k": 3}, 400, "unknown field 'k'"),
    ("sentiment", {"instances": [{"text": "a"}, {"txt": "a"}]}, 400, "instances[1]"),
    ("sentiment", {"instances": [{"text": 3}]}, 400, "instances[0]"),
    ("sentiment", {"instances": [{}]}, 400, "instances[0]"),
    ("recommend", {"instances": [{}]}, 400, "instances[0]"),
    ("recommend", {"instances": [{"events": {}}]}, 400, "instances[0]"),
    ("recommend", {"instances": [{"events": [], "n": 3}]}, 400, "instances[0]"),
    ("recommend", {"instances": [{"events": [], "k": 0}]}, 400, "instances[0]"),
    ("recommend", {"instances": [{"events": [], "k": True}]}, 400, "instances[0]"),
    ("recommend", {"instances": [{"events": [], "k": 2.5}]}, 400, "instances[0]"),
    ("recommend", {"instances": [{"events": [], "k": 10**30}]}, 400, ""),
    (
        "recommend",
        {"instances": [{"events": [], "k": 1000}] * 6},
        400,
        "6000 answer rows; send at most 5000",
    ),
    ("recommend", event(kind="veiw"), 400, "unknown event kind 'veiw'"),
    ("recommend", event(item="1"), 400, "unknown event kind None"),
    ("recommend", event(kind="view", items="1"), 400, "unknown key 'items'"),
    ("recommend", event(kind="rate", item="1", value=4), 400, "value is a number from 0 to 1"),
    ("interests", event(kind="view", item=1), 400, "item is a string"),
    ("interests", event(kind="view", time="yesterday"), 400, "time is an ISO 8601 string"),
    ("interests", event(kind="view", time=-5), 400, "time is an ISO 8601 string"),
    ("nothing", {"instances": [{}]}, 404, "nothing does not exist"),
    ("sentiment", b" " * (4 * 1024 * 1024 + 1), 413, "larger than 4194304 bytes"),
    ("sentiment", b" " * (6 * 1024 * 1024), 413, "larger than 4194304 bytes"),
]


@pytest.mark.parametrize(("model", "body", "status", "message"), BAD_V1)
def test_bad_v1_requests(server: Running, model: str, body: Any, status: int, message: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    refused(
        httpx.post(f"{server.http}/v1/models/{model}:predict", content=content), status, message
    )


def refused(response: httpx.Response, status: int, message: str) -> None:
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    assert message in response.json()["error"]
    assert "Traceback" not in response.text


def tensor(**changes: Any) -> dict[str, Any]:
    return {
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"], **changes}]
    }


BAD_V2: list[tuple[str, Any, int, str]] = [
    ("sentiment", b"", 400, ""),
    ("sentiment", b"{", 400, "the body is not JSON"),
    ("sentiment", b'\xff{"inputs": []}', 400, ""),
    ("sentiment", {}, 400, "inputs: Field required"),
    ("sentiment", {**tensor(), "instances": []}, 400, "instances: unknown field"),
    ("sentiment", tensor(dtype="BYTES"), 400, "inputs.0.dtype: unknown field"),
    ("sentiment", tensor(data=None), 400, "neither data nor binary_data_size"),
    ("sentiment", tensor(parameters={"binary_data_size": 5}), 400, "0 bytes are left"),
    ("sentiment", tensor(shape=[1.5]), 400, "inputs.0.shape.0"),
    ("sentiment", tensor(shape=[True]), 400, "inputs.0.shape.0"),
    ("sentiment", tensor(data=["a" * 20_001]), 400, "send at most 20000"),
    (
        "sentiment",
        {**tensor(), "parameters": {"binary_data_output": 1}},
        400,
        "must be true or false",
    ),
    ("sentiment", [], 400, "body"),
    ("sentiment", {"inputs": 3}, 400, "inputs"),
    ("sentiment", {"inputs": []}, 400, "one input tensor named 'text'; got []"),
    ("sentiment", {"inputs": tensor()["inputs"] * 2}, 400, "one input tensor named 'text'"),
    ("sentiment", tensor(name="events"), 400, "named 'text'; got ['events']"),
    ("sentiment", tensor(datatype="FP32", data=[1.0]), 400, "datatype FP32; it must be BYTES"),
    ("sentiment", tensor(datatype="FP16", data=[1.0]), 400, "FP16"),
    ("sentiment", tensor(shape=[-5]), 400, "shape [-5]"),
    ("sentiment", tensor(shape=[0], data=[]), 400, "n at least 1"),
    ("sentiment", tensor(shape=[2]), 400, "shape [2] and 1 elements"),
    ("sentiment", tensor(shape=[1, 1]), 400, "shape [1, 1]"),
    ("sentiment", tensor(shape=["x"]), 400, "inputs.0.shape.0"),
    ("sentiment", tensor(data=[3]), 400, "element 0 of input 'text' is a number"),
    ("sentiment", tensor(data=[["a", "b"]]), 400, "shape [1] and 2 elements"),
    ("sentiment", tensor(data=["\ud800"]), 400, "the body is not JSON"),
    ("sentiment", {"id": "\ud800", **tensor()}, 400, "the body is not JSON"),
    ("sentiment", tensor(shape=[257], data=["a"] * 257), 400, "at most 256"),
    ("sentiment", {**tensor(), "parameters": {"k": 3}}, 400, "unknown parameter 'k' for sentiment"),
    ("sentiment", {**tensor(), "parameters": {"k": []}}, 400, "parameters"),
    ("sentiment", {**tensor(), "outputs": [{"name": "score"}]}, 400, "unknown output 'score'"),
    ("recommend", tensor(name="events", data=["{"]), 400, "instances[0] is not JSON"),
    (
        "recommend",
        {
            **tensor(name="events", shape=[6], data=['{"events": []}'] * 6),
            "parameters": {"k": 1000},
        },
        400,
        "6000 answer rows; send at most 5000",
    ),
    ("recommend", tensor(name="events", data=["3"]), 400, "instances[0] is a number"),
    (
        "recommend",
        tensor(name="events", data=['{"events": [{"kind": "veiw"}]}']),
        400,
        "unknown event kind",
    ),
    (
        "recommend",
        {**tensor(name="events", data=['{"events": []}']), "parameters": {"k": -1}},
        400,
        "k",
    ),
    ("nothing", tensor(), 404, "nothing does not exist"),
    ("sentiment/versions/99", tensor(), 404, "no version '99'"),
    ("sentiment", b" " * (6 * 1024 * 1024), 413, "larger than 4194304 bytes"),
]


@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
@pytest.mark.parametrize(("model", "body", "status", "message"), BAD_V2)
def test_bad_v2_requests(
    server: Running, model: str, body: Any, status: int, message: str, content_type: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = httpx.post(
        f"{server.http}/v2/models/{model}/infer",
        content=content,
        headers={"content-type": content_type},
    )
    refused(response, status, message)


BINARY = {"name": "text", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 5}}


@pytest.mark.parametrize(
    ("length", "document", "contents"),
    [
        ("x", {"inputs": [BINARY]}, b"\x01\x00\x00\x00a"),
        ("-1", {"inputs": [BINARY]}, b"\x01\x00\x00\x00a"),
        ("9" * 5000, {"inputs": [BINARY]}, b"\x01\x00\x00\x00a"),
        (None, {"inputs": [BINARY]}, b"\x01\x00\x00"),
        (None, {"inputs": [BINARY]}, b"\xff\xff\xff\xffa"),
        (None, {"inputs": [BINARY]}, b"\x01\x00\x00\x00\xff"),
        (None, {"inputs": [{**BINARY, "shape": [2]}]}, b"\x01\x00\x00\x00a"),
        (
            None,
            {"inputs": [{**BINARY, "parameters": {"binary_data_size": "x"}}]},
            b"\x01\x00\x00\x00a",
        ),
        (None, {"inputs": [{"name": "text"}]}, b""),
        (None, {}, b""),
        (None, [], b""),
    ],
)
def test_bad_binary_tensors(
    server: Running, length: str | None, document: Any, contents: bytes
) -> None:
    head = json.dumps(document).encode()
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": length or str(len(head)),
    }
    url = f"{server.http}/v2/models/sentiment/infer"
    refused(httpx.post(url, content=head + contents, headers=headers), 400, "")


def test_other_paths_and_methods(server: Running) -> None:
    refused(httpx.get(server.http + "/nothing"), 404, "Not Found")
    refused(httpx.get(server.http + "/v1/models/nothing"), 404, "nothing does not exist")
    refused(httpx.get(server.http + "/v2/models/nothing"), 404, "nothing does not exist")
    refused(httpx.get(server.http + "/v2/models/nothing/ready"), 404, "nothing does not exist")
    refused(httpx.post(server.http + "/v2/health/ready"), 405, "Method Not Allowed")
    refused(httpx.post(server.http + "/v1/models/sentiment:explain", json={}), 400, "instances")


def test_bad_grpc_requests(server: Running) -> None:
    import grpc
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

    def request(model: str = "sentiment", content: bytes = b"a", **fields: Any) -> Any:
        tensor = {"name": "text", "datatype": "BYTES", "shape": [1], **fields.pop("tensor", {})}
        contents = pb.InferTensorContents(bytes_contents=[content])
        if "raw_input_contents" not in fields:
            tensor["contents"] = contents
        return pb.ModelInferRequest(
            model_name=model, inputs=[pb.ModelInferRequest.InferInputTensor(**tensor)], **fields
        )

    code = grpc.StatusCode
    k = {"k": pb.InferParameter(int64_param=3)}
    six = {
        "name": "events",
        "shape": [6],
        "contents": pb.InferTensorContents(bytes_contents=[b'{"events": []}'] * 6),
    }
    many = pb.ModelInferRequest(
        model_name="recommend",
        inputs=[pb.ModelInferRequest.InferInputTensor(datatype="BYTES", **six)],
        parameters={"k": pb.InferParameter(int64_param=1000)},
    )
    score = [pb.ModelInferRequest.InferRequestedOutputTensor(name="score")]
    cases = [
        ("ModelInfer", request("nothing"), code.NOT_FOUND, "nothing does not exist"),
        ("ModelInfer", request(model_version="99"), code.NOT_FOUND, "version 99"),
        (
            "ModelInfer",
            pb.ModelInferRequest(model_name="sentiment"),
            code.INVALID_ARGUMENT,
            "named 'text'",
        ),
        (
            "ModelInfer",
            request(tensor={"name": "x"}),
            code.INVALID_ARGUMENT,
            "named 'text'; got ['x']",
        ),
        ("ModelInfer", request(tensor={"shape": [-5]}), code.INVALID_ARGUMENT, "shape [-5]"),
        (
            "ModelInfer",
            request(tensor={"shape": [2]}),
            code.INVALID_ARGUMENT,
            "shape [2] and 1 elements",
        ),
        (
            "ModelInfer",
            request(tensor={"datatype": "FP32"}),
            code.INVALID_ARGUMENT,
            "must be BYTES",
        ),
        (
            "ModelInfer",
            request(tensor={"datatype": "WORD"}),
            code.INVALID_ARGUMENT,
            "datatype 'WORD'; known: BOOL",
        ),
        ("ModelInfer", request(content=b"\xff"), code.INVALID_ARGUMENT, "not UTF-8"),
        (
            "ModelInfer",
            request(raw_input_contents=[b"abc"]),
            code.INVALID_ARGUMENT,
            "end inside element 0",
        ),
        (
            "ModelInfer",
            request(raw_input_contents=[b"", b""]),
            code.INVALID_ARGUMENT,
            "number of inputs",
        ),
        ("ModelInfer", request(parameters=k), code.INVALID_ARGUMENT, "unknown parameter 'k'"),
        ("ModelInfer", many, code.INVALID_ARGUMENT, "6000 answer rows; send at most 5000"),
        ("ModelInfer", request(outputs=score), code.INVALID_ARGUMENT, "unknown output 'score'"),
        (
            "ModelInfer",
            request(content=b"a" * 5_000_000),
            code.RESOURCE_EXHAUSTED,
            "larger than max",
        ),
        ("ModelReady", pb.ModelReadyRequest(name="nothing"), code.NOT_FOUND, "nothing"),
        (
            "ModelReady",
            pb.ModelReadyRequest(name="sentiment", version="99"),
            code.NOT_FOUND,
            "version 99",
        ),
        ("ModelMetadata", pb.ModelMetadataRequest(name="nothing"), code.NOT_FOUND, "nothing"),
        (
            "RepositoryModelUnload",
            pb.RepositoryModelUnloadRequest(model_name="sentiment"),
            code.UNIMPLEMENTED,
            "does not load or unload",
        ),
        (
            "RepositoryModelLoad",
            pb.RepositoryModelLoadRequest(model_name="x"),
            code.UNIMPLEMENTED,
            "does not load",
        ),
    ]
    with grpc.insecure_channel(server.grpc) as channel:
        stub = GRPCInferenceServiceStub(channel)
        for method, message, status, text in cases:
            with pytest.raises(grpc.RpcError) as caught:
                getattr(stub, method)(message)
            assert (caught.value.code(), text in caught.value.details()) == (status, True), (
                caught.value.details()
            )
        metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="recommend", version=VERSION))
        assert list(metadata.versions) == [VERSION]
        names = [output.name for output in metadata.outputs]
        assert names == ["item", "score", "reason", "reasons", "against"]


# The process


def test_a_taken_port_is_said(server: Running, tiny_bundle: Path) -> None:
    ports = (
        ("--port", server.port("http"), "--grpc-port", "0"),
        ("--port", "0", "--grpc-port", server.port("grpc")),
    )
    processes = [run_server("--bundle", str(tiny_bundle), *arguments) for arguments in ports]
    for process, option, protocol in zip(
        processes, ("--port", "--grpc-port"), ("http", "grpc"), strict=True
    ):
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 2, output
        assert output == (
            f"error: 127.0.0.1:{server.port(protocol)} is taken by another program; "
            f"choose another {option} (0: any free one)\n"
        )


def test_mistakes_are_said(tmp_path: Path) -> None:
    cases = {
        (): f"error: there is no champion in {tmp_path / 'mlflow.db'}",
        ("--bundle", "/no/such/place"): "error: no bundle directory /no/such/place",
        ("--bundle", str(tmp_path)): "error: ",
    }
    for arguments, message in cases.items():
        process = run_server(
            *arguments, "--port", "0", "--grpc-port", "0", TASTELOOP_HOME=str(tmp_path)
        )
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 2, output
        assert output.startswith(message)
        assert "Traceback" not in output


@pytest.mark.alone
def test_sigterm_ends_with_0_and_quietly(serve: Callable[..., Running], tiny_bundle: Path) -> None:
    running = serve("--bundle", str(tiny_bundle), "--log-level", "error")
    with Client(running.http) as client:
        assert client.ready()
        client.predict("sentiment", [{"text": "fine"}])
        with pytest.raises(ServingError):
            client.predict("sentiment", [{"txt": "fine"}])
        started = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        output, _ = running.process.communicate(timeout=20)
    assert running.process.returncode == 0
    assert time.monotonic() - started < 10
    assert [line for line in output.splitlines() if " INFO serving" not in line] == []
