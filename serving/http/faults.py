"""What a caller is told of an error: whose fault it was, and of ours nothing but an id."""

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
from tasteloop.errors import TasteloopError

logger = logging.getLogger(__name__)

CLIENT_CLOSED_REQUEST = 499  # nginx's: the caller is gone, the number is for the log


class Unauthenticated(Exception):
    """No token, or one that nobody knows."""


class Forbidden(Exception):
    """A known token that does not allow this, or a request from where none may come."""


_TABLE: dict[type[Exception], tuple[int, grpc.StatusCode]] = {
    TasteloopError: (HTTPStatus.BAD_REQUEST, grpc.StatusCode.INVALID_ARGUMENT),
    InvalidInput: (HTTPStatus.BAD_REQUEST, grpc.StatusCode.INVALID_ARGUMENT),
    Unauthenticated: (HTTPStatus.UNAUTHORIZED, grpc.StatusCode.UNAUTHENTICATED),
    Forbidden: (HTTPStatus.FORBIDDEN, grpc.StatusCode.PERMISSION_DENIED),
    ModelNotFound: (HTTPStatus.NOT_FOUND, grpc.StatusCode.NOT_FOUND),
    QueueFull: (HTTPStatus.TOO_MANY_REQUESTS, grpc.StatusCode.RESOURCE_EXHAUSTED),
    Disconnected: (CLIENT_CLOSED_REQUEST, grpc.StatusCode.CANCELLED),
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
    """An error as both protocols say it; `headers` are REST's, and gRPC's trailing metadata in
    lower case.
    """

    http: int
    grpc: grpc.StatusCode
    text: str
    headers: dict[str, str]


def fault(error: Exception) -> Fault:
    """The caller's mistakes keep their text; an error of ours gets an id, under which the log has
    the rest.
    """
    for kind, (http, code) in _TABLE.items():
        if isinstance(error, kind):
            text = (str(error) or "not implemented").encode(errors="replace").decode()
            headers: dict[str, str] = {}
            if isinstance(error, QueueFull):
                headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
            if isinstance(error, Unauthenticated):
                headers["WWW-Authenticate"] = "Bearer"
            return Fault(http, code, text, headers)
    identity = uuid.uuid4().hex
    logger.error("internal error %s", identity, exc_info=error)
    return Fault(
        HTTPStatus.INTERNAL_SERVER_ERROR, grpc.StatusCode.INTERNAL, f"internal error {identity}", {}
    )
