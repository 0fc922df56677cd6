"""Who may ask: bearer tokens, and nothing that a browser sends for another site's page."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping, MutableMapping

from kserve.errors import InvalidInput

from serving.http.faults import Forbidden, Unauthenticated
from serving.settings import ADMIN_TOKEN, API_TOKEN, token
from tasteloop.errors import TasteloopError

# `$` in a route matches before a newline, too
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# they change nothing, and without CORS their answers stay unread
_HARMLESS = ("GET", "HEAD", "OPTIONS")
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
        api, admin: the tokens; without `api` whoever reaches the server may ask, without `admin`
            nobody may load or unload models. The admin's token may also ask.
        local: the server listens on loopback only, so requests name it by a loopback name. A page
            in a browser that resolves its own name to 127.0.0.1 (DNS rebinding) does not.
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

    def check_http(self, method: str, path: str, headers: MutableMapping[str, str]) -> bool:
        """`check` for a request of HTTP, which may also come from a page in a browser.

        Raises:
            InvalidInput: a path, with its escapes decoded, that has a control character in it.
            Unauthenticated, Forbidden: it may not be asked so.
        """
        if _CONTROL.search(path):
            raise InvalidInput(
                "there is a control character in the path; a path is of printable characters"
            )
        if method not in _HARMLESS:
            _refuse_other_sites(headers)
        return self.check(path, headers)

    def check(self, place: str, headers: MutableMapping[str, str]) -> bool:
        """Whether the caller is the admin; `require_admin` takes it where that matters.

        Args:
            place: an HTTP path or a gRPC method.
            headers: credentials are taken out of them: nobody else needs them.

        Raises:
            Unauthenticated, Forbidden: it may not be asked so.
        """
        if self._local and (host := headers.get("host")) and not loopback(_name(host)):
            raise Forbidden(
                f"this server is called localhost or 127.0.0.1, not {_name(host)[:100]!r}"
            )
        given = self._given(headers.pop("authorization", ""))
        if place in OPEN:
            return False
        admin = self._admin is not None and hmac.compare_digest(given, self._admin)
        if self._api is not None and not admin and not hmac.compare_digest(given, self._api):
            raise Unauthenticated("show a token: Authorization: Bearer TOKEN")
        return admin

    def require_admin(self, is_admin: bool) -> None:
        """Asked by whatever changes what the server does, at the place where it would change it.

        Raises:
            NotImplementedError: there is no admin.
            Unauthenticated, Forbidden: this caller is not the admin.
        """
        if self._admin is None:
            raise NotImplementedError(
                f"this server does not load or unload models; {ADMIN_TOKEN} is not set"
            )
        if not is_admin:
            raise (
                Forbidden("only the admin may load or unload models")
                if self.asks
                else Unauthenticated("show the admin's token: Authorization: Bearer TOKEN")
            )

    @staticmethod
    def _given(header: str) -> bytes:
        scheme, _, value = header.partition(" ")
        return _digest(value.strip() if scheme.lower() == "bearer" else "")


def _refuse_other_sites(headers: Mapping[str, str]) -> None:
    """A page of any site may have its visitor's browser post here, without being able to read the
    answer.

    Browsers say so in headers that a page cannot set; other programs do not send them.

    Raises:
        Forbidden: the page is from elsewhere.
    """
    site, origin, host = (headers.get(name, "") for name in ("sec-fetch-site", "origin", "host"))
    if site not in ("", "same-origin", "none"):
        raise Forbidden(
            f"Sec-Fetch-Site is {site[:40]!r}: only pages of this server itself may ask; allowed: same-origin"
        )
    if "origin" in headers and (not host or origin.partition("://")[2].lower() != host.lower()):
        raise Forbidden(
            f"Origin is {origin[:100]!r}, but this server was called {host[:100]!r}: pages of other sites may not ask; "
            "a program sends no Origin, and a gateway passes on the Host that it was asked for"
        )


def _digest(text: str) -> bytes:
    """Compared instead of the text: equally long, whatever was given."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


def _name(host: str) -> str:
    """A Host header without its port."""
    return (
        host[: host.rindex("]") + 1]
        if host.startswith("[") and "]" in host
        else host.rsplit(":", 1)[0]
    )
