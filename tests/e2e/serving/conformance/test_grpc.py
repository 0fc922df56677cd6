"""Open Inference Protocol over gRPC."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb


def call(target: Any, rpc: Any, method: str, message: Any, timeout: float = 60) -> Any:
    return getattr(rpc, method)(message, metadata=target.metadata(), timeout=timeout)


def request(
    target: Any, *texts: bytes, raw: bool = False, model: str | None = None, **changes: Any
) -> Any:
    fields = {
        "name": target.input,
        "datatype": "BYTES",
        "shape": [len(texts)],
        **changes.pop("tensor", {}),
    }
    if raw:
        packed = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
        changes.setdefault("raw_input_contents", [packed])
    elif "raw_input_contents" not in changes:
        fields["contents"] = pb.InferTensorContents(bytes_contents=texts)
    tensor = pb.ModelInferRequest.InferInputTensor(**fields)
    return pb.ModelInferRequest(model_name=model or target.model, inputs=[tensor], **changes)


def test_health(target: Any, rpc: Any) -> None:
    assert call(target, rpc, "ServerLive", pb.ServerLiveRequest()).live
    assert call(target, rpc, "ServerReady", pb.ServerReadyRequest()).ready
    assert call(target, rpc, "ModelReady", pb.ModelReadyRequest(name=target.model)).ready


def test_metadata_is_rests(target: Any, rpc: Any) -> None:
    server, model = target.http.get("/v2").json(), target.http.get(target.v2()).json()
    answer = call(target, rpc, "ServerMetadata", pb.ServerMetadataRequest())
    assert (answer.name, answer.version, list(answer.extensions)) == tuple(server.values())
    answer = call(target, rpc, "ModelMetadata", pb.ModelMetadataRequest(name=target.model))
    assert list(answer.versions) == (model.get("versions") or [])
    for side in ("inputs", "outputs"):
        tensors = [
            {"name": t.name, "datatype": t.datatype, "shape": list(t.shape)}
            for t in getattr(answer, side)
        ]
        assert tensors == model[side]


def values(response: Any, index: int) -> list[Any]:
    """The elements of an output, typed or raw."""
    output = response.outputs[index]
    if not response.raw_output_contents:
        [(_, elements)] = output.contents.ListFields()
        return list(elements)
    raw = response.raw_output_contents[index]
    if output.datatype != "BYTES":
        return np.frombuffer(
            raw, {"FP32": "<f4", "FP64": "<f8", "BOOL": "?", "INT64": "<i8"}[output.datatype]
        ).tolist()
    elements, start = [], 0
    while start < len(raw):
        end = start + 4 + int.from_bytes(raw[start : start + 4], "little")
        elements.append(raw[start + 4 : end])
        start = end
    return elements


@pytest.mark.parametrize("raw", [False, True], ids=["typed", "raw"])
def test_it_says_what_rest_says(target: Any, rpc: Any, raw: bool) -> None:
    texts = ["a fine film", "ein schöner Film"]
    response = call(
        target, rpc, "ModelInfer", request(target, *(t.encode() for t in texts), raw=raw, id="42")
    )
    rest = target.infer(target.body(*texts)).json()
    assert (response.id, response.model_name) == ("42", target.model)
    assert bool(response.raw_output_contents) == raw
    assert [output.name for output in response.outputs] == [
        output["name"] for output in rest["outputs"]
    ]
    for index, output in enumerate(rest["outputs"]):
        assert list(response.outputs[index].shape) == output["shape"]
        contents = values(response, index)
        if output["datatype"] == "BYTES":
            assert [element.decode() for element in contents] == output["data"]
        else:
            np.testing.assert_allclose(
                np.array(contents, float), np.array(output["data"], float), rtol=1e-5
            )


def test_only_the_outputs_asked_for(target: Any, rpc: Any) -> None:
    name = target.infer(target.body()).json()["outputs"][-1]["name"]
    wanted = [pb.ModelInferRequest.InferRequestedOutputTensor(name=name)]
    response = call(target, rpc, "ModelInfer", request(target, b"a fine film", outputs=wanted))
    assert [output.name for output in response.outputs] == [name]


def test_a_version_that_metadata_names_can_be_asked(target: Any, rpc: Any) -> None:
    for version in target.http.get(target.v2()).json().get("versions") or [
        pytest.skip("no version is named")
    ]:
        response = call(target, rpc, "ModelInfer", request(target, b"a", model_version=version))
        assert response.model_version == version


CODE = grpc.StatusCode
MISTAKES: dict[str, tuple[Any, tuple[grpc.StatusCode, ...]]] = {
    "an unknown model": (lambda t: request(t, b"a", model="no-such-model"), (CODE.NOT_FOUND,)),
    "an unknown version": (
        lambda t: request(t, b"a", model_version="none"),
        (CODE.NOT_FOUND, CODE.INVALID_ARGUMENT),
    ),
    "no inputs": (lambda t: pb.ModelInferRequest(model_name=t.model), (CODE.INVALID_ARGUMENT,)),
    "an unknown input": (
        lambda t: request(t, b"a", tensor={"name": "x"}),
        (CODE.INVALID_ARGUMENT,),
    ),
    "another datatype": (
        lambda t: request(t, b"a", tensor={"datatype": "FP32"}),
        (CODE.INVALID_ARGUMENT,),
    ),
    "an unknown datatype": (
        lambda t: request(t, b"a", tensor={"datatype": "WORDS"}),
        (CODE.INVALID_ARGUMENT,),
    ),
    "a negative shape": (
        lambda t: request(t, b"a", tensor={"shape": [-5]}),
        (CODE.INVALID_ARGUMENT,),
    ),
    "a shape that differs": (
        lambda t: request(t, b"a", tensor={"shape": [2]}),
        (CODE.INVALID_ARGUMENT,),
    ),
    "no shape": (lambda t: request(t, b"a", tensor={"shape": []}), (CODE.INVALID_ARGUMENT,)),
    "a text that is not UTF-8": (lambda t: request(t, b"\xff"), (CODE.INVALID_ARGUMENT,)),
    "raw contents that are cut": (
        lambda t: request(t, raw_input_contents=[b"abc"]),
        (CODE.INVALID_ARGUMENT,),
    ),
    "more raw contents than inputs": (
        lambda t: request(t, raw_input_contents=[b"", b""]),
        (CODE.INVALID_ARGUMENT,),
    ),
    "an unknown output": (
        lambda t: request(
            t, b"a", outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="x")]
        ),
        (CODE.INVALID_ARGUMENT,),
    ),
    "an over-long text": (lambda t: request(t, b"word " * 100_000), (CODE.INVALID_ARGUMENT,)),
    "an oversize message": (
        lambda t: request(t, b"a" * (64 * 1024 * 1024)),
        (CODE.RESOURCE_EXHAUSTED,),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused(target: Any, rpc: Any, mistake: str) -> None:
    message, codes = MISTAKES[mistake]
    with pytest.raises(grpc.RpcError) as caught:
        call(target, rpc, "ModelInfer", message(target))
    assert caught.value.code() in codes, caught.value.details()
    for inside in ("Traceback", "object has no attribute", "Error:", "Exception"):
        assert inside not in caught.value.details()


@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata"])
def test_an_unknown_model_is_not_found(target: Any, rpc: Any, method: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(target, rpc, method, getattr(pb, f"{method}Request")(name="no-such-model"))
    assert caught.value.code() is CODE.NOT_FOUND


def test_a_deadline_is_kept(target: Any, rpc: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(
            target, rpc, "ModelInfer", request(target, *[b"a fine film " * 20] * 200), timeout=0.001
        )
    assert caught.value.code() is CODE.DEADLINE_EXCEEDED
    assert call(target, rpc, "ServerReady", pb.ServerReadyRequest()).ready
