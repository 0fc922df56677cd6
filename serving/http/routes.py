"""What a server answers beside the models: its status, and feedback on its answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.answering.batching import QueueFull
from serving.journal.answered import now
from serving.journal.feedback import parse_feedback
from serving.journal.tokens import FeedbackTokens
from serving.journal.writer import Journal
from tasteloop.errors import TasteloopError


def routes(
    status: Callable[[], dict[str, Any]], journal: Journal | None, tokens: FeedbackTokens | None
) -> list[Route]:
    """`GET /v1/status` and `POST /v1/feedback`. Errors are raised; the server answers them."""

    async def answer_status(_: Request) -> Response:
        report = await asyncio.to_thread(status)  # it reads a file
        return Response(orjson.dumps(report), media_type="application/json")

    async def accept_feedback(request: Request) -> Response:
        if journal is None or tokens is None:
            raise NotImplementedError(
                "this server keeps no journal to which feedback could be joined; see --journal"
            )
        try:
            body = orjson.loads(await request.body())
        except ValueError as error:
            raise TasteloopError(f"the body is not JSON: {error}") from None
        outcomes = parse_feedback(body, now(), tokens)
        if not journal.feedback(outcomes):
            raise QueueFull(1.0)
        content = orjson.dumps({"accepted": len(outcomes)})
        return Response(content, 202, media_type="application/json")

    return [
        Route("/v1/status", answer_status, methods=["GET"]),
        Route("/v1/feedback", accept_feedback, methods=["POST"]),
    ]
