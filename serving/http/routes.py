"""What a server answers beside the models: its status, feedback on its answers, and histories."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.answering.batching import QueueFull
from serving.answering.call import CALL
from serving.histories.service import HistoryService
from serving.http.access import Access
from serving.http.calls import in_time
from serving.journal.answered import now
from serving.journal.feedback import parse_feedback
from serving.journal.tokens import FeedbackTokens
from serving.journal.writer import Journal
from tasteloop.errors import TasteloopError
from tasteloop.privacy.pseudonyms import LONGEST_USER, is_user


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


def history_routes(histories: HistoryService, access: Access) -> list[Route]:
    """`POST /v1/events`, and `GET` and `DELETE /v1/users/{user}` for the admin."""

    async def take_events(request: Request) -> Response:
        headers = CALL.get().headers
        taken = histories.take(headers.get("content-type", ""), headers, await request.body())
        return _json(await in_time(taken), 202)

    async def answer_user(request: Request) -> Response:
        user = request.path_params["user"]
        if not is_user(user):
            raise TasteloopError(f"a user is named by 1 to {LONGEST_USER} characters")
        if request.method == "DELETE":
            access.require_admin(CALL.get().is_admin, "erase histories")
            return _json(await in_time(histories.erase(user)))
        access.require_admin(CALL.get().is_admin, "show histories")
        return _json(await in_time(histories.export(user)))

    return [
        Route("/v1/events", take_events, methods=["POST"]),
        Route("/v1/users/{user:path}", answer_user, methods=["GET", "DELETE"]),
    ]


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")
