"""The Open Inference Protocol on the wire: REST as JSON or with binary tensor data, and gRPC.

All of them are read into one kind of request, and written from one kind of response.
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
        model: as the address named it; None: any model, where the address is not known.

    Raises:
        InvalidInput: where and what does not follow the protocol.
    """
    # 1. the JSON part
    length = len(body) if header_length is None else _json_length(header_length, len(body))
    try:
        request = _Request.model_validate_json(body[:length])
    except ValidationError as error:
        raise InvalidInput(describe_first_problem(error)) from None
    if model is not None and request.model_name not in (None, model):
        raise InvalidInput(
            f"model_name is {request.model_name!r}, but the address is that of {model!r}"
        )

    # 2. the inputs, whose binary data follow it in their order
    binary_data = memoryview(body)[length:]
    start = 0
    inputs = []
    parameters = _without_transport(request.parameters)
    for tensor in request.inputs:
        data, start = _read_data(tensor, binary_data, start)
        inputs.append(_tensor(tensor.name, tensor.datatype, tensor.shape, data))
        parameters |= _without_transport(tensor.parameters)
    if start != len(binary_data):
        raise InvalidInput(
            f"{len(binary_data) - start} bytes follow the binary data that the inputs declare"
        )

    # 3. which outputs, and how
    is_binary = _flag(request.parameters, "binary_data_output")
    outputs = None
    if request.outputs:
        outputs = {
            output.name: _flag(output.parameters, "binary_data") for output in request.outputs
        }
    return InferenceRequest(request.id or "", inputs, parameters, outputs, bool(is_binary))


def _json_length(header: str, size: int) -> int:
    """The length of a body's JSON part, by the header, of a body with so many bytes."""
    length = whole_number(header)
    if length is None or length > size:
        raise InvalidInput(
            f"Inference-Header-Content-Length is {header[:40]!r}; it must be the length of the JSON part, "
            f"at most the body's {size} bytes"
        )
    return length


def _read_data(tensor: _Input, binary_data: memoryview, start: int) -> tuple[list[Any], int]:
    """The elements of an input, and where the binary data of the next input begin."""
    size = (tensor.parameters or {}).get("binary_data_size")
    if size is None:
        if tensor.data is None:
            raise InvalidInput(f"input {tensor.name!r} has neither data nor binary_data_size")
        return _flatten(tensor.data), start
    left = len(binary_data) - start
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= left:
        raise InvalidInput(
            f"binary_data_size of input {tensor.name!r} is {size!r}; {left} bytes are left in the body"
        )
    if tensor.data is not None:
        raise InvalidInput(
            f"input {tensor.name!r} has both data and binary_data_size; send one of them"
        )
    end = start + size
    return _elements(tensor.name, tensor.datatype, bytes(binary_data[start:end])), end


def whole_number(text: str) -> int | None:
    """A header's digits as a number; None for other text, or for more digits than any size or time
    needs.

    `int` alone accepts other scripts' digits and signs, and raises at 4,300 digits.
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def to_rest(response: InferenceResponse) -> tuple[bytes, int | None]:
    """The body, and how many of its bytes are JSON; None where all are."""
    written, contents = [], []
    requested = response.request.outputs or {}
    for tensor in response.outputs:
        entry: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
        }
        is_binary = requested.get(tensor.name)
        if is_binary is None:
            is_binary = response.request.binary
        if is_binary:
            contents.append(_to_bytes(tensor))
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
            **({"parameters": response.parameters} if response.parameters else {}),
            "outputs": written,
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )
    return b"".join([head, *contents]), len(head) if contents else None


def from_grpc(request: Any) -> InferenceRequest:
    """Read a `ModelInferRequest`.

    Raises:
        InvalidInput: as `from_rest` does.
    """
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise InvalidInput(
            f"the number of inputs ({len(request.inputs)}) is not that of raw_input_contents ({len(raw)})"
        )
    inputs = []
    parameters = _without_transport(to_http_parameters(request.parameters))
    for index, tensor in enumerate(request.inputs):
        if raw and tensor.HasField("contents"):
            raise InvalidInput(
                f"input {tensor.name!r} has both contents and raw_input_contents; send one of them"
            )
        data = (
            _elements(tensor.name, tensor.datatype, raw[index]) if raw else _typed_contents(tensor)
        )
        inputs.append(_tensor(tensor.name, tensor.datatype, tensor.shape, data))
        parameters |= _without_transport(to_http_parameters(tensor.parameters))
    outputs = {output.name: None for output in request.outputs} or None
    return InferenceRequest(request.id, inputs, parameters, outputs, bool(raw))


def to_grpc(response: InferenceResponse) -> Any:
    """A `ModelInferResponse`: raw contents where the request's were raw, typed ones otherwise."""
    message = pb.ModelInferResponse(
        id=response.id, model_name=response.model, model_version=response.version
    )
    for name, value in response.parameters.items():
        message.parameters[name].string_param = value
    for tensor in response.outputs:
        output = message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if response.request.binary:
            message.raw_output_contents.append(_to_bytes(tensor))
        elif tensor.datatype == "BYTES":
            output.contents.bytes_contents.extend(
                element.encode() for element in tensor.data.ravel()
            )
        elif tensor.datatype == "BOOL":
            output.contents.bool_contents.extend(tensor.data.ravel().tolist())
        else:
            output.contents.fp32_contents.extend(tensor.data.ravel().tolist())
    return message


def describe_first_problem(error: ValidationError) -> str:
    """The first of pydantic's problems, such as `inputs.0.shape: Field required`, without the
    caller's data.
    """
    problem = error.errors(include_url=False, include_input=False)[0]
    if problem["type"] == "json_invalid":
        return f"the body is not JSON: {problem['ctx']['error']}"
    field = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{field}: unknown field"
    return f"{field or 'body'}: {problem['msg']}"


def _tensor(name: str, datatype: str, shape: Sequence[int], data: list[Any]) -> Tensor:
    if datatype not in DATATYPES:
        raise InvalidInput(
            f"input {name!r} has datatype {datatype!r}; known: {', '.join(DATATYPES)}"
        )
    return Tensor(name, datatype, tuple(shape), data)


def _typed_contents(tensor: Any) -> list[bytes]:
    """The typed contents of a BYTES tensor; the predictor refuses every other datatype."""
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
    if datatype != "BYTES":  # the predictor refuses it, and says which it takes
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


def _to_bytes(tensor: Tensor) -> bytes:
    """An output's binary contents: little-endian numbers, or elements as `_elements` reads them."""
    if tensor.datatype != "BYTES":
        little: bytes = tensor.data.astype(tensor.data.dtype.newbyteorder("<")).tobytes()
        return little
    parts = []
    for element in tensor.data.ravel():
        encoded = element.encode()
        parts += [struct.pack("<I", len(encoded)), encoded]
    return b"".join(parts)


def _flatten(data: list[Any]) -> list[Any]:
    """The elements in row-major order. The protocol allows nested arrays too, of any depth."""
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


def _without_transport(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """The parameters without those that say how data are sent."""
    transport = {"binary_data_output", "binary_data_size", "binary_data"}
    return {name: value for name, value in (parameters or {}).items() if name not in transport}


def _flag(parameters: Mapping[str, Any] | None, name: str) -> bool | None:
    value = (parameters or {}).get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidInput(f"parameter {name!r} is {value!r}; it must be true or false")
    return value
