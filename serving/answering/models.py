"""The predictor as `kserve.Model`s: `interests`, `recommend` and `sentiment` over V1, V2 REST and
gRPC.
"""

from __future__ import annotations

import asyncio
from typing import Any

import kserve
import orjson
from kserve import ModelRepository
from kserve.errors import InvalidInput, ModelNotFound

from serving.answering.batching import Batcher, DeadlineExceeded
from serving.answering.call import CALL, Call
from serving.answering.live import Live
from serving.answering.predictor import Predictor, TensorMetadata
from serving.answering.tensors import InferenceRequest, InferenceResponse, v1_instances
from tasteloop.answers import HISTORY, SERVED_MODELS, Answer, explained_models, why_absent

# From so many instances on, a request is checked in another thread, so that the event loop goes on
# with its other requests.
_MANY = 8


class TasteModel(kserve.Model):  # type: ignore[misc]  # kserve has no type information
    """One of the models: it checks in the event loop and computes in the batcher's thread."""

    def __init__(self, name: str, batcher: Batcher) -> None:
        super().__init__(name)
        self._batcher = batcher
        self.ready = True

    def get_input_types(self) -> list[TensorMetadata]:
        return self._batcher.live.current.inputs(self.name)

    def get_output_types(self) -> list[TensorMetadata]:
        return self._batcher.live.current.outputs(self.name)

    async def predict(
        self,
        payload: Any,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> dict[str, Any] | InferenceResponse:
        """Answer a V1 body (`dict`) or a V2 request, for the call of the current task.

        Raises:
            TasteloopError, InvalidInput: the caller's mistake, with what was wrong.
            ModelNotFound: a version that is not served.
            QueueFull, DeadlineExceeded: see `Batcher.ask`.
        """
        call, predictor = self._begin()
        if isinstance(payload, InferenceRequest):
            return await self._infer(call, predictor, payload)
        instances = v1_instances(payload)
        predictor, answers = await self._ask(call, predictor, instances)
        return {
            "predictions": answers,
            "model_version": predictor.version,
            **_histories_field(call),
        }

    async def explain(self, payload: Any, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """Answer a V1 `:explain`. V2 has no such verb.

        Raises:
            NotImplementedError: this model is not explained.
        """
        if not SERVED_MODELS[self.name].is_explained:
            known = " and ".join(explained_models())
            raise NotImplementedError(f"{self.name} has no explainer; {known} have")
        call, predictor = self._begin()
        call.explain = True
        instances = v1_instances(payload)
        predictor, explanations = await self._ask(call, predictor, instances)
        return {
            "explanations": explanations,
            "model_version": predictor.version,
            **_histories_field(call),
        }

    def _begin(self) -> tuple[Call, Predictor]:
        """The call of the current task, and which predictor would answer it now."""
        call = CALL.get()
        call.model = self.name
        predictor = self._batcher.live.pick(call)
        if predictor is None:
            raise ModelNotFound(
                f"{self.name} version {call.version}" if call.version else self.name
            )
        return call, predictor

    async def _infer(
        self, call: Call, predictor: Predictor, request: InferenceRequest
    ) -> InferenceResponse:
        known = [output["name"] for output in predictor.outputs(self.name)]
        for name in request.outputs or ():
            if name not in known:
                raise InvalidInput(f"unknown output {name!r}; known: {', '.join(known)}")
        instances = predictor.instances(self.name, request.inputs, request.parameters)
        predictor, answers = await self._ask(call, predictor, instances)
        outputs = predictor.tensors(self.name, answers)
        if request.outputs is not None:
            by_name = {output.name: output for output in outputs}
            outputs = [by_name[name] for name in request.outputs]
        return InferenceResponse(
            request.id or call.id,
            self.name,
            predictor.version,
            outputs,
            request,
            {name: orjson.dumps(value).decode() for name, value in _histories_field(call).items()},
        )

    async def _ask(
        self, call: Call, predictor: Predictor, instances: Any
    ) -> tuple[Predictor, list[Answer]]:
        instances = self._batcher.live.admit(call, instances)
        histories = self._batcher.live.histories
        if histories is not None and SERVED_MODELS[self.name].input is HISTORY:
            instances = predictor.counted(instances, call.explain)
            try:
                async with asyncio.timeout_at(call.deadline):
                    instances, call.histories = await histories.resolve(instances, call.users)
            except TimeoutError:
                raise DeadlineExceeded(
                    "the deadline passed before the histories were read"
                ) from None
        if isinstance(instances, list) and len(instances) > _MANY:
            questions = await asyncio.to_thread(
                predictor.questions, self.name, instances, call.explain
            )
        else:
            questions = predictor.questions(self.name, instances, call.explain)
        if call.histories:
            from tasteloop.runtime.questions import with_exceptions

            questions = with_exceptions(
                questions, [None if use is None else use.exceptions for use in call.histories]
            )
        answered = await self._batcher.ask(call, instances, questions)
        self._batcher.live.allow_feedback(call)
        return answered


def _histories_field(call: Call) -> dict[str, Any]:
    """The field of a response that says which history each instance used; none where none was."""
    if not any(call.histories):
        return {}
    return {"histories": [None if use is None else use.json() for use in call.histories]}


class Models(ModelRepository):  # type: ignore[misc]
    """The models of the live predictor, without those that the admin took out of service."""

    def __init__(self, batcher: Batcher) -> None:
        super().__init__()
        self._batcher = batcher
        self._known: dict[str, TasteModel] = {}
        self._unloaded: set[str] = set()

    @property
    def live(self) -> Live:
        return self._batcher.live

    def get_models(self) -> dict[str, TasteModel]:
        return {
            name: self._model(name)
            for name in self.live.current.models
            if name not in self._unloaded
        }

    def get_model(self, name: str) -> TasteModel:
        model = self.get_models().get(name)
        if model is None:
            raise self.not_found(name)
        return model

    def not_found(self, name: str) -> ModelNotFound:
        """The error for a model that does not answer. It says why, where another bundle might have
        the model.
        """
        error = ModelNotFound(name)
        if name in SERVED_MODELS and name not in self.live.current.models:
            error.reason = why_absent(name)
        return error

    async def is_model_ready(self, name: str) -> bool:
        return name in self.get_models()

    def load(self, name: str) -> bool:
        """Put a model back into service. No file is read: the bundle was read when it was swapped
        in.
        """
        self._require_known(name)
        self._unloaded.discard(name)
        return True

    def unload(self, name: str) -> None:
        self._require_known(name)
        self._unloaded.add(name)

    def _require_known(self, name: str) -> None:
        if name not in self.live.current.models:
            raise self.not_found(name)

    def _model(self, name: str) -> TasteModel:
        return self._known.setdefault(name, TasteModel(name, self._batcher))
