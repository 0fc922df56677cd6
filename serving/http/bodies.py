"""The bodies of HTTP requests: read within a cap, before and after decompression."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope

ENCODINGS = "gzip, identity"
_GZIP = ("gzip", "x-gzip")
_MEMBERS = 64  # that one gzip body may have: each is some work, even where it is empty


async def read_body(
    scope: Scope,
    receive: Receive,
    most: int,
    deadline: float,
    hold: Callable[[int], None] | None = None,
) -> bytes:
    """Read the body, and decompress it where its Content-Encoding says so.

    Args:
        most: bytes that it may have, as it comes and when it is decompressed.
        deadline: on the loop's clock, which is `time.monotonic`.
        hold: called with the size of each part that stays in memory.

    Raises:
        HTTPException: 400 broken or cut short, 408 too slow, 413 too large, 415 another encoding.
    """
    # 1. what comes
    is_compressed = _is_compressed(scope)
    parts, received = [], 0
    try:
        async with asyncio.timeout_at(deadline):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise HTTPException(HTTPStatus.BAD_REQUEST, "the body did not come whole")
                part = message.get("body", b"")
                received += len(part)
                if received > most:
                    raise _too_large(most)
                if hold is not None:
                    hold(len(part))
                parts.append(part)
                if not message.get("more_body"):
                    break
    except TimeoutError:
        raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, "the body did not come in time") from None

    # 2. decompressed
    body = parts[0] if len(parts) == 1 else b"".join(parts)
    if not (body and is_compressed):
        return body
    body = _decompress(body, most)
    if hold is not None:
        hold(len(body))
    return body


def _is_compressed(scope: Scope) -> bool:
    values = [value for name, value in scope["headers"] if name == b"content-encoding"]
    header = b", ".join(values).decode("latin-1")
    encoding = header.strip().lower()
    if encoding not in ("", "identity", *_GZIP):
        text = f"Content-Encoding is {header[:40]!r}; allowed: {ENCODINGS}"
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, text, {"Accept-Encoding": ENCODINGS})
    return encoding in _GZIP


def _decompress(compressed: bytes, most: int) -> bytes:
    parts, room = [], most + 1
    for _ in range(_MEMBERS):
        member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            parts.append(member.decompress(compressed, room))
        except zlib.error as error:
            raise HTTPException(
                HTTPStatus.BAD_REQUEST, f"the body is not gzip, as its encoding says: {error}"
            ) from None
        room -= len(parts[-1])
        if room <= 0:
            raise _too_large(most, " when decompressed")
        if not member.eof:
            raise HTTPException(HTTPStatus.BAD_REQUEST, "the gzip body is cut short")
        compressed = member.unused_data
        if not compressed:
            return b"".join(parts)
    raise HTTPException(HTTPStatus.BAD_REQUEST, f"the gzip body has more than {_MEMBERS} members")


def _too_large(most: int, how: str = "") -> HTTPException:
    return HTTPException(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {most} bytes{how}"
    )
