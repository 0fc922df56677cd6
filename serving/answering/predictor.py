"""A bundle as the answers that the server gives, without HTTP: V1 instances, V2 tensors and true
metadata.

Both protocols are views of one implementation, `tasteloop.runtime.session.Session.answer`, so that
a served answer equals the offline one whichever way it was asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from serving.settings import Limits
from tasteloop.behaviour.events import USER
from tasteloop.errors import TasteloopError
from tasteloop.tasks import INTERESTS, RECOMMEND, SENTIMENT

if TYPE_CHECKING:
    from tasteloop.runtime.session import Session

MAXIMUM_EXPLAINED = 8  # instances: an explanation of interests reads a hundred texts
# answer rows that are about as long as an explained row: 27, after long histories 100
ROWS_OF_AN_EXPLANATION = 50

Answer = dict[str, Any]
Question = Mapping[str, Any]
Metadata = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Tensor:
    """A named V2 tensor.

    Args:
        datatype: `BYTES`, `FP32` or `BOOL`.
        shape: sizes as the caller declared them (inputs) or as they are (outputs).
        data: inputs: the flat elements, `str` or `bytes`; outputs: an array of `shape`, BYTES as
            objects (`str`).
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any


@dataclass(frozen=True)
class _Column:
    """One output tensor of a ranked answer: where its elements are found and what fills up a
    shorter row.
    """

    name: str
    datatype: str
    pick: Callable[[Answer], Any]
    padding: Any


def _reasons(recommendation: Answer) -> str:
    return json.dumps(recommendation["reasons"], ensure_ascii=False, separators=(",", ":"))


_RANKED = {
    INTERESTS: (
        "interests",
        (
            _Column("label", "BYTES", lambda entry: entry["label"], ""),
            _Column("probability", "FP32", lambda entry: entry["probability"], 0.0),
            _Column("predicted", "BOOL", lambda entry: entry["predicted"], False),
            _Column("confident", "BOOL", lambda entry: entry["confident"], False),
        ),
    ),
    RECOMMEND: (
        "recommendations",
        (
            _Column("item", "BYTES", lambda entry: entry["item"], ""),
            _Column("score", "FP32", lambda entry: entry["score"], 0.0),
            _Column("reasons", "BYTES", _reasons, "[]"),
        ),
    ),
}
_SENTIMENT = (
    _Column("sentiment", "BYTES", lambda answer: answer["sentiment"], ""),
    _Column("probability", "FP32", lambda answer: answer["probability"], 0.0),
    _Column("confident", "BOOL", lambda answer: answer["confident"], False),
)
_NUMPY = {"BYTES": np.object_, "FP32": np.float32, "BOOL": np.bool_}


def input_name(model: str) -> str:
    """What a model's one V2 input tensor is called."""
    return "text" if model == SENTIMENT else "events"


def v1_instances(body: object) -> object:
    """The instances of a V1 body, not checked themselves. Raises TasteloopError where it is no V1
    body.
    """
    if not isinstance(body, Mapping) or "instances" not in body:
        raise TasteloopError('the body must be a JSON object {"instances": [...]}')
    if unknown := sorted(set(body) - {"instances"}):
        raise TasteloopError(f'unknown field {unknown[0]!r} beside "instances"; known: instances')
    return body["instances"]


def v2_instances(
    model: str, inputs: Sequence[Tensor], parameters: Mapping[str, Any]
) -> list[Answer]:
    """V2's input tensor as V1's instances.

    Args:
        parameters: for instances that do not say: `user`, and `k`, the number of recommendations or
            interests.

    Raises:
        TasteloopError: another tensor or parameter than the model takes, or an element that is no
            instance.
    """
    allowed = set() if model == SENTIMENT else {"k"}
    if unknown := sorted(set(parameters) - allowed - {USER}):
        known = ", ".join(sorted(allowed)) or "none"
        raise TasteloopError(f"unknown parameter {unknown[0]!r} for {model}; known: {known}")
    names = [tensor.name for tensor in inputs]
    if names != [input_name(model)]:
        raise TasteloopError(
            f"{model} takes one input tensor named {input_name(model)!r}; got {names}"
        )
    elements = _elements(inputs[0])
    if model == SENTIMENT:
        return [{**parameters, "text": element} for element in elements]
    return [{**parameters, **_parse(element, index)} for index, element in enumerate(elements)]


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
        from tasteloop.runtime.session import parse

        self._known(model)
        if not isinstance(instances, list):
            raise TasteloopError(
                f'"instances" is {_kind(instances)}; it must be a list of JSON objects'
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
        if model != SENTIMENT:
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
        """Answers as the output tensors named by `outputs(model)`.

        A row with fewer entries than the widest of its request ends in padding: an empty label or
        item (a real one never is), 0, false, `[]`.
        """
        if model == SENTIMENT:
            shape = (len(answers),)
            return [_tensor(column, map(column.pick, answers), shape) for column in _SENTIMENT]
        key, columns = _RANKED[model]
        ranked = [answer[key] for answer in answers]
        width = max(len(entries) for entries in ranked)
        tensors = []
        for column in columns:
            values: list[Any] = []
            for entries in ranked:
                values += map(column.pick, entries)
                values += [column.padding] * (width - len(entries))
            tensors.append(_tensor(column, values, (len(ranked), width)))
        return tensors

    def inputs(self, model: str) -> list[Metadata]:
        """V2 metadata of the input tensor; -1 is a size of the caller's choice."""
        self._known(model)
        return [{"name": input_name(model), "datatype": "BYTES", "shape": [-1]}]

    def outputs(self, model: str) -> list[Metadata]:
        """V2 metadata of the output tensors."""
        self._known(model)
        if model == SENTIMENT:
            return [
                {"name": column.name, "datatype": column.datatype, "shape": [-1]}
                for column in _SENTIMENT
            ]
        _, columns = _RANKED[model]
        return [
            {"name": column.name, "datatype": column.datatype, "shape": [-1, -1]}
            for column in columns
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
            raise TasteloopError(f"{where} is {_kind(instance)}; it must be a JSON object")
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
        from tasteloop.runtime.session import K

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


def _elements(tensor: Tensor) -> list[str]:
    """The strings of a BYTES tensor of shape [n]."""
    where = f"input {tensor.name!r}"
    if tensor.datatype != "BYTES":
        raise TasteloopError(f"{where} has datatype {tensor.datatype}; it must be BYTES")
    if len(tensor.shape) != 1 or tensor.shape[0] < 1:
        raise TasteloopError(
            f"{where} has shape {list(tensor.shape)}; it must be [n] with n at least 1"
        )
    if len(tensor.data) != tensor.shape[0]:
        raise TasteloopError(
            f"{where} has shape {list(tensor.shape)} and {len(tensor.data)} elements"
        )
    strings = []
    for index, element in enumerate(tensor.data):
        try:
            strings.append(element.decode() if isinstance(element, bytes) else _text(element))
        except UnicodeError as error:
            raise TasteloopError(f"element {index} of {where} is not UTF-8: {error}") from None
        except TypeError:
            raise TasteloopError(
                f"element {index} of {where} is {_kind(element)}; it must be a string"
            ) from None
    return strings


def _text(element: object) -> str:
    if not isinstance(element, str):
        raise TypeError
    # a JSON escape can spell half of a surrogate pair, which no later step can write
    element.encode()
    return element


def _parse(element: str, index: int) -> Answer:
    try:
        # strict: no NaN, no half surrogate pairs, no bottomless nesting
        instance = orjson.loads(element)
    except ValueError as error:
        raise TasteloopError(f"instances[{index}] is not JSON: {error}") from None
    if not isinstance(instance, dict):
        raise TasteloopError(
            f'instances[{index}] is {_kind(instance)}; it must be an object {{"events": [...]}}'
        )
    return instance


def _tensor(column: _Column, values: Any, shape: tuple[int, ...]) -> Tensor:
    array: np.ndarray[Any, Any] = np.empty(int(np.prod(shape)), dtype=_NUMPY[column.datatype])
    array[:] = list(values)
    return Tensor(column.name, column.datatype, shape, array.reshape(shape))


def _kind(value: object) -> str:
    """The JSON name of a value's type, for messages."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "an object")
