"""KServe's V1 protocol: instances in, predictions out."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.conformance import refused

FINE = {"text": "a fine film"}


def test_alive(target: Any) -> None:
    assert target.http.get("/").json() == {"status": "alive"}


def test_models_are_listed(target: Any) -> None:
    assert target.model in target.http.get("/v1/models").json()["models"]


def test_model_ready(target: Any) -> None:
    response = target.http.get(f"/v1/models/{target.model}")
    assert (response.status_code, response.json()["ready"]) == (200, True)


def test_one_prediction_for_each_instance(target: Any) -> None:
    response = target.predict({"instances": [FINE, {"text": "dull"}, FINE]})
    assert response.status_code == 200, response.text
    first, second, third = response.json()["predictions"]
    assert first == third and first != second


@pytest.mark.parametrize("kind", [None, "application/json; charset=utf-8"])
def test_json_needs_no_exact_content_type(target: Any, kind: str | None) -> None:
    content = b'{"instances": [{"text": "a fine film"}]}'
    response = target.predict(content, headers={"content-type": kind} if kind else {})
    assert response.status_code == 200, response.text


def test_an_unknown_model_is_refused(target: Any) -> None:
    refused(target.http.get("/v1/models/no-such-model"), 400, 404)
    refused(
        target.http.post("/v1/models/no-such-model:predict", json={"instances": [FINE]}), 400, 404
    )


def test_methods_are_named(target: Any) -> None:
    for method, path in (("POST", "/v1/models"), ("GET", f"/v1/models/{target.model}:predict")):
        response = target.http.request(method, path)
        refused(response, 405)
        assert response.headers["allow"]


MISTAKES: dict[str, Any] = {
    "empty body": b"",
    "not JSON": b'{"instances": [',
    "not UTF-8": b'{"instances": [{"text": "\xff"}]}',
    "half a surrogate pair": b'{"instances": [{"text": "\\ud800"}]}',
    "bottomless nesting": b"[" * 100_000,
    "no instances": {},
    "a list": [],
    "a number": 3,
    "a string": "a fine film",
    "instances null": {"instances": None},
    "instances an object": {"instances": FINE},
    "instances empty": {"instances": []},
    "an instance that is null": {"instances": [None]},
    "an instance without its text": {"instances": [FINE, {}]},
    "an instance with a number": {"instances": [{"text": 3}]},
    "an instance with an unknown key": {"instances": [{**FINE, "txt": "a"}]},
    "an unknown field": {"instances": [FINE], "istances": []},
    "an over-long text": {"instances": [{"text": "word " * 100_000}]},
    "too many instances": {"instances": [{"text": "a"}] * 20_000},
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused(target: Any, mistake: str) -> None:
    refused(target.predict(MISTAKES[mistake]))
    assert target.http.get("/").status_code == 200


def test_an_oversize_body_is_refused(target: Any) -> None:
    refused(target.predict(b" " * (64 * 1024 * 1024)), 413)
