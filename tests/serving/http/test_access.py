"""Who may ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.http.access import Access, loopback
from serving.http.faults import Forbidden, Unauthenticated
from serving.settings import token
from tasteloop.errors import TasteloopError

API, ADMIN = "api-token-of-a-test", "admin-token-of-a-test"
LOAD = (
    "/v2/repository/models/sentiment/load",
    "/inference.GRPCInferenceService/RepositoryModelLoad",
)
ASK = (
    "/v1/models/sentiment:predict",
    "/metrics",
    "/openapi.json",
    "/inference.GRPCInferenceService/ModelInfer",
)
PROBES = ("/", "/v2/health/live", "/v2/health/ready", "/inference.GRPCInferenceService/ServerReady")


def bearer(value: str) -> dict[str, str]:
    return {"authorization": f"Bearer {value}"}


@pytest.mark.parametrize("place", ASK)
def test_a_token_is_asked_for_where_there_is_one(place: str) -> None:
    Access(None, None, False).check(place, {})
    access = Access(API, ADMIN, False)
    for good in (bearer(API), bearer(ADMIN), {"authorization": f"bearer   {API} "}):
        access.check(place, good)
        assert good == {}, "credentials travel no further"
    for bad in (
        {},
        bearer(""),
        bearer(API[:-1]),
        bearer(API + "x"),
        {"authorization": API},
        bearer("\udcff"),
    ):
        with pytest.raises(Unauthenticated):
            access.check(place, bad)


@pytest.mark.parametrize("place", ASK)
def test_behind_a_gateway_the_token_has_a_header_of_its_own(place: str) -> None:
    access = Access(API, ADMIN, False)
    gateways = bearer("a-token-of-the-gateway")
    for value, is_admin in ((API, False), (f" {ADMIN} ", True)):
        headers = {**gateways, "x-tasteloop-token": value}

        assert access.check(place, headers) is is_admin
        assert headers == {}, "neither travels further"
    for wrong in ("", API[:-1], f"Bearer {API}", "\udcff"):
        # a wrong one is not made good by what is meant for the gateway
        for others in (gateways, bearer(API)):
            with pytest.raises(Unauthenticated):
                access.check(place, {**others, "x-tasteloop-token": wrong})


@pytest.mark.parametrize("place", PROBES)
def test_probes_need_no_token(place: str) -> None:
    Access(API, ADMIN, False).check(place, {})


@pytest.mark.parametrize("place", LOAD)
def test_the_repository_is_the_admins(place: str) -> None:
    def change(access: Access, headers: dict[str, str]) -> None:
        access.require_admin(access.check(place, headers))

    with pytest.raises(NotImplementedError, match="TASTELOOP_ADMIN_TOKEN is not set"):
        change(Access(API, None, True), bearer(API))
    access = Access(API, ADMIN, True)
    change(access, bearer(ADMIN))
    with pytest.raises(Forbidden):
        change(access, bearer(API))
    with pytest.raises(Unauthenticated):
        change(access, {})
    with pytest.raises(Unauthenticated):
        change(Access(None, ADMIN, True), bearer(""))


def test_on_loopback_the_server_is_called_by_a_loopback_name() -> None:
    access = Access(None, None, True)
    for host in (
        "127.0.0.1",
        "127.0.0.1:8080",
        "localhost:8080",
        "LOCALHOST",
        "[::1]",
        "[::1]:8080",
    ):
        access.check("/v2", {"host": host})
    for host in (
        "rebound.example",
        "rebound.example:8080",
        "127.0.0.1.example",
        "[::2]:80",
        "10.0.0.1",
    ):
        with pytest.raises(Forbidden):
            access.check("/", {"host": host})
    Access(None, None, False).check("/v2", {"host": "service.example"})


def test_beyond_loopback_a_token_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TASTELOOP_API_TOKEN", "TASTELOOP_API_TOKEN_FILE", "TASTELOOP_ADMIN_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert not Access.from_environment("127.0.0.1").needs_token
    with pytest.raises(TasteloopError, match="set TASTELOOP_API_TOKEN or TASTELOOP_API_TOKEN_FILE"):
        Access.from_environment("0.0.0.0")
    assert not Access.from_environment("0.0.0.0", without_token=True).needs_token
    (tmp_path / "token").write_text(API + "\n")
    monkeypatch.setenv("TASTELOOP_API_TOKEN_FILE", str(tmp_path / "token"))
    access = Access.from_environment("0.0.0.0")
    access.check("/v2", bearer(API))


@pytest.mark.parametrize("bad", ["", "short", "has a space in it, long", "ä" * 20])
def test_a_token_that_is_none_is_refused(bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", bad)
    with pytest.raises(TasteloopError, match="at least 16 visible ASCII characters"):
        token("A_TOKEN")


def test_a_token_file_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN_FILE", "/no/such/file")
    with pytest.raises(TasteloopError, match="A_TOKEN_FILE: cannot read /no/such/file"):
        token("A_TOKEN")


def test_loopback() -> None:
    assert all(map(loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(loopback, ("0.0.0.0", "::", "10.0.0.1", "example.com", "")))
