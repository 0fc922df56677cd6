"""Who may call: callers with a bearer token, and no browser that acts for another site's page."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping, MutableMapping

from kserve.errors import InvalidInput

from serving.headers import API_TOKEN_HEADER
from serving.http.faults import Forbidden, Unauthenticated
from serving.settings import ADMIN_TOKEN, API_TOKEN, token
from tasteloop.errors import TasteloopError

# A route ends in `$`, which also matches before a newline: such paths are refused beforehand.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# Methods that change nothing. Without CORS headers, another site's page cannot read their answers.
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
"""What a probe may ask without a token."""


def loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Access:
    """The rules of one server.

    Args:
        api, admin: the tokens; without `api` whoever reaches the server may ask, without `admin`
            nobody may load or unload models, or see and erase histories. The admin's token may
            also ask.
        local: the server listens on loopback only, so its callers name it by a loopback name. A
            page whose own name was made to resolve to 127.0.0.1 (DNS rebinding) sends that name,
            and is refused.
    """

    def __init__(self, api: str | None, admin: str | None, local: bool) -> None:
        self._api = None if api is None else _digest(api)
        self._admin = None if admin is None else _digest(admin)
        self._local = local

    @classmethod
    def from_environment(cls, host: str, without_token: bool = False) -> Access:
        """The rules of a server on `host`, with the tokens of the environment.

        Raises:
            TasteloopError: other machines reach the address, and there is no token.
        """
        api, admin = token(API_TOKEN), token(ADMIN_TOKEN)
        if api is None and not loopback(host) and not without_token:
            raise TasteloopError(
                f"{host} can be reached from other machines: set {API_TOKEN} or {API_TOKEN}_FILE so that callers "
                "must show it, or give --without-token where a gateway or a mesh before this server asks for one"
            )
        return cls(api, admin, loopback(host))

    @property
    def needs_token(self) -> bool:
        """Whether callers must show a token."""
        return self._api is not None

    def check_http(self, method: str, path: str, headers: MutableMapping[str, str]) -> bool:
        """`check` for a request over HTTP, which may also come from a page in a browser.

        Raises:
            InvalidInput: the path has a control character in it, after its escapes were decoded.
            Unauthenticated, Forbidden: this caller may not ask for it.
        """
        if _CONTROL.search(path):
            raise InvalidInput(
                "there is a control character in the path; a path is of printable characters"
            )
        if method not in _HARMLESS:
            _refuse_other_sites(headers)
        return self.check(path, headers)

    def check(self, path: str, headers: MutableMapping[str, str]) -> bool:
        """Whether the caller is the admin. `require_admin` gets the result where it matters.

        Args:
            path: an HTTP path or a gRPC method.
            headers: credentials are removed from them, because nothing else needs them.

        Raises:
            Unauthenticated, Forbidden: this caller may not ask for it.
        """
        # 1. the name by which the server was called
        host = headers.get("host", "")
        if self._local and host and not loopback(_without_port(host)):
            raise Forbidden(
                f"this server is called localhost or 127.0.0.1, not {_without_port(host)[:100]!r}"
            )

        # 2. the token; where the header of our own is there, Authorization is the gateway's
        authorization = headers.pop("authorization", "")
        own = headers.pop(API_TOKEN_HEADER, None)
        shown = _digest_token(authorization) if own is None else _digest(own.strip())
        if path in OPEN:
            return False
        is_admin = self._admin is not None and hmac.compare_digest(shown, self._admin)
        if self._api is not None and not is_admin and not hmac.compare_digest(shown, self._api):
            raise Unauthenticated(
                f"show a token: Authorization: Bearer TOKEN, or {API_TOKEN_HEADER}: TOKEN behind a gateway that "
                "wants Authorization for itself"
            )
        return is_admin

    def require_admin(self, is_admin: bool, action: str = "load or unload models") -> None:
        """Checked by whatever is the admin's to do, right before it is done.

        Args:
            action: what that is, for the message.

        Raises:
            NotImplementedError: there is no admin.
            Unauthenticated, Forbidden: this caller is not the admin.
        """
        if self._admin is None:
            raise NotImplementedError(f"this server does not {action}; {ADMIN_TOKEN} is not set")
        if is_admin:
            return
        if self.needs_token:
            raise Forbidden(f"only the admin may {action}")
        raise Unauthenticated("show the admin's token: Authorization: Bearer TOKEN")


def _refuse_other_sites(headers: Mapping[str, str]) -> None:
    """Refuse what a browser sends for the page of another site, which may post here although it
    cannot read the answer.

    Browsers name the page's site in headers that a page cannot set. Other programs do not send
    these headers.

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


def _digest_token(authorization: str) -> bytes:
    """The digest of a header's bearer token, or of nothing where it has none."""
    scheme, _, value = authorization.partition(" ")
    return _digest(value.strip() if scheme.lower() == "bearer" else "")


def _digest(text: str) -> bytes:
    """Digests are compared instead of tokens: their length does not depend on the token's."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


def _without_port(host: str) -> str:
    """The name in a Host header; of IPv6 it has brackets around it."""
    if host.startswith("[") and "]" in host:
        return host[: host.rindex("]") + 1]
    return host.rsplit(":", 1)[0]
