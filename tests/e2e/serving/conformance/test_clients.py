"""The official kserve clients get what they expect."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

TEXTS = ["a fine film", "ein schöner Film"]


def tensor(target: Any, binary: bool) -> Any:
    from kserve import InferInput

    tensor = InferInput(target.input, [len(TEXTS)], "BYTES", None if binary else TEXTS)
    if binary:
        tensor.set_data_from_numpy(np.array([text.encode() for text in TEXTS], dtype=object))
    return tensor


def check(target: Any, response: Any) -> None:
    rest = target.infer(target.body(*TEXTS)).json()
    assert (response.id, response.model_name) == ("42", target.model)
    assert [output.name for output in response.outputs] == [
        output["name"] for output in rest["outputs"]
    ]
    for output, wanted in zip(response.outputs, rest["outputs"], strict=True):
        array = output.as_numpy()
        assert list(array.shape) == wanted["shape"]
        if wanted["datatype"] == "BYTES":
            texts = [
                value.decode() if isinstance(value, bytes) else value for value in array.ravel()
            ]
            assert texts == wanted["data"]
        else:
            np.testing.assert_allclose(
                array.ravel().astype(float), np.array(wanted["data"], float), rtol=1e-5
            )


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_rest_v2(target: Any, binary: bool) -> None:
    from kserve import InferenceRESTClient, InferRequest, RESTConfig

    async def ask() -> Any:
        async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=60)) as client:
            headers = dict(target.metadata())
            assert await client.is_server_live(target.url) and await client.is_server_ready(
                target.url
            )
            assert await client.is_model_ready(target.url, target.model, headers=headers)
            request = InferRequest(
                target.model,
                [tensor(target, binary)],
                request_id="42",
                parameters={"binary_data_output": binary},
            )
            return await client.infer(target.url, request, model_name=target.model, headers=headers)

    check(target, asyncio.run(ask()))


def test_rest_v1(target: Any) -> None:
    from kserve import InferenceRESTClient, RESTConfig

    async def ask() -> Any:
        async with InferenceRESTClient(RESTConfig(protocol="v1", timeout=60)) as client:
            body = {"instances": [{"text": text} for text in TEXTS]}
            return await client.infer(
                target.url, body, model_name=target.model, headers=dict(target.metadata())
            )

    assert len(asyncio.run(ask())["predictions"]) == len(TEXTS)


@pytest.mark.parametrize("raw", [False, True], ids=["typed", "raw"])
def test_grpc(target: Any, raw: bool) -> None:
    from kserve import InferenceGRPCClient, InferRequest

    if target.grpc is None:
        pytest.skip("no --grpc address")

    async def ask() -> Any:
        async with InferenceGRPCClient(target.grpc) as client:
            headers = target.metadata()
            assert await client.is_server_live() and await client.is_server_ready()
            assert await client.is_model_ready(target.model, headers=headers)
            request = InferRequest(target.model, [tensor(target, raw)], request_id="42")
            return await client.infer(request, headers=headers)

    check(target, asyncio.run(ask()))
