"""A bundle as the answers that the server gives, without HTTP: V1 instances, V2 tensors and true
metadata.

Both protocols are views of one implementation, `tasteloop.runtime.session.Session.answer`, so that
a served answer equals the offline one whichever way it was asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.answering.tensors import Answer, Tensor, json_kind, to_tensors, v2_instances
from serving.settings import Limits
from tasteloop.answers import SERVED_MODELS, K
from tasteloop.errors import TasteloopError

if TYPE_CHECKING:
    from tasteloop.runtime.session import Session

MAXIMUM_EXPLAINED = 8  # instances: an explanation of interests reads a hundred texts
# answer rows that are about as long as an explained row: 27, after long histories 100
ROWS_OF_AN_EXPLANATION = 50

Question = Mapping[str, Any]
Metadata = dict[str, Any]


class Predictor:
    """Answers of one bundle, checked and computed in two steps so that the steps may run in two
    threads.

    Every method raises `TasteloopError` for what the caller did wrong, and only for that.
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
        """Load and verify a bundle; without a version its answers name the digest's first 12
        digits.
        """
        from tasteloop.runtime.session import Session

        session = Session.load(bundle)
        return cls(session, version or session.digest[:12], limits)

    def questions(self, model: str, instances: object, explain: bool = False) -> list[Question]:
        """V1's instances, checked, as `answer` takes them, or `explain`, which takes fewer at a
        time.

        Raises:
            TasteloopError: unknown model, no list, no instance, too many or too long, or a bad
                instance (its index is named).
        """
        from tasteloop.runtime.questions import parse

        self._known(model)
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
        for index, instance in enumerate(instances):
            self._check(instance, f"instances[{index}]")
        questions: list[Question] = list(parse(model, instances))
        if "k" in SERVED_MODELS[model].input.options:
            self._check_rows(questions, explain)
        return questions

    def answer(self, model: str, questions: Sequence[Question]) -> list[Answer]:
        """One answer for each question, in order; the questions may be of several requests."""
        answers: list[Answer] = self._session.compute(model, questions)
        return answers

    def explain(self, model: str, questions: Sequence[Question]) -> list[Answer]:
        """Why: `tasteloop.runtime.explain` of each question, in order."""
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
    ) -> list[Answer]:
        """`v2_instances` of a model that is there."""
        self._known(model)
        return v2_instances(model, inputs, parameters)

    def tensors(self, model: str, answers: Sequence[Answer]) -> list[Tensor]:
        """Answers as the output tensors named by `outputs(model)`; see `to_tensors`."""
        return to_tensors(model, answers)

    def inputs(self, model: str) -> list[Metadata]:
        """V2 metadata of the input tensor; -1 is a size of the caller's choice."""
        self._known(model)
        field = SERVED_MODELS[model].input.field
        return [{"name": field, "datatype": "BYTES", "shape": [-1]}]

    def outputs(self, model: str) -> list[Metadata]:
        """V2 metadata of the output tensors; -1 is a size that the question decides."""
        self._known(model)
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
            for instance in islice(of_model, 1):
                self.predict(model, [instance])

    def _known(self, model: str) -> None:
        if model not in self.models:
            raise TasteloopError(f"unknown model {model!r}; known: {', '.join(self.models)}")

    def _check(self, instance: object, where: str) -> None:
        """Sizes, before anything is done with what is sized."""
        if not isinstance(instance, dict):
            raise TasteloopError(f"{where} is {json_kind(instance)}; it must be a JSON object")
        _short(instance.get("text"), f"{where}.text", self.limits.characters)
        events = instance.get("events")
        if isinstance(events, list):
            if len(events) > self.limits.events:
                raise TasteloopError(
                    f"{where}.events: {len(events)} events in one history; send the last {self.limits.events}"
                )
            for index, event in enumerate(events):
                if isinstance(event, dict):
                    for name in ("text", "item"):
                        _short(
                            event.get(name),
                            f"{where}.events[{index}].{name}",
                            self.limits.characters,
                        )

    def _check_rows(self, questions: Sequence[Question], explain: bool) -> None:
        """What an answer's size and its computing depend on: V2's rows are all as wide as the
        widest, and every question of a request is ranked to the largest k.
        """
        k = max(question["k"] or K for question in questions)
        most = max(1, self.limits.rows // ROWS_OF_AN_EXPLANATION) if explain else self.limits.rows
        if len(questions) * k > most:
            rows = "explained rows" if explain else "answer rows"
            raise TasteloopError(
                f"{len(questions)} instances with k up to {k} are {len(questions) * k} {rows}; send at most {most} "
                "in one request: fewer instances or a smaller k"
            )


def _short(text: object, where: str, most: int) -> None:
    if isinstance(text, str) and len(text) > most:
        raise TasteloopError(f"{where}: {len(text)} characters; send at most {most}")
