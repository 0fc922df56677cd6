"""Bodies that nobody would write: each is answered or refused, never failed."""

from __future__ import annotations

import json
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)
SHAPES = st.lists(st.integers(-3, 3) | st.integers(), max_size=3) | JSON
DATATYPES = st.sampled_from(["BYTES", "FP32", "INT64", "BOOL", "FP16", "bytes", ""]) | JSON
often = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def written(body: Any) -> bytes:
    """JSON, and what Python writes beyond it: NaN and Infinity."""
    return json.dumps(body).encode()


def answered_or_refused(response: httpx.Response) -> None:
    assert response.status_code < 500, response.text[:500]
    if response.status_code >= 400:
        assert isinstance(response.json()["error"], str)
        assert "Traceback" not in response.text


@often
@given(body=JSON)
def test_any_json_as_v1(target: Any, body: Any) -> None:
    answered_or_refused(target.predict(written(body)))


@often
@given(
    instances=st.lists(
        st.fixed_dictionaries({}, optional={"text": JSON | st.text(), "more": JSON}), max_size=4
    )
)
def test_any_instances(target: Any, instances: Any) -> None:
    answered_or_refused(target.predict(written({"instances": instances})))


@often
@given(body=JSON)
def test_any_json_as_v2(target: Any, body: Any) -> None:
    answered_or_refused(target.infer(written(body)))


@often
@given(
    tensor=st.fixed_dictionaries(
        {},
        optional={
            "shape": SHAPES,
            "datatype": DATATYPES,
            "data": st.lists(JSON, max_size=4),
            "parameters": JSON,
        },
    ),
    more=st.fixed_dictionaries(
        {}, optional={"id": JSON, "parameters": JSON, "outputs": JSON, "inputs": JSON}
    ),
)
def test_any_tensor(target: Any, tensor: dict[str, Any], more: dict[str, Any]) -> None:
    answered_or_refused(
        target.infer(written({"inputs": [{**target.tensor("a"), **tensor}], **more}))
    )


@often
@given(
    body=st.binary(max_size=200),
    kind=st.sampled_from(["application/json", "application/octet-stream", "x/y"]),
)
def test_any_bytes(target: Any, body: bytes, kind: str) -> None:
    answered_or_refused(target.infer(body, headers={"content-type": kind}))
    answered_or_refused(target.predict(body, headers={"content-type": kind}))


@often
@given(contents=st.binary(max_size=40), size=st.integers(-2, 50) | JSON, shift=st.integers(-40, 40))
def test_any_binary_contents(target: Any, contents: bytes, size: Any, shift: int) -> None:
    tensor = {
        "name": target.input,
        "datatype": "BYTES",
        "shape": [1],
        "parameters": {"binary_data_size": size},
    }
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(max(0, len(head) + shift)),
    }
    answered_or_refused(target.infer(head + contents, headers=headers))


def test_it_is_still_there(target: Any) -> None:
    assert target.http.get("/v2/health/ready").status_code == 200
    assert target.infer(target.body()).status_code == 200
