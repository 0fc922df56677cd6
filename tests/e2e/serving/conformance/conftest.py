"""Protocol conformance of any server: `pytest tests/e2e/serving/conformance --server URL [--grpc
HOST:PORT]`.

Without --server the suite starts ours. A server is asked for one model (--model) whose V2 input is
one BYTES tensor of texts; it needs no data of ours.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.conformance import Target


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption(
        "--server", metavar="URL", help="the server to test; ours is started where this is absent"
    )
    group.addoption(
        "--grpc", metavar="HOST:PORT", help="its gRPC address; without it gRPC is skipped"
    )
    group.addoption("--model", default="sentiment", help="the model to ask (default: sentiment)")
    group.addoption("--token", help="a bearer token, where the server asks for one")


def pytest_configure(config: pytest.Config) -> None:
    arguments, sys.argv = (
        sys.argv,
        sys.argv[:1],
    )  # kserve parses them as its own when it is imported
    import kserve  # noqa: F401

    sys.argv = arguments


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    option = request.config.getoption
    url, grpc = option("--server", None), option("--grpc", None)
    model, token = option("--model", "sentiment"), option("--token", None)
    if url is None:
        running = request.getfixturevalue("server")  # that of the other tests of serving
        url, grpc = running.http, running.grpc
    headers = {"authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(
        base_url=url.rstrip("/"), headers=headers, timeout=60, trust_env=False
    ) as client:
        answer = client.get(f"/v2/models/{model}")
        inputs = answer.json().get("inputs") if answer.is_success else None
        name = inputs[0]["name"] if inputs else "text"
        yield Target(client, url.rstrip("/"), grpc, model, name, token)


@pytest.fixture(scope="session")
def rpc(target: Target) -> Iterator[Any]:
    import grpc
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

    if target.grpc is None:
        pytest.skip("no --grpc address")
    with grpc.insecure_channel(target.grpc) as channel:
        yield GRPCInferenceServiceStub(channel)


FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.slow)
