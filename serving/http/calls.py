"""What the headers of a request say about it, over REST and gRPC alike."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Mapping
from typing import Any

from kserve.errors import InvalidInput

from serving.answering.batching import DeadlineExceeded
from serving.answering.call import CALL
from serving.headers import TIMEOUT_HEADER
from serving.http import v2
from serving.journal.answered import is_request_id


def request_id(header: str | None) -> str:
    """The caller's id of a request, where it is short and printable; a new one otherwise."""
    return header if header is not None and is_request_id(header) else uuid.uuid4().hex


def deadline(headers: Mapping[str, str], most: float) -> float:
    """The `time.monotonic()` at which the caller or the server stops waiting.

    Args:
        most: seconds that the server waits.

    Raises:
        InvalidInput: the header is no number of milliseconds.
    """
    header = headers.get(TIMEOUT_HEADER)
    if header is None:
        return time.monotonic() + most
    milliseconds = v2.whole_number(header)
    if not milliseconds:
        raise InvalidInput(
            f"{TIMEOUT_HEADER} is {header[:40]!r}; it must be a whole number of milliseconds above 0"
        )
    return time.monotonic() + min(most, milliseconds / 1000)


async def in_time(answer: Awaitable[Any]) -> Any:
    """An answer, until the deadline of the current call.

    Raises:
        DeadlineExceeded: it was not there by then. What was to be stored may be stored anyway.
    """
    try:
        async with asyncio.timeout_at(CALL.get().deadline):
            return await answer
    except TimeoutError:
        raise DeadlineExceeded(
            "the deadline passed first; what was sent may be stored all the same: send it again, its ids or its "
            "idempotency key keep it from counting twice"
        ) from None
