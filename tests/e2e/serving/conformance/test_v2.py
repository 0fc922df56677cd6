"""Open Inference Protocol over REST, from the specification: what is answered, and what is refused
and how.
"""

from __future__ import annotations

import json
import math
from typing import Any

import httpx
import pytest

from tests.support.conformance import refused

DATATYPES = "BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 FP32 FP64 BYTES".split()  # noqa: SIM905


def metadata(target: Any) -> dict[str, Any]:
    answer: dict[str, Any] = target.http.get(target.v2()).json()
    return answer


# Health and metadata


def test_server_live(target: Any) -> None:
    response = target.http.get("/v2/health/live")
    assert (response.status_code, response.json()) == (200, {"live": True})


def test_server_ready(target: Any) -> None:
    response = target.http.get("/v2/health/ready")
    assert (response.status_code, response.json()) == (200, {"ready": True})


def test_server_metadata(target: Any) -> None:
    body = target.http.get("/v2").json()
    assert isinstance(body["name"], str) and isinstance(body["version"], str)
    assert all(isinstance(extension, str) for extension in body["extensions"])


def test_the_binary_extension_is_announced(target: Any) -> None:
    assert "binary_tensor_data" in target.http.get("/v2").json()["extensions"]


def test_model_ready(target: Any) -> None:
    response = target.http.get(target.v2("/ready"))
    assert (response.status_code, response.json()) == (200, {"name": target.model, "ready": True})


def test_model_metadata(target: Any) -> None:
    body = metadata(target)
    assert body["name"] == target.model and isinstance(body["platform"], str)
    assert body["inputs"] and body["outputs"], "no tensors are named"
    for tensor in [*body["inputs"], *body["outputs"]]:
        assert set(tensor) == {"name", "datatype", "shape"}
        assert tensor["datatype"] in DATATYPES
        assert all(isinstance(size, int) and size >= -1 for size in tensor["shape"])


def test_metadata_names_a_version(target: Any) -> None:
    assert all(isinstance(version, str) for version in metadata(target)["versions"])


@pytest.mark.parametrize("rest", ["", "/ready", "/infer"])
def test_a_version_that_metadata_names_can_be_asked(target: Any, rest: str) -> None:
    for version in metadata(target).get("versions") or [pytest.skip("no version is named")]:
        path = target.v2(f"/versions/{version}{rest}")
        response = (
            target.http.post(path, json=target.body())
            if rest == "/infer"
            else target.http.get(path)
        )
        assert response.status_code == 200, response.text


@pytest.mark.parametrize("rest", ["", "/ready", "/infer"])
def test_another_version_is_refused(target: Any, rest: str) -> None:
    path = target.v2(f"/versions/no-such-version{rest}")
    refused(
        target.http.post(path, json=target.body()) if rest == "/infer" else target.http.get(path),
        400,
        404,
    )


@pytest.mark.parametrize("rest", ["", "/ready", "/infer"])
def test_an_unknown_model_is_refused(target: Any, rest: str) -> None:
    path = f"/v2/models/no-such-model{rest}"
    refused(
        target.http.post(path, json=target.body()) if rest == "/infer" else target.http.get(path),
        400,
        404,
    )


def test_methods_are_named(target: Any) -> None:
    for method, path in (
        ("POST", "/v2/health/live"),
        ("GET", target.v2("/infer")),
        ("DELETE", target.v2()),
    ):
        response = target.http.request(method, path)
        refused(response, 405)
        assert response.headers["allow"]


# Inference


def inferred(target: Any, response: httpx.Response) -> dict[str, Any]:
    """A 200 with an inference response in which every tensor is as long as its shape says."""
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    assert body["model_name"] == target.model
    for tensor in body["outputs"]:
        assert tensor["datatype"] in DATATYPES
        assert len(tensor["data"]) == math.prod(tensor["shape"])
    return body


def test_inference(target: Any) -> None:
    body = inferred(
        target, target.infer(target.body("a fine film", "two hours that feel like five"))
    )
    assert body["outputs"]
    assert body.get("model_version") in (
        metadata(target).get("versions") or [body.get("model_version")]
    )


def test_outputs_are_as_metadata_says(target: Any) -> None:
    declared = {tensor["name"]: tensor for tensor in metadata(target)["outputs"]}
    outputs = inferred(target, target.infer(target.body("a", "b", "c")))["outputs"]
    assert [output["name"] for output in outputs] == list(declared)
    for output in outputs:
        wanted = declared[output["name"]]
        assert output["datatype"] == wanted["datatype"]
        assert len(output["shape"]) == len(wanted["shape"])
        assert all(
            size in (-1, actual)
            for size, actual in zip(wanted["shape"], output["shape"], strict=True)
        )


@pytest.mark.parametrize("name", ["42", "ä-ß-字", "x" * 500, " "])
def test_the_id_is_echoed(target: Any, name: str) -> None:
    assert inferred(target, target.infer(target.body(id=name)))["id"] == name


def test_the_same_question_has_the_same_answer(target: Any) -> None:
    first, second = (inferred(target, target.infer(target.body(id="1"))) for _ in range(2))
    assert first == second


def test_only_the_outputs_asked_for(target: Any) -> None:
    names = [tensor["name"] for tensor in metadata(target)["outputs"]] or ["sentiment"]
    for wanted in ([names[-1]], names[::-1]):
        body = inferred(
            target, target.infer(target.body(outputs=[{"name": name} for name in wanted]))
        )
        assert [output["name"] for output in body["outputs"]] == wanted


def test_empty_parameters_are_no_parameters(target: Any) -> None:
    body = target.body(parameters={})
    body["inputs"][0]["parameters"] = {}
    inferred(target, target.infer(body))


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
def test_json_is_json_under_every_spelling(target: Any, kind: str) -> None:
    content = json.dumps(target.body()).encode()
    inferred(target, target.infer(content, headers={"content-type": kind}))


def changed(**changes: Any) -> Any:
    return lambda target: {"inputs": [target.tensor("a fine film", **changes)]}


def without(name: str) -> Any:
    def body(target: Any) -> dict[str, Any]:
        tensor = target.tensor("a fine film")
        del tensor[name]
        return {"inputs": [tensor]}

    return body


MISTAKES: dict[str, Any] = {
    "empty body": lambda t: b"",
    "not JSON": lambda t: b"{",
    "not UTF-8": lambda t: b'\xff{"inputs": []}',
    "a list": lambda t: [],
    "a number": lambda t: 3,
    "null": lambda t: b"null",
    "bottomless nesting": lambda t: b"[" * 100_000,
    "NaN": lambda t: b'{"inputs": NaN}',
    "no inputs": lambda t: {},
    "inputs null": lambda t: {"inputs": None},
    "inputs a number": lambda t: {"inputs": 3},
    "inputs empty": lambda t: {"inputs": []},
    "an input that is a string": lambda t: {"inputs": ["a fine film"]},
    "two inputs of one name": lambda t: {"inputs": t.body()["inputs"] * 2},
    "an unknown input": changed(name="no_such_input"),
    "a name that is a number": changed(name=3),
    "no name": without("name"),
    "no datatype": without("datatype"),
    "no shape": without("shape"),
    "no data": without("data"),
    "data null": changed(data=None),
    "data a string": changed(data="a fine film"),
    "another datatype": changed(datatype="FP32", data=[1.0]),
    "an unknown datatype": changed(datatype="WORDS"),
    "a negative shape": changed(shape=[-5]),
    "a shape of zero": changed(shape=[0], data=[]),
    "a shape that is too large": changed(shape=[2]),
    "a shape beyond 64 bits": changed(shape=[2**70]),
    "a shape of another rank": changed(shape=[1, 1, 1]),
    "a fractional shape": changed(shape=[1.5]),
    "a shape of words": changed(shape=["x"]),
    "an element that is a number": changed(data=[3]),
    "an element that is null": changed(data=[None]),
    "an element that is an object": changed(data=[{}]),
    "half a surrogate pair": lambda t: json.dumps(t.body("\ud800")).encode(),
    "an id that is a number": lambda t: t.body(id=3),
    "parameters a list": lambda t: t.body(parameters=[]),
    "a parameter that is a list": lambda t: t.body(parameters={"x": []}),
    "outputs a string": lambda t: t.body(outputs="score"),
    "an unknown output": lambda t: t.body(outputs=[{"name": "no_such_output"}]),
    "an unknown field": lambda t: t.body(inptus=[]),
    "an unknown field of an input": changed(dtype="BYTES"),
    "an over-long text": lambda t: t.body("word " * 100_000),
    "too many instances": lambda t: t.body(*["a"] * 100_000),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused(target: Any, mistake: str) -> None:
    refused(target.infer(MISTAKES[mistake](target)))
    assert target.http.get("/v2/health/ready").status_code == 200


def test_an_oversize_body_is_refused(target: Any) -> None:
    refused(target.infer(b" " * (64 * 1024 * 1024)), 413)


# The binary tensor data extension


def packed(*elements: bytes) -> bytes:
    return b"".join(len(element).to_bytes(4, "little") + element for element in elements)


def binary(
    target: Any, document: Any, contents: bytes, length: str | None = None
) -> httpx.Response:
    head = json.dumps(document).encode()
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": length or str(len(head)),
    }
    return target.infer(head + contents, headers=headers)  # type: ignore[no-any-return]


def declared(target: Any, size: Any, **changes: Any) -> dict[str, Any]:
    tensor = {
        "name": target.input,
        "datatype": "BYTES",
        "shape": [1],
        "parameters": {"binary_data_size": size},
    }
    return {"inputs": [{**tensor, **changes}]}


def test_binary_input_says_what_json_says(target: Any) -> None:
    contents = packed("ein schöner Film".encode(), b"dull")
    document = {**declared(target, len(contents), shape=[2]), "id": "1"}
    response = inferred(target, binary(target, document, contents))
    assert response == inferred(
        target, target.infer(target.body("ein schöner Film", "dull", id="1"))
    )


@pytest.mark.parametrize("how", ["for the request", "for one output"])
def test_binary_outputs_say_what_json_says(target: Any, how: str) -> None:
    plain = inferred(target, target.infer(target.body("a fine film", "dull", id="1")))
    name = plain["outputs"][0]["name"]
    options = (
        {"parameters": {"binary_data_output": True}}
        if how == "for the request"
        else {"outputs": [{"name": name, "parameters": {"binary_data": True}}]}
    )
    response = target.infer(target.body("a fine film", "dull", id="1", **options))
    assert response.status_code == 200, response.text
    length = int(response.headers["inference-header-content-length"])
    body, contents = json.loads(response.content[:length]), response.content[length:]
    sizes = [output["parameters"]["binary_data_size"] for output in body["outputs"]]
    assert sum(sizes) == len(contents)
    assert all("data" not in output for output in body["outputs"])
    if plain["outputs"][0]["datatype"] == "BYTES":
        assert contents[: sizes[0]] == packed(
            *(text.encode() for text in plain["outputs"][0]["data"])
        )


BINARY_MISTAKES: dict[str, Any] = {
    "a length of words": lambda t: binary(t, declared(t, 5), packed(b"a"), "x"),
    "a negative length": lambda t: binary(t, declared(t, 5), packed(b"a"), "-1"),
    "a length beyond the body": lambda t: binary(t, declared(t, 5), packed(b"a"), "100000"),
    "contents that are cut": lambda t: binary(t, declared(t, 5), b"\x01\x00\x00"),
    "an element beyond its contents": lambda t: binary(t, declared(t, 5), b"\xff\xff\xff\xffa"),
    "contents after the last": lambda t: binary(t, declared(t, 5), packed(b"a") + b"more"),
    "a text that is not UTF-8": lambda t: binary(t, declared(t, 5), packed(b"\xff")),
    "a shape that differs": lambda t: binary(t, declared(t, 5, shape=[2]), packed(b"a")),
    "a size of words": lambda t: binary(t, declared(t, "x"), packed(b"a")),
    "a negative size": lambda t: binary(t, declared(t, -5), packed(b"a")),
    "a fractional size": lambda t: binary(t, declared(t, 5.0), packed(b"a")),
    "data and a size": lambda t: binary(t, declared(t, 5, data=["a"]), packed(b"a")),
    "no inputs": lambda t: binary(t, {}, b""),
    "a list": lambda t: binary(t, [], b""),
    "an input without a datatype": lambda t: binary(t, {"inputs": [{"name": t.input}]}, b""),
}


@pytest.mark.parametrize("mistake", BINARY_MISTAKES)
def test_a_binary_mistake_is_refused(target: Any, mistake: str) -> None:
    refused(BINARY_MISTAKES[mistake](target))
