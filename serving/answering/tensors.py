"""Requests of both protocols as instances, and answers as tensors: V2 is a typed view of V1."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from tasteloop.answers import SERVED_MODELS, Answer, Field
from tasteloop.behaviour.events import USER
from tasteloop.errors import TasteloopError

Instance = dict[str, Any]
"""One question as V1 has it, before it is parsed: JSON of the caller."""

_NUMPY = {"BYTES": np.object_, "FP32": np.float32, "BOOL": np.bool_}


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
class InferenceRequest:
    """A V2 request, over REST or gRPC.

    Attributes:
        parameters: those of the request and its inputs, without those about the transport.
        outputs: the names of the outputs that the caller wants, each with whether it shall be
            binary (None: as `binary` says); None: all outputs.
        binary: outputs are sent as binary data (REST) or as raw contents (gRPC).
    """

    id: str
    inputs: Sequence[Tensor]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, bool | None] | None = None
    binary: bool = False


@dataclass(frozen=True)
class InferenceResponse:
    """A V2 response, over REST or gRPC.

    Attributes:
        parameters: of the response; `histories`, as JSON, says which stored history was used.
    """

    id: str
    model: str
    version: str
    outputs: Sequence[Tensor]
    request: InferenceRequest
    parameters: Mapping[str, str] = field(default_factory=dict)


def v1_instances(body: object) -> object:
    """The instances of a V1 body; they are not checked.

    Raises:
        TasteloopError: it is no V1 body.
    """
    if not isinstance(body, Mapping) or "instances" not in body:
        raise TasteloopError('the body must be a JSON object {"instances": [...]}')
    unknown = sorted(set(body) - {"instances"})
    if unknown:
        raise TasteloopError(f'unknown field {unknown[0]!r} beside "instances"; known: instances')
    return body["instances"]


def v2_instances(
    model: str, inputs: Sequence[Tensor], parameters: Mapping[str, Any]
) -> list[Instance]:
    """V2's input tensor as V1's instances.

    >>> v2_instances("sentiment", [Tensor("text", "BYTES", (1,), [b"a warm film"])], {})
    [{'text': 'a warm film'}]

    Args:
        parameters: `user`, and `k`, the number of recommendations or interests, of the instances
            that do not have their own.

    Raises:
        TasteloopError: a tensor or parameter that the model does not take, or an element that is no
            instance.
    """
    input = SERVED_MODELS[model].input
    unknown = sorted(set(parameters) - {*input.options, USER})
    if unknown:
        known = ", ".join(sorted(input.options)) or "none"
        raise TasteloopError(f"unknown parameter {unknown[0]!r} for {model}; known: {known}")
    names = [tensor.name for tensor in inputs]
    if names != [input.field]:
        raise TasteloopError(f"{model} takes one input tensor named {input.field!r}; got {names}")
    elements = _elements(inputs[0])
    if input.is_text:
        return [{**parameters, input.field: element} for element in elements]
    return [{**parameters, **_parse(element, index)} for index, element in enumerate(elements)]


def v2_input(model: str, instance: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON input tensor that asks over V2 what a V1 instance asks."""
    input = SERVED_MODELS[model].input
    element = instance[input.field] if input.is_text else json.dumps(instance)
    return {"name": input.field, "datatype": "BYTES", "shape": [1], "data": [element]}


def to_tensors(model: str, answers: Sequence[Answer]) -> list[Tensor]:
    """Answers as V2's output tensors: [n] each, or [n, entries] of a ranked answer.

    A row with fewer entries than the widest of its request ends in padding: an empty label or item
    (a real one is never empty), 0, false, `[]`. So is a field that an entry need not have.
    """
    served = SERVED_MODELS[model]
    if served.ranking is None:
        shape: tuple[int, ...] = (len(answers),)
        return [_tensor(column, _values(column, answers), shape) for column in served.columns]
    ranked = [answer[served.ranking] for answer in answers]
    width = max(len(entries) for entries in ranked)
    tensors = []
    for column in served.columns:
        values: list[Any] = []
        for entries in ranked:
            values += _values(column, entries)
            values += [column.padding] * (width - len(entries))
        tensors.append(_tensor(column, values, (len(ranked), width)))
    return tensors


def from_v2(model: str, outputs: Sequence[Mapping[str, Any]], count: int) -> list[Answer]:
    """V2's JSON output tensors as V1's answers, without padding and without the fields that V2 does
    not carry.

    Args:
        count: of the instances of the request.

    Raises:
        ValueError: the tensors' shapes do not agree with it, or with the data.
    """
    # 1. rows, each with a value of every column
    served = SERVED_MODELS[model]
    columns = {output["name"]: output["data"] for output in outputs}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    # 2. their shape
    width = len(rows) // count if served.ranking else 1
    shape = [count, width] if served.ranking else [count]
    if count * width != len(rows) or any(output["shape"] != shape for output in outputs):
        raise ValueError(f"{len(rows)} elements in shapes other than {shape}")
    if served.ranking is None:
        return rows

    # 3. so many rows to an answer; one without a label is padding
    json_columns = [column.name for column in served.columns if column.is_json]
    absent = {column.name: column.padding for column in served.columns if column.is_optional}
    answers: list[Answer] = []
    for index in range(count):
        entries = []
        for row in rows[index * width : (index + 1) * width]:
            if row[served.label]:
                parsed = {name: orjson.loads(row[name]) for name in json_columns}
                there = {
                    name: value
                    for name, value in row.items()
                    if name not in absent or value != absent[name]
                }
                entries.append({**there, **parsed})
        answers.append({served.ranking: entries})
    return answers


def _values(column: Field, entries: Iterable[Answer]) -> list[Any]:
    """A field of every entry, as V2 carries it."""
    if column.is_json:
        return [
            json.dumps(entry[column.name], ensure_ascii=False, separators=(",", ":"))
            for entry in entries
        ]
    if column.is_optional or column.is_words:
        return [entry.get(column.name, column.padding) for entry in entries]
    return [entry[column.name] for entry in entries]


def _tensor(column: Field, values: list[Any], shape: tuple[int, ...]) -> Tensor:
    array: np.ndarray[Any, Any] = np.empty(int(np.prod(shape)), dtype=_NUMPY[column.datatype])
    array[:] = values
    return Tensor(column.name, column.datatype, shape, array.reshape(shape))


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
                f"element {index} of {where} is {json_kind(element)}; it must be a string"
            ) from None
    return strings


def _text(element: object) -> str:
    if not isinstance(element, str):
        raise TypeError
    # A JSON escape can spell half of a surrogate pair, which no later step could write: it raises.
    element.encode()
    return element


def _parse(element: str, index: int) -> Instance:
    try:
        # strict: it refuses NaN, half of a surrogate pair, and very deep nesting
        instance = orjson.loads(element)
    except ValueError as error:
        raise TasteloopError(f"instances[{index}] is not JSON: {error}") from None
    if not isinstance(instance, dict):
        raise TasteloopError(
            f'instances[{index}] is {json_kind(instance)}; it must be an object {{"events": [...]}}'
        )
    return instance


def json_kind(value: object) -> str:
    """The JSON name of a value's type, for messages."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "an object")
