"""The Open Inference Protocol on the wire: REST as JSON or with binary tensor data, and gRPC.

One request and one list of output tensors inside, whichever way they come and go.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from kserve.errors import InvalidInput
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.infer_type import to_http_parameters
from pydantic import BaseModel, StrictBool, StrictFloat, StrictInt, ValidationError

from serving.answering.tensors import InferenceRequest, InferenceResponse, Tensor

HEADER_LENGTH = "inference-header-content-length"
EXTENSION = "binary_tensor_data"
DATATYPES = [
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BYTES",
]  # the protocol's
_Parameters = dict[str, StrictBool | StrictInt | StrictFloat | str]


class _Input(BaseModel, frozen=True, extra="forbid"):
    name: str
    shape: list[StrictInt]
    datatype: str
    parameters: _Parameters | None = None
    data: list[Any] | None = None


class _Output(BaseModel, frozen=True, extra="forbid"):
    name: str
    parameters: _Parameters | None = None


class _Request(BaseModel, frozen=True, extra="forbid"):
    id: str | None = None
    model_name: str | None = None  # not the protocol's, but the official client sends it
    parameters: _Parameters | None = None
    inputs: list[_Input]
    outputs: list[_Output] | None = None


def from_rest(body: bytes, header_length: str | None, model: str | None) -> InferenceRequest:
    """Read a body that was sent to a model.

    Args:
        header_length: how many of the body's bytes are JSON; None: all.
        model: as the address named it; None: whichever, where the address is not known.

    Raises:
        InvalidInput: where and what does not follow the protocol.
    """
    length = len(body)
    if header_length is not None:
        given = whole_number(header_length)
        if given is None or given > len(body):
            raise InvalidInput(
                f"Inference-Header-Content-Length is {header_length[:40]!r}; it must be the length of the JSON part, "
                f"at most the body's {len(body)} bytes"
            )
        length = given
    try:
        request = _Request.model_validate_json(body[:length])
    except ValidationError as error:
        raise InvalidInput(first(error)) from None
    if model is not None and request.model_name not in (None, model):
        raise InvalidInput(
            f"model_name is {request.model_name!r}, but the address is that of {model!r}"
        )
    contents, start, inputs = memoryview(body)[length:], 0, []
    parameters = _own(request.parameters)
    for tensor in request.inputs:
        data: list[Any]
        size = (tensor.parameters or {}).get("binary_data_size")
        if size is not None:
            if (
                isinstance(size, bool)
                or not isinstance(size, int)
                or not 0 <= size <= len(contents) - start
            ):
                raise InvalidInput(
                    f"binary_data_size of input {tensor.name!r} is {size!r}; {len(contents) - start} bytes are left "
                    "in the body"
                )
            if tensor.data is not None:
                raise InvalidInput(
                    f"input {tensor.name!r} has both data and binary_data_size; send one of them"
                )
            data = _elements(tensor.name, tensor.datatype, bytes(contents[start : start + size]))
            start += size
        elif tensor.data is not None:
            data = _flat(tensor.data)
        else:
            raise InvalidInput(f"input {tensor.name!r} has neither data nor binary_data_size")
        inputs.append(_tensor(tensor.name, tensor.datatype, tensor.shape, data))
        parameters |= _own(tensor.parameters)
    if start != len(contents):
        raise InvalidInput(
            f"{len(contents) - start} bytes follow the binary data that the inputs declare"
        )
    binary = _flag(request.parameters, "binary_data_output")
    outputs = None
    if request.outputs:
        outputs = {
            output.name: _flag(output.parameters, "binary_data") for output in request.outputs
        }
    return InferenceRequest(request.id or "", inputs, parameters, outputs, bool(binary))


def whole_number(text: str) -> int | None:
    """A header's digits as a number; None for what is none, or has more digits than any size or
    time needs.

    `int` alone takes other scripts' digits and signs, and raises at 4,300 digits.
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def to_rest(response: InferenceResponse) -> tuple[bytes, int | None]:
    """The body, and how many of its bytes are JSON where it does not end with that."""
    written, contents = [], []
    asked = response.request.outputs or {}
    for tensor in response.outputs:
        entry: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
        }
        binary = asked.get(tensor.name)
        if response.request.binary if binary is None else binary:
            contents.append(_raw(tensor))
            entry["parameters"] = {"binary_data_size": len(contents[-1])}
        else:
            flat = tensor.data.ravel()
            entry["data"] = flat.tolist() if tensor.datatype == "BYTES" else flat
        written.append(entry)
    head = orjson.dumps(
        {
            "id": response.id,
            "model_name": response.model,
            "model_version": response.version,
            "outputs": written,
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )
    return b"".join([head, *contents]), len(head) if contents else None


def from_grpc(request: Any) -> InferenceRequest:
    """Read a `ModelInferRequest`. Raises InvalidInput as `from_rest` does."""
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise InvalidInput(
            f"the number of inputs ({len(request.inputs)}) is not that of raw_input_contents ({len(raw)})"
        )
    inputs, parameters = [], _own(to_http_parameters(request.parameters))
    for index, tensor in enumerate(request.inputs):
        if raw and tensor.HasField("contents"):
            raise InvalidInput(
                f"input {tensor.name!r} has both contents and raw_input_contents; send one of them"
            )
        contents = [] if raw else _typed(tensor)
        data = _elements(tensor.name, tensor.datatype, raw[index]) if raw else contents
        inputs.append(_tensor(tensor.name, tensor.datatype, tensor.shape, data))
        parameters |= _own(to_http_parameters(tensor.parameters))
    outputs = {output.name: None for output in request.outputs} or None
    return InferenceRequest(request.id, inputs, parameters, outputs, bool(raw))


def to_grpc(response: InferenceResponse) -> Any:
    """A `ModelInferResponse`: raw contents where the request's were raw, typed ones otherwise."""
    message = pb.ModelInferResponse(
        id=response.id, model_name=response.model, model_version=response.version
    )
    for tensor in response.outputs:
        output = message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if response.request.binary:
            message.raw_output_contents.append(_raw(tensor))
        elif tensor.datatype == "BYTES":
            output.contents.bytes_contents.extend(
                element.encode() for element in tensor.data.ravel()
            )
        elif tensor.datatype == "BOOL":
            output.contents.bool_contents.extend(tensor.data.ravel().tolist())
        else:
            output.contents.fp32_contents.extend(tensor.data.ravel().tolist())
    return message


def first(error: ValidationError) -> str:
    """The first of pydantic's problems as `inputs.0.shape: Field required`, without the caller's
    data.
    """
    problem = error.errors(include_url=False, include_input=False)[0]
    if problem["type"] == "json_invalid":
        return f"the body is not JSON: {problem['ctx']['error']}"
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{place}: unknown field"
    return f"{place or 'body'}: {problem['msg']}"


def _tensor(name: str, datatype: str, shape: Sequence[int], data: list[Any]) -> Tensor:
    if datatype not in DATATYPES:
        raise InvalidInput(
            f"input {name!r} has datatype {datatype!r}; known: {', '.join(DATATYPES)}"
        )
    return Tensor(name, datatype, tuple(shape), data)


def _typed(tensor: Any) -> list[Any]:
    """The typed contents, of which only BYTES is ever used: another datatype is refused by the
    predictor.
    """
    contents = tensor.contents
    filled = [name.name for name, _ in contents.ListFields()]
    if tensor.datatype == "BYTES" and filled not in ([], ["bytes_contents"]):
        raise InvalidInput(
            f"input {tensor.name!r} is BYTES, but its contents are {', '.join(filled)}"
        )
    return list(contents.bytes_contents)


def _elements(name: str, datatype: str, contents: bytes) -> list[bytes]:
    """The elements of a BYTES tensor: each its length as 4 little-endian bytes, then its
    content.
    """
    if datatype != "BYTES":  # refused by the predictor, which knows what it wants instead
        return []
    elements: list[bytes] = []
    start = 0
    while start < len(contents):
        end = start + 4
        if end <= len(contents):
            end += struct.unpack_from("<I", contents, start)[0]
        if end > len(contents) or end < start + 4:
            raise InvalidInput(
                f"the binary contents of input {name!r} end inside element {len(elements)}; an element is its "
                "length as 4 little-endian bytes, then its content"
            )
        elements.append(contents[start + 4 : end])
        start = end
    return elements


def _raw(tensor: Tensor) -> bytes:
    if tensor.datatype != "BYTES":
        little: bytes = tensor.data.astype(tensor.data.dtype.newbyteorder("<")).tobytes()
        return little
    encoded = [element.encode() for element in tensor.data.ravel()]
    return b"".join(
        part for element in encoded for part in (struct.pack("<I", len(element)), element)
    )


def _flat(data: list[Any]) -> list[Any]:
    """Row-major elements; the protocol allows nested arrays too, of any depth a body can hold."""
    if not any(isinstance(element, list) for element in data):
        return data
    flat: list[Any] = []
    pending = [iter(data)]
    while pending:
        for element in pending[-1]:
            if isinstance(element, list):
                pending.append(iter(element))
                break
            flat.append(element)
        else:
            pending.pop()
    return flat


def _own(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """Without the parameters that say how to answer rather than what."""
    transport = {"binary_data_output", "binary_data_size", "binary_data"}
    return {name: value for name, value in (parameters or {}).items() if name not in transport}


def _flag(parameters: Mapping[str, Any] | None, name: str) -> bool | None:
    value = (parameters or {}).get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidInput(f"parameter {name!r} is {value!r}; it must be true or false")
    return value
