"""The Open Inference Protocol on the wire: what was written is read, in each of its forms."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from kserve.errors import InvalidInput
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.infer_type import InferInput, InferRequest, InferResponse

from serving.answering.tensors import InferenceRequest, InferenceResponse, Tensor
from serving.http import v2

TEXTS = st.lists(st.text(max_size=20), min_size=1, max_size=5)


def elements(request: InferenceRequest) -> list[str]:
    return [e.decode() if isinstance(e, bytes) else e for e in request.inputs[0].data]


def outputs(texts: list[str]) -> list[Tensor]:
    n = len(texts)
    return [
        Tensor("label", "BYTES", (n, 1), np.array(texts, object).reshape(n, 1)),
        Tensor("probability", "FP32", (n,), np.linspace(0, 1, n, dtype=np.float32)),
        Tensor("predicted", "BOOL", (n,), np.arange(n) % 2 == 0),
    ]


@given(TEXTS)
def test_what_the_official_client_writes_is_read(texts: list[str]) -> None:
    for binary in (False, True):
        tensor = InferInput("text", [len(texts)], "BYTES", None if binary else texts)
        if binary:
            tensor.set_data_from_numpy(np.array([t.encode() for t in texts], object))
        request = InferRequest("m", [tensor], request_id="7")
        body, length = request.to_rest()
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        read = v2.from_rest(content, None if length is None else str(length), "m")
        assert (read.id, elements(read), read.inputs[0].shape) == ("7", texts, (len(texts),))
        over_grpc = v2.from_grpc(request.to_grpc())
        assert (over_grpc.id, elements(over_grpc), over_grpc.binary) == ("7", texts, binary)


@given(TEXTS, st.booleans())
def test_what_is_written_is_read_by_the_official_client(texts: list[str], binary: bool) -> None:
    request = InferenceRequest("7", [], binary=binary)
    response = InferenceResponse("7", "m", "3", outputs(texts), request)
    body, length = v2.to_rest(response)
    read = InferResponse.from_bytes(body, len(body) if length is None else length)
    message = v2.to_grpc(response)
    over_grpc = InferResponse.from_grpc(
        pb.ModelInferResponse.FromString(message.SerializeToString())
    )
    assert (over_grpc.id, over_grpc.model_name, over_grpc.model_version) == ("7", "m", "3")
    for answer in (read, over_grpc):
        label, probability, predicted = (output.as_numpy() for output in answer.outputs)
        assert [t.decode() if isinstance(t, bytes) else t for t in label.ravel()] == texts
        np.testing.assert_array_equal(probability, outputs(texts)[1].data)
        np.testing.assert_array_equal(predicted, outputs(texts)[2].data)
        assert label.shape == (len(texts), 1)


def test_each_output_may_be_binary_or_not() -> None:
    request = InferenceRequest(
        "", [], outputs={"label": True, "probability": False, "predicted": None}, binary=True
    )
    body, length = v2.to_rest(InferenceResponse("1", "m", "3", outputs(["ä", "b"]), request))
    label, probability, predicted = json.loads(body[:length])["outputs"]
    assert label["parameters"] == {"binary_data_size": 11} and "data" not in label
    assert probability["data"] == [0.0, 1.0]
    assert predicted["parameters"] == {"binary_data_size": 2}
    assert body[length:] == b"\x02\0\0\0\xc3\xa4\x01\0\0\0b\x01\0"


@given(st.recursive(st.text(max_size=3), lambda inner: st.lists(inner, max_size=3), max_leaves=20))
def test_nested_data_is_row_major(data: Any) -> None:
    def flat(value: Any) -> list[str]:
        return (
            [part for element in value for part in flat(element)]
            if isinstance(value, list)
            else [value]
        )

    body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [data]}]}
    assert list(v2.from_rest(json.dumps(body).encode(), None, "m").inputs[0].data) == flat(data)


def test_parameters_about_the_transport_stay_outside() -> None:
    body = {
        "parameters": {"k": 3, "binary_data_output": True},
        "inputs": [
            {
                "name": "t",
                "datatype": "BYTES",
                "shape": [1],
                "data": ["a"],
                "parameters": {"more": "x"},
            }
        ],
    }
    request = v2.from_rest(json.dumps(body).encode(), None, "m")
    assert (request.parameters, request.binary) == ({"k": 3, "more": "x"}, True)


@given(st.binary(max_size=60), st.none() | st.text(max_size=5) | st.integers(0, 70).map(str))
def test_any_bytes_are_read_or_refused(body: bytes, length: str | None) -> None:
    try:
        v2.from_rest(body, length, "m")
    except InvalidInput as error:
        assert str(error)
