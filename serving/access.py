"""Who may ask: bearer tokens, and on loopback the host names under which a browser cannot be lured here."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import MutableMapping

from serving.faults import Forbidden, Unauthenticated
from serving.settings import ADMIN_TOKEN, API_TOKEN, token
from tasteloop.errors import TasteloopError

_ADMIN = re.compile(r"/v2/repository(/.*)?|/inference\.GRPCInferenceService/Repository\w+")
OPEN = frozenset(
    {
        "/",
        "/v2/health/live",
        "/v2/health/ready",
        "/inference.GRPCInferenceService/ServerLive",
        "/inference.GRPCInferenceService/ServerReady",
    }
)
"""What a probe without a token may ask."""


def loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Access:
    """The rules of one server.

    Args:
        api, admin: the tokens; without `api` whoever reaches the server may ask, without `admin` nobody may load
            or unload models. The admin's token may also ask.
        local: the server listens on loopback only, so requests name it by a loopback name. A page in a browser
            that resolves its own name to 127.0.0.1 (DNS rebinding) does not.
    """

    def __init__(self, api: str | None, admin: str | None, local: bool) -> None:
        self._api, self._admin = (None if t is None else _digest(t) for t in (api, admin))
        self._local = local

    @classmethod
    def of(cls, host: str, without_token: bool = False) -> Access:
        """From the environment. Raises TasteloopError for an open address without a token."""
        api, admin = token(API_TOKEN), token(ADMIN_TOKEN)
        if api is None and not loopback(host) and not without_token:
            raise TasteloopError(
                f"{host} can be reached from other machines: set {API_TOKEN} or {API_TOKEN}_FILE so that callers "
                "must show it, or give --without-token where a gateway or a mesh before this server asks for one"
            )
        return cls(api, admin, loopback(host))

    @property
    def asks(self) -> bool:
        """Whether callers need a token."""
        return self._api is not None

    def check(self, place: str, headers: MutableMapping[str, str]) -> None:
        """`place` is an HTTP path or a gRPC method; credentials are taken out of the headers: nobody else needs them.

        Raises:
            Unauthenticated, Forbidden: it may not be asked so.
        """
        if self._local and (host := headers.get("host")) and not loopback(_name(host)):
            raise Forbidden(f"this server is called localhost or 127.0.0.1, not {_name(host)[:100]!r}")
        if place in OPEN:
            return
        given = self._given(headers.pop("authorization", ""))
        admin = self._admin is not None and hmac.compare_digest(given, self._admin)
        known = admin or (self._api is not None and hmac.compare_digest(given, self._api))
        if _ADMIN.fullmatch(place):
            if self._admin is None:
                raise NotImplementedError(f"this server does not load or unload models; {ADMIN_TOKEN} is not set")
            if not admin:
                raise (
                    Forbidden("only the admin may load or unload models")
                    if known
                    else Unauthenticated("show the admin's token: Authorization: Bearer TOKEN")
                )
        elif self._api is not None and not known:
            raise Unauthenticated("show a token: Authorization: Bearer TOKEN")

    @staticmethod
    def _given(header: str) -> bytes:
        scheme, _, value = header.partition(" ")
        return _digest(value.strip() if scheme.lower() == "bearer" else "")


def _digest(text: str) -> bytes:
    """Compared instead of the text: equally long, whatever was given."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


def _name(host: str) -> str:
    """A Host header without its port."""
    return host[: host.rindex("]") + 1] if host.startswith("[") and "]" in host else host.rsplit(":", 1)[0]
