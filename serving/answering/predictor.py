"""The answers of a bundle, as V1 instances or V2 tensors, and the metadata of its models; without
HTTP.

Both protocols are views of one implementation, `tasteloop.runtime.session.Session.answer`, so that
a served answer equals the offline one, whichever protocol asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from serving.answering.tensors import Instance, Tensor, json_kind, to_tensors, v2_instances
from serving.settings import Limits
from tasteloop.answers import SERVED_MODELS, Answer, K
from tasteloop.errors import TasteloopError

if TYPE_CHECKING:
    from tasteloop.language.hearing import Hearing
    from tasteloop.runtime.questions import Question
    from tasteloop.runtime.session import Session

# Instances of one request for explanations: explaining interests encodes a hundred texts.
MAXIMUM_EXPLAINED = 8
# An explained row is about as long as so many answer rows: 27 were measured, after long histories
# 100.
ROWS_OF_AN_EXPLANATION = 50


class TensorMetadata(TypedDict):
    """A tensor as V2's metadata describe it; -1 in a shape is a size that is not fixed."""

    name: str
    datatype: str
    shape: list[int]


class Predictor:
    """The answers of one bundle. Checking and computing are two steps, which may run in two
    threads.

    Every method raises `TasteloopError` for a mistake of the caller, and only for that.
    """

    def __init__(self, session: Session, version: str, limits: Limits | None = None) -> None:
        self.version = version
        self.digest: str = session.digest
        self.models: tuple[str, ...] = session.models
        self.limits = limits or Limits()
        self._session = session

    @classmethod
    def load(
        cls, bundle: Path, version: str | None = None, limits: Limits | None = None
    ) -> Predictor:
        """Load and verify a bundle. Where no version is named, its answers name the first 12 digits
        of its digest.
        """
        from tasteloop.runtime.session import Session

        session = Session.load(bundle)
        return cls(session, version or session.digest[:12], limits)

    def questions(self, model: str, instances: object, explain: bool = False) -> list[Question]:
        """V1's instances, checked and parsed for `answer`, or for `explain`, which takes fewer at a
        time.

        Raises:
            TasteloopError: an unknown model, no list, an empty or too long list, or an instance
                that is too large or wrong (its index is named).
        """
        from tasteloop.runtime.questions import parse

        self._require_model(model)
        instances = self.counted(instances, explain)
        for index, instance in enumerate(instances):
            self._check_sizes(instance, f"instances[{index}]")
        questions: list[Question] = list(parse(model, instances))
        if "k" in SERVED_MODELS[model].input.options:
            self._check_rows(questions, explain)
        return questions

    def counted(self, instances: object, explain: bool = False) -> list[Any]:
        """V1's instances as a list of a length that is allowed, before anything is done with them.

        Raises:
            TasteloopError: no list, or an empty or too long one.
        """
        if not isinstance(instances, list):
            raise TasteloopError(
                f'"instances" is {json_kind(instances)}; it must be a list of JSON objects'
            )
        if not instances:
            raise TasteloopError('"instances" is empty; send at least one')
        most = min(self.limits.instances, MAXIMUM_EXPLAINED) if explain else self.limits.instances
        if len(instances) > most:
            raise TasteloopError(
                f"{len(instances)} instances in one request; send at most {most} at a time"
            )
        return instances

    def answer(self, model: str, questions: Sequence[Question]) -> list[Answer]:
        """One answer for each question, in order; the questions may be of several requests."""
        answers: list[Answer] = self._session.compute(model, questions)
        return answers

    def heard(
        self, model: str, questions: Sequence[Question], hearing: Hearing
    ) -> list[dict[str, Any]]:
        """`Session.heard`."""
        return self._session.heard(model, questions, hearing)

    def explain(self, model: str, questions: Sequence[Question]) -> list[Answer]:
        """The explanation of each question's answer, in order; see `tasteloop.runtime.explain`."""
        from tasteloop.runtime.explain import explain

        return explain(self._session, model, questions)

    def predict(self, model: str, instances: object) -> list[Answer]:
        """V1: `questions`, then `answer`."""
        return self.answer(model, self.questions(model, instances))

    def infer(
        self, model: str, inputs: Sequence[Tensor], parameters: Mapping[str, Any]
    ) -> list[Tensor]:
        """V2: `instances`, `predict`, then `tensors`."""
        return self.tensors(model, self.predict(model, self.instances(model, inputs, parameters)))

    def instances(
        self, model: str, inputs: Sequence[Tensor], parameters: Mapping[str, Any]
    ) -> list[Instance]:
        """V2's input tensor as V1's instances; see `v2_instances`."""
        self._require_model(model)
        return v2_instances(model, inputs, parameters)

    def tensors(self, model: str, answers: Sequence[Answer]) -> list[Tensor]:
        """Answers as the output tensors named by `outputs(model)`; see `to_tensors`."""
        return to_tensors(model, answers)

    def inputs(self, model: str) -> list[TensorMetadata]:
        """V2 metadata of the input tensor; the caller chooses its size."""
        self._require_model(model)
        field = SERVED_MODELS[model].input.field
        return [{"name": field, "datatype": "BYTES", "shape": [-1]}]

    def outputs(self, model: str) -> list[TensorMetadata]:
        """V2 metadata of the output tensors; the questions decide their sizes."""
        self._require_model(model)
        served = SERVED_MODELS[model]
        shape = [-1, -1] if served.ranking else [-1]
        return [
            {"name": column.name, "datatype": column.datatype, "shape": list(shape)}
            for column in served.columns
        ]

    def warm_up(self, bundle: Path) -> None:
        """Ask the bundle's first golden question of each model, so that the first caller does not
        wait.
        """
        questions = json.loads((bundle / "golden.json").read_text())["questions"]
        for model in self.models:
            of_model = (
                question["instance"] for question in questions if question["model"] == model
            )
            for instance in islice(of_model, 1):  # none, where the bundle has no question for it
                self.predict(model, [instance])

    def _require_model(self, model: str) -> None:
        if model not in self.models:
            raise TasteloopError(f"unknown model {model!r}; known: {', '.join(self.models)}")

    def _check_sizes(self, instance: object, where: str) -> None:
        """Check the sizes of an instance, before anything is done with it."""
        if not isinstance(instance, dict):
            raise TasteloopError(f"{where} is {json_kind(instance)}; it must be a JSON object")
        most = self.limits.characters
        _check_length(instance.get("text"), f"{where}.text", most)
        events = instance.get("events")
        if not isinstance(events, list):
            return
        if len(events) > self.limits.events:
            raise TasteloopError(
                f"{where}.events: {len(events)} events in one history; send the last {self.limits.events}"
            )
        for index, event in enumerate(events):
            if isinstance(event, dict):
                for name in ("text", "item"):
                    _check_length(event.get(name), f"{where}.events[{index}].{name}", most)

    def _check_rows(self, questions: Sequence[Question], explain: bool) -> None:
        """Check the number of rows, on which the size of the answer and its computing depend. Every
        question of a request counts with the largest k: they are ranked together, and V2's rows are
        all as wide as the widest.
        """
        k = max(question["k"] or K for question in questions)
        most = max(1, self.limits.rows // ROWS_OF_AN_EXPLANATION) if explain else self.limits.rows
        if len(questions) * k > most:
            rows = "explained rows" if explain else "answer rows"
            raise TasteloopError(
                f"{len(questions)} instances with k up to {k} are {len(questions) * k} {rows}; send at most {most} "
                "in one request: fewer instances or a smaller k"
            )


def _check_length(text: object, where: str, most: int) -> None:
    if isinstance(text, str) and len(text) > most:
        raise TasteloopError(f"{where}: {len(text)} characters; send at most {most}")
