"""V1 and V2 over HTTP: the gate that every request passes, and the routes that answer questions."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from kserve.errors import InvalidInput
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.rest.server import RESTServer
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.answering.batching import QueueFull
from serving.answering.call import CALL, Call
from serving.headers import REQUEST_ID_HEADER, TOKEN_HEADER
from serving.http import openapi, v2
from serving.http.admission import Admission
from serving.http.bodies import read_body
from serving.http.calls import deadline, request_id
from serving.http.connections import GuardedServer
from serving.http.faults import KINDS, Fault, fault
from serving.http.repository import Repository

_JSON = "application/json"
_SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
_ASKS = re.compile(r"/(v[12])/models/([^/:]+)(:predict|:explain|/infer)?")
_VERSIONED = re.compile(r"(/v2/models/([^/]+))/versions/([^/]+)(/.*)?")


class Gate:
    """ASGI middleware: who may ask, how much, how long, which version; and what is known of it
    afterwards.

    It reads the body itself, within the caps, so that nothing below waits for a caller; and while
    an answer is computed it watches the connection, so that nothing is computed for one who left. A
    request is under way from where its caller may ask until the caller has taken the answer.
    """

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app = app
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        asked = _ASKS.match(scope["path"])
        protocol = asked[1] if asked else "http"
        call = Call(
            request_id(headers.get(REQUEST_ID_HEADER)),
            protocol,
            headers,
            started + self._admission.settings.timeout,
        )
        status, answered = 0, started

        with self._admission.answers.share() as hold_answer:
            begin: Message | None = None

            async def sending(message: Message) -> None:
                """Begin with the first bytes of the body, so that another answer is given where
                there is no room.
                """
                nonlocal begin, status, answered
                if message["type"] == "http.response.start":
                    begin = message
                    return
                if begin is not None:
                    try:
                        hold_answer(len(message.get("body", b"")))
                    except QueueFull as error:
                        begin, message = _messages(_of(fault(error)))
                    status = begin["status"]
                    await send(
                        {**begin, "headers": [*begin.get("headers", []), *self._headers(call)]}
                    )
                    begin = None
                answered = time.monotonic()
                await send(message)  # returns when the caller has taken it

            token = CALL.set(call)
            try:
                refusal = await self._pass(scope, receive, sending, call, headers)
                # it is under way no more: its caller may take long to read it
                if refusal is not None:
                    await refusal(scope, receive, sending)
            finally:
                CALL.reset(token)
                known = call.model or (
                    asked[2] if asked and asked[3] and asked[2] in self._admission.models else ""
                )
                quiet = not (asked and asked[3]) and status < 400
                self._admission.observer.answered(
                    call, known, str(status), answered - started, quiet
                )

    def _headers(self, call: Call) -> list[tuple[bytes, bytes]]:
        more = [*_SECURITY, (REQUEST_ID_HEADER.encode(), call.id.encode())]
        if call.feedback_token:
            more.append((TOKEN_HEADER.encode(), call.feedback_token.encode()))
        if self._admission.draining:
            more.append((b"connection", b"close"))
        return more

    async def _pass(
        self, scope: Scope, receive: Receive, send: Send, call: Call, headers: dict[str, str]
    ) -> Response | None:
        """Let the application answer; or return the refusal, which is given to a request that is
        not under way.
        """
        try:
            call.is_admin = self._admission.access.check_http(
                scope["method"], scope["path"], headers
            )
            with self._admission.under_way() as hold:
                if scope["method"] != "POST" and scope["path"].endswith((":predict", ":explain")):
                    # kserve's route GET /v1/models/{model_name} would look for a model of that name
                    raise HTTPException(
                        HTTPStatus.METHOD_NOT_ALLOWED, "Method Not Allowed", {"Allow": "POST"}
                    )
                call.deadline = deadline(call.headers, self._admission.settings.timeout)
                self._admission.admit(scope["path"])
                scope = self._versioned(scope, call)
                body = await read_body(
                    scope, receive, self._admission.settings.body, call.deadline, hold
                )
                await self._ask(scope, receive, send, call, body)
        except HTTPException as error:
            return _say(error.status_code, error.detail, error.headers)
        except KINDS as error:
            return _of(fault(error))
        return None

    async def _ask(
        self, scope: Scope, receive: Receive, send: Send, call: Call, body: bytes
    ) -> None:
        given = False

        async def once() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        watch = asyncio.create_task(_watch(receive, call)) if scope["method"] == "POST" else None
        try:
            await self._app(scope, once, send)
        finally:
            if watch:
                watch.cancel()

    def _versioned(self, scope: Scope, call: Call) -> Scope:
        match = _VERSIONED.fullmatch(scope["path"])
        if match is None:
            return scope
        model, name, version, rest = match.groups()
        served = [predictor.version for predictor in self._admission.live.serving]
        if name in self._admission.models and version not in served:
            text = (
                f"model {name!r} has no version {version!r}; served: {', '.join(map(repr, served))}"
            )
            raise HTTPException(HTTPStatus.NOT_FOUND, text)
        call.version = version
        path = model + (rest or "")
        return {**scope, "path": path, "raw_path": path.encode()}


async def _watch(receive: Receive, call: Call) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    call.abandon()


class Rest(RESTServer):  # type: ignore[misc]
    """kserve's REST server on a socket that is already bound.

    Questions have routes of their own: kserve's parse a V2 body twice, drop the fields they do not
    know, and validate the answer once more.
    """

    def __init__(
        self,
        listener: socket.socket,
        admission: Admission,
        dataplane: DataPlane,
        repository: Repository,
        keep_alive: int,
        routes: Sequence[BaseRoute],
    ) -> None:
        settings = admission.settings
        super().__init__(
            "",  # see `create_application`
            dataplane,
            repository,
            listener.getsockname()[1],
            grace_period=settings.grace,
            timeout_keep_alive=keep_alive,
        )
        self._server = GuardedServer(
            self.config, settings.connections, settings.connections_of_one, settings.timeout
        )
        self._listener = listener
        self._admission = admission
        self._routes = routes
        self._server.capture_signals = contextlib.nullcontext  # type: ignore[assignment, method-assign]  # we have our own

    def create_application(self) -> None:
        """An application of its own: kserve has one for the whole process, in which a second server
        meets the first.
        """
        self.app = self.config.app = FastAPI(title="Tasteloop", redoc_url=None, docs_url=None)
        self._add_middlewares(self.app)
        self._register_endpoints(self.app)
        self._add_exception_handlers(self.app)

    def _register_endpoints(self, app: FastAPI) -> None:
        app.router.routes[:0] = [
            Route("/v1/models/{model}:predict", self._predict, methods=["POST"]),
            Route("/v1/models/{model}:explain", self._explain, methods=["POST"]),
            Route("/v2/models/{model}/infer", self._infer, methods=["POST"]),
            *self._routes,
        ]
        super()._register_endpoints(app)
        app.openapi = lambda: openapi.document(self._admission)  # type: ignore[method-assign]

    def _add_exception_handlers(self, app: FastAPI) -> None:
        for kind in (*KINDS, Exception):
            app.add_exception_handler(kind, _answer_fault)
        app.add_exception_handler(HTTPException, _answer_http)
        app.add_exception_handler(RequestValidationError, _answer_malformed)

    def _add_middlewares(self, app: FastAPI) -> None:
        app.add_middleware(Gate, admission=self._admission)

    @property
    def started(self) -> bool:
        return bool(self._server.started)

    async def start(self) -> None:
        self.create_application()
        await self._server.serve(sockets=[self._listener])

    def stop(self) -> None:
        """No new connections; `start` returns when those that are open have their answers."""
        self._server.should_exit = True

    async def _predict(self, request: Request) -> Response:
        return await self._v1(request, self.dataplane.infer)

    async def _explain(self, request: Request) -> Response:
        return await self._v1(request, self.dataplane.explain)

    async def _v1(self, request: Request, ask: Callable[..., Any]) -> Response:
        name = request.path_params["model"]
        await self._admission.require(name)
        headers = CALL.get().headers
        try:
            payload, attributes = self.dataplane.decode(
                await request.body(), {**headers, "content-type": _type(headers)}
            )
        except InvalidInput:
            raise
        except Exception:  # what kserve's reading of a CloudEvent meets
            raise InvalidInput(
                "the headers or the body announce a CloudEvent, but it is not one"
            ) from None
        answer, _ = await ask(name, payload, headers)
        content, more = self.dataplane.encode(name, answer, headers, attributes)
        more.pop("content-length", None)
        if not isinstance(content, bytes):
            content = content.encode() if isinstance(content, str) else orjson.dumps(content)
        return Response(content, headers={"content-type": _JSON, **more})

    async def _infer(self, request: Request) -> Response:
        name = request.path_params["model"]
        await self._admission.require(name)
        headers = CALL.get().headers
        payload = v2.from_rest(await request.body(), headers.get(v2.HEADER_LENGTH), name)
        answer, _ = await self.dataplane.infer(name, payload, headers)
        body, length = v2.to_rest(answer)
        if length is None:
            return Response(body, media_type=_JSON)
        return Response(
            body, media_type="application/octet-stream", headers={v2.HEADER_LENGTH: str(length)}
        )


def _type(headers: Mapping[str, str]) -> str:
    """kserve parses JSON under four exact content types and hands the model bytes under any
    other.
    """
    given = headers.get("content-type", "")
    return given if given.startswith("application/cloudevents") else _JSON


def _say(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps({"error": text}), status, headers, media_type=_JSON)


def _of(found: Fault) -> Response:
    return _say(found.http, found.text, found.headers)


def _messages(response: Response) -> tuple[Message, Message]:
    """A response as it is sent."""
    start = {
        "type": "http.response.start",
        "status": response.status_code,
        "headers": response.raw_headers,
    }
    return start, {"type": "http.response.body", "body": bytes(response.body)}


async def _answer_fault(_: Request, error: Exception) -> Response:
    return _of(fault(error))


async def _answer_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _say(error.status_code, error.detail, error.headers)


async def _answer_malformed(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    return _say(HTTPStatus.BAD_REQUEST, f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}")
