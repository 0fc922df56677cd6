"""V1 and V2 over HTTP: the gate that every request passes, and the routes that answer questions."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from kserve.errors import InvalidInput
from kserve.protocol.rest.server import RESTServer
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving import openapi, telemetry, v2
from serving.batching import CALL, Call
from serving.faults import KINDS, Fault, fault
from serving.feedback import TOKEN_HEADER
from serving.journal import is_request_id

if TYPE_CHECKING:
    from serving.server import Server

TIMEOUT_HEADER = "x-request-timeout-ms"
REQUEST_ID_HEADER = "x-request-id"
HEAD_BYTES = 64 * 1024  # request line and headers
HEAD_SECONDS = 10.0  # from a connection's first byte, or from being open, to the end of the headers
_JSON = "application/json"
_SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
_ASKS = re.compile(r"/(v[12])/models/([^/:]+)(:predict|:explain|/infer)?")
_VERSIONED = re.compile(r"(/v2/models/([^/]+))/versions/([^/]+)(/.*)?")


def request_id(given: str | None) -> str:
    """The caller's, where it is a short plain one; a new one otherwise."""
    return given if given is not None and is_request_id(given) else uuid.uuid4().hex


def deadline(headers: Mapping[str, str], most: float) -> float:
    """`time.monotonic()` at which the caller, or the server, stops waiting. Raises InvalidInput."""
    given = headers.get(TIMEOUT_HEADER)
    milliseconds = None if given is None else v2.whole_number(given)
    if given is not None and not milliseconds:
        raise InvalidInput(f"{TIMEOUT_HEADER} is {given[:40]!r}; it must be a whole number of milliseconds above 0")
    return time.monotonic() + (most if milliseconds is None else min(most, milliseconds / 1000))


class Gate:
    """ASGI middleware: who may ask, how much, how long, which version; and what is known of it afterwards.

    It reads the body itself, within the caps, so that nothing below waits for a caller; and while an answer is
    computed it watches the connection, so that nothing is computed for one who left.
    """

    def __init__(self, app: ASGIApp, server: Server) -> None:
        self._app = app
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        asked = _ASKS.match(scope["path"])
        protocol = asked[1] if asked else "http"
        call = Call(
            request_id(headers.get(REQUEST_ID_HEADER)), protocol, headers, started + self._server.settings.timeout
        )
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                more = [*_SECURITY, (REQUEST_ID_HEADER.encode(), call.id.encode())]
                if call.feedback_token:
                    more.append((TOKEN_HEADER.encode(), call.feedback_token.encode()))
                if self._server.draining:
                    more.append((b"connection", b"close"))
                message = {**message, "headers": [*message.get("headers", []), *more]}
            await send(message)

        token = CALL.set(call)
        try:
            with self._server.under_way() as hold:
                await self._pass(scope, receive, sending, call, headers, hold)
        finally:
            CALL.reset(token)
            known = call.model or (asked[2] if asked and asked[3] and asked[2] in self._server.models else "")
            telemetry.answered(
                call, known, str(status), time.monotonic() - started, quiet=not (asked and asked[3]) and status < 400
            )

    async def _pass(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        call: Call,
        headers: dict[str, str],
        hold: Callable[[int], None],
    ) -> None:
        try:
            self._server.access.check(scope["path"], headers)
            if scope["method"] != "POST" and scope["path"].endswith((":predict", ":explain")):
                # kserve's route GET /v1/models/{model_name} would look for a model of that name
                raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, "Method Not Allowed", {"Allow": "POST"})
            call.deadline = deadline(call.headers, self._server.settings.timeout)
            self._server.admit(scope["path"])
            scope = self._versioned(scope, call)
            body = await self._body(receive, call, hold)
        except HTTPException as error:
            await _say(error.status_code, error.detail, error.headers)(scope, receive, send)
            return
        except KINDS as error:
            await _of(fault(error))(scope, receive, send)
            return
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
        served = [predictor.version for predictor in self._server.live.serving]
        if name in self._server.models and version not in served:
            text = f"model {name!r} has no version {version!r}; served: {', '.join(map(repr, served))}"
            raise HTTPException(HTTPStatus.NOT_FOUND, text)
        call.version = version
        path = model + (rest or "")
        return {**scope, "path": path, "raw_path": path.encode()}

    async def _body(self, receive: Receive, call: Call, hold: Callable[[int], None]) -> bytes:
        most, parts, received = self._server.settings.body, [], 0
        try:
            async with asyncio.timeout_at(call.deadline):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise HTTPException(HTTPStatus.BAD_REQUEST, "the body did not come whole")
                    received += len(message.get("body", b""))
                    if received <= most:
                        parts.append(message.get("body", b""))
                        hold(len(parts[-1]))
                    else:  # read on, keeping nothing: closing on a caller that still sends would lose the answer
                        parts.clear()
                    if not message.get("more_body") or received > 4 * most:
                        break
        except TimeoutError:
            raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, "the body did not come in time") from None
        if received > most:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {most} bytes")
        return parts[0] if len(parts) == 1 else b"".join(parts)


class _Heads(HttpToolsProtocol):
    """uvicorn's protocol, with an end to how long and how large the part before a body may be."""

    _late: asyncio.TimerHandle | None = None  # set while a head is not whole
    _size = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._late is not None:
            self._size += len(data)
            if self._size > HEAD_BYTES:
                self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._late is None:
            self._wait()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._size = 0
        self._late = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


async def _watch(receive: Receive, call: Call) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    call.abandon()


class Rest(RESTServer):  # type: ignore[misc]
    """kserve's REST server on a socket that is already bound.

    Questions have routes of their own: kserve's parse a V2 body twice, drop the fields they do not know, and
    validate the answer once more. The repository's endpoints answer the admin.
    """

    def __init__(self, listener: socket.socket, server: Server) -> None:
        super().__init__(
            "kserve.model_server:app",
            server.dataplane,
            server.model_repository_extension,
            listener.getsockname()[1],
            grace_period=server.settings.grace,
            timeout_keep_alive=server.timeout_keep_alive,
        )
        self.config.server_header = False
        self.config.http = _Heads
        self.config.ws = "none"
        self._listener = listener
        self._house = server
        self._server.capture_signals = contextlib.nullcontext  # the house has its own

    def _register_endpoints(self, app: FastAPI) -> None:
        app.router.routes[:0] = [
            Route("/v1/models/{model}:predict", self._predict, methods=["POST"]),
            Route("/v1/models/{model}:explain", self._explain, methods=["POST"]),
            Route("/v2/models/{model}/infer", self._infer, methods=["POST"]),
            Route("/v2/repository/models/{model}/load", self._load, methods=["POST"]),
            Route("/v2/repository/models/{model}/unload", self._unload, methods=["POST"]),
            *self._house.routes,
        ]
        super()._register_endpoints(app)
        app.openapi = lambda: openapi.document(self._house)  # type: ignore[method-assign]

    def _add_exception_handlers(self, app: FastAPI) -> None:
        for kind in (*KINDS, Exception):
            app.add_exception_handler(kind, _answer_fault)
        app.add_exception_handler(HTTPException, _answer_http)
        app.add_exception_handler(RequestValidationError, _answer_malformed)

    def _add_middlewares(self, app: FastAPI) -> None:
        app.add_middleware(Gate, server=self._house)

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
        await self._house.require(name)
        headers = CALL.get().headers
        try:
            payload, attributes = self.dataplane.decode(
                await request.body(), {**headers, "content-type": _type(headers)}
            )
        except InvalidInput:
            raise
        except Exception:  # what kserve's reading of a CloudEvent meets
            raise InvalidInput("the headers or the body announce a CloudEvent, but it is not one") from None
        answer, _ = await ask(name, payload, headers)
        content, more = self.dataplane.encode(name, answer, headers, attributes)
        more.pop("content-length", None)
        if not isinstance(content, bytes):
            content = content.encode() if isinstance(content, str) else orjson.dumps(content)
        return Response(content, headers={"content-type": _JSON, **more})

    async def _infer(self, request: Request) -> Response:
        name = request.path_params["model"]
        await self._house.require(name)
        headers = CALL.get().headers
        payload = v2.from_rest(await request.body(), headers.get(v2.HEADER_LENGTH), name)
        answer, _ = await self.dataplane.infer(name, payload, headers)
        body, length = v2.to_rest(answer)
        if length is None:
            return Response(body, media_type=_JSON)
        return Response(body, media_type="application/octet-stream", headers={v2.HEADER_LENGTH: str(length)})

    async def _load(self, request: Request) -> Response:
        return self._repository(request, "load", self._house.registered_models.load)

    async def _unload(self, request: Request) -> Response:
        return self._repository(request, "unload", self._house.registered_models.unload)

    def _repository(self, request: Request, verb: str, act: Callable[[str], Any]) -> Response:
        name = request.path_params["model"]
        act(name)
        return Response(orjson.dumps({"name": name, verb: True}), media_type=_JSON)


def _type(headers: Mapping[str, str]) -> str:
    """kserve parses JSON under four exact content types and hands the model bytes under any other."""
    given = headers.get("content-type", "")
    return given if given.startswith("application/cloudevents") else _JSON


def _say(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps({"error": text}), status, headers, media_type=_JSON)


def _of(found: Fault) -> Response:
    return _say(found.http, found.text, found.headers)


async def _answer_fault(_: Request, error: Exception) -> Response:
    return _of(fault(error))


async def _answer_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _say(error.status_code, error.detail, error.headers)


async def _answer_malformed(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    return _say(HTTPStatus.BAD_REQUEST, f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}")
