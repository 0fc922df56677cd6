"""The server does what its OpenAPI document says: schemathesis makes the requests, valid and invalid."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance


@pytest.fixture
def document(target: Any) -> Any:
    headers = dict(target.metadata())
    return schemathesis.openapi.from_url(f"{target.url}/openapi.json", headers=headers)


schema = schemathesis.pytest.from_fixture("document")


@schema.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_document_is_true(case: Any, target: Any) -> None:
    # A JSON schema cannot say that a tensor has as many elements as its shape, so not every valid one is accepted.
    excluded = [positive_data_acceptance] if "/infer" in case.path else []
    case.call_and_validate(headers=dict(target.metadata()), excluded_checks=excluded, timeout=60)


def test_the_document_names_the_model(target: Any) -> None:
    paths = target.http.get("/openapi.json").json()["paths"]
    assert any(target.model in path for path in paths)
