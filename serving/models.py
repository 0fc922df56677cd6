"""The predictor as `kserve.Model`s: `interests`, `recommend` and `sentiment` over V1, V2 REST and gRPC."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import Any

import kserve
import numpy as np
from kserve.errors import InvalidInput, ModelNotFound
from kserve.protocol.infer_type import (
    InferInput,
    InferOutput,
    InferRequest,
    InferResponse,
    deserialize_bytes_tensor,
    to_http_parameters,
)

from serving.predictor import INTERESTS, RECOMMEND, SENTIMENT, Metadata, Predictor, Tensor
from tasteloop.errors import TasteloopError

# How to answer, in kserve's own parameters, rather than what: these do not reach the predictor.
_TRANSPORT_PARAMETERS = {"binary_data_output", "binary_data_size", "binary_data"}


class TasteModel(kserve.Model):  # type: ignore[misc]  # kserve has no type information
    """One of the predictor's models. It computes in `executor`: the event loop is free for health checks."""

    def __init__(self, name: str, predictor: Predictor, executor: Executor) -> None:
        super().__init__(name)
        self.version = predictor.version
        self._predictor = predictor
        self._executor = executor
        self.ready = True

    def get_input_types(self) -> list[Metadata]:
        return self._predictor.inputs(self.name)

    def get_output_types(self) -> list[Metadata]:
        return self._predictor.outputs(self.name)

    async def predict(
        self,
        payload: Any,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> dict[str, Any] | InferResponse:
        """Answer a V1 body (`dict`) or a V2 request (`InferRequest`).

        Raises:
            InvalidInput: the caller's mistake, with what was wrong.
            ModelNotFound: a version that is not the one served.
        """
        if isinstance(payload, InferRequest):
            return await self._infer(payload)
        instances = _instances(payload)
        answers = await self._compute(partial(self._predictor.predict, self.name, instances))
        return {"predictions": answers, "model_version": self.version}

    async def explain(self, payload: Any, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """Answer a V1 `:explain`, of interests and recommend; V2 has no such verb."""
        if self.name == SENTIMENT:
            raise NotImplementedError(f"{self.name} has no explainer; {INTERESTS} and {RECOMMEND} have")
        instances = _instances(payload)
        found = await self._compute(partial(self._predictor.explain, self.name, instances))
        return {"explanations": found, "model_version": self.version}

    async def _infer(self, request: InferRequest) -> InferResponse:
        if request.model_version and request.model_version != self.version:
            raise ModelNotFound(f"{self.name} version {request.model_version}")
        _refuse_surrogates(request.id)
        inputs = [_tensor(tensor) for tensor in request.inputs]
        parameters = _parameters(request.parameters)
        for tensor in request.inputs:
            parameters |= _parameters(tensor.parameters)
        outputs = await self._compute(partial(self._predictor.infer, self.name, inputs, parameters))
        if request.request_outputs:
            by_name = {output.name: output for output in outputs}
            for requested in request.request_outputs:
                if requested.name not in by_name:
                    raise InvalidInput(f"unknown output {requested.name!r}; known: {', '.join(by_name)}")
            outputs = [by_name[requested.name] for requested in request.request_outputs]
        # Over gRPC kserve writes lists typed and arrays raw, and fails on arrays flagged as binary.
        raw = bool(request.use_binary_outputs)
        return InferResponse(
            response_id=request.id or str(uuid.uuid4()),
            model_name=self.name,
            model_version=self.version,
            infer_outputs=[
                InferOutput(
                    name=output.name,
                    shape=list(output.shape),
                    datatype=output.datatype,
                    data=output.data if raw or not request.from_grpc else output.data.ravel().tolist(),
                )
                for output in outputs
            ],
            requested_outputs=request.request_outputs,
            use_binary_outputs=raw and not request.from_grpc,
        )

    async def _compute(self, work: Callable[[], Any]) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except TasteloopError as error:
            raise InvalidInput(str(error)) from None


def _refuse_surrogates(text: str | None) -> None:
    """A JSON escape can spell half of a surrogate pair, which cannot be echoed."""
    try:
        (text or "").encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"the request's id is not UTF-8: {error}") from None


def _instances(body: object) -> object:
    if not isinstance(body, Mapping) or "instances" not in body:
        raise InvalidInput('the body must be a JSON object {"instances": [...]}')
    if unknown := sorted(set(body) - {"instances"}):
        raise InvalidInput(f'unknown field {unknown[0]!r} beside "instances"; known: instances')
    return body["instances"]


def _tensor(tensor: InferInput) -> Tensor:
    data = tensor.data
    if tensor._raw_data is not None:
        try:
            data = list(deserialize_bytes_tensor(tensor._raw_data)) if tensor.datatype == "BYTES" else []
        except Exception:
            raise InvalidInput(
                f"the raw contents of input {tensor.name!r} are not BYTES: each element is its length "
                "as 4 little-endian bytes, then its content"
            ) from None
    if isinstance(data, np.ndarray):
        data = data.ravel().tolist()
    return Tensor(tensor.name, tensor.datatype, tuple(tensor.shape), data or [])


def _parameters(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """Plain values of REST parameters or of gRPC's `InferParameter` messages, without the transport's own."""
    plain: dict[str, Any] = to_http_parameters(parameters or {})
    return {name: value for name, value in plain.items() if name not in _TRANSPORT_PARAMETERS}
