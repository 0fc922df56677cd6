"""What a stranger must not do. Last, since a server that allows it has lost its model
afterwards.
"""

from __future__ import annotations

from typing import Any

import grpc
import httpx
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb


def test_answers_are_not_sniffed_framed_or_stored(target: Any) -> None:
    for response in (target.http.get("/v2"), target.infer(b"{")):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors" in response.headers["content-security-policy"]
        assert response.headers["cache-control"] == "no-store"
        assert "server" not in response.headers


def test_a_foreign_host_name_is_refused_on_loopback(target: Any) -> None:
    if httpx.URL(target.url).host not in ("127.0.0.1", "localhost"):
        pytest.skip("not on loopback")
    response = target.http.get("/v2", headers={"host": "rebound.example"})
    assert 400 <= response.status_code < 500


def test_nobody_loads_a_model(target: Any) -> None:
    assert target.http.post(f"/v2/repository/models/{target.model}/load").status_code in (
        401,
        403,
        404,
        405,
        501,
    )


def test_nobody_unloads_a_model_over_grpc(target: Any, rpc: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        rpc.RepositoryModelUnload(
            pb.RepositoryModelUnloadRequest(model_name=target.model), timeout=60
        )
    allowed = (
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
    )
    assert caught.value.code() in allowed


def test_nobody_unloads_a_model(target: Any) -> None:
    response = target.http.post(f"/v2/repository/models/{target.model}/unload")
    assert response.status_code in (401, 403, 404, 405, 501)
    assert target.http.get(target.v2("/ready")).status_code == 200
