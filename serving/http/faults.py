"""How errors are answered: the caller's mistakes with their text, our own with only an id."""

from __future__ import annotations

import logging
import math
import uuid
from dataclasses import dataclass
from http import HTTPStatus

import grpc  # type: ignore[import-untyped]
from kserve.errors import (
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    ServerNotLive,
    ServerNotReady,
    UnsupportedProtocol,
)

from serving.answering.batching import DeadlineExceeded, Disconnected, QueueFull
from serving.histories.protocol import KeyReused, Stale, StoreAway, StoreBusy, StoreFull
from tasteloop.errors import TasteloopError

logger = logging.getLogger(__name__)

CLIENT_CLOSED_REQUEST = 499  # nginx's status for a caller who has left; only the log shows it


class Unauthenticated(Exception):
    """No token, or one that nobody knows."""


class Forbidden(Exception):
    """A known token that does not allow this, or a request from a page that may not send any."""


_TABLE: dict[type[Exception], tuple[int, grpc.StatusCode]] = {
    TasteloopError: (HTTPStatus.BAD_REQUEST, grpc.StatusCode.INVALID_ARGUMENT),
    InvalidInput: (HTTPStatus.BAD_REQUEST, grpc.StatusCode.INVALID_ARGUMENT),
    Unauthenticated: (HTTPStatus.UNAUTHORIZED, grpc.StatusCode.UNAUTHENTICATED),
    Forbidden: (HTTPStatus.FORBIDDEN, grpc.StatusCode.PERMISSION_DENIED),
    ModelNotFound: (HTTPStatus.NOT_FOUND, grpc.StatusCode.NOT_FOUND),
    QueueFull: (HTTPStatus.TOO_MANY_REQUESTS, grpc.StatusCode.RESOURCE_EXHAUSTED),
    Disconnected: (CLIENT_CLOSED_REQUEST, grpc.StatusCode.CANCELLED),
    StoreBusy: (HTTPStatus.TOO_MANY_REQUESTS, grpc.StatusCode.RESOURCE_EXHAUSTED),
    StoreFull: (HTTPStatus.INSUFFICIENT_STORAGE, grpc.StatusCode.RESOURCE_EXHAUSTED),
    StoreAway: (HTTPStatus.SERVICE_UNAVAILABLE, grpc.StatusCode.UNAVAILABLE),
    KeyReused: (HTTPStatus.CONFLICT, grpc.StatusCode.ALREADY_EXISTS),
    Stale: (HTTPStatus.CONFLICT, grpc.StatusCode.FAILED_PRECONDITION),
    NotImplementedError: (HTTPStatus.NOT_IMPLEMENTED, grpc.StatusCode.UNIMPLEMENTED),
    UnsupportedProtocol: (HTTPStatus.NOT_IMPLEMENTED, grpc.StatusCode.UNIMPLEMENTED),
    ModelNotReady: (HTTPStatus.SERVICE_UNAVAILABLE, grpc.StatusCode.UNAVAILABLE),
    ServerNotReady: (HTTPStatus.SERVICE_UNAVAILABLE, grpc.StatusCode.UNAVAILABLE),
    ServerNotLive: (HTTPStatus.SERVICE_UNAVAILABLE, grpc.StatusCode.UNAVAILABLE),
    DeadlineExceeded: (HTTPStatus.GATEWAY_TIMEOUT, grpc.StatusCode.DEADLINE_EXCEEDED),
}
KINDS = tuple(_TABLE)


@dataclass(frozen=True)
class Fault:
    """An error as both protocols answer it.

    Attributes:
        http: the status of HTTP; grpc: that of gRPC.
        headers: REST's; in lower case they are gRPC's trailing metadata.
    """

    http: int
    grpc: grpc.StatusCode
    text: str
    headers: dict[str, str]


def fault(error: Exception) -> Fault:
    """How an error is answered. A caller's mistake keeps its text; an error of ours gets an id,
    under which the log has the rest.
    """
    # 1. the caller's mistakes, and what is expected
    for kind, (http, code) in _TABLE.items():
        if isinstance(error, kind):
            text = (str(error) or "not implemented").encode(errors="replace").decode()
            headers: dict[str, str] = {}
            if isinstance(error, QueueFull | StoreBusy):
                headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
            if isinstance(error, Unauthenticated):
                headers["WWW-Authenticate"] = "Bearer"
            return Fault(http, code, text, headers)

    # 2. our own
    identity = uuid.uuid4().hex
    logger.error("internal error %s", identity, exc_info=error)
    return Fault(
        HTTPStatus.INTERNAL_SERVER_ERROR, grpc.StatusCode.INTERNAL, f"internal error {identity}", {}
    )
