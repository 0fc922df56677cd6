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
from serving.http.faults import KINDS, Fault, fault
from serving.http.guarded_server import GuardedServer
from serving.http.repository import Repository

_JSON = "application/json"
_SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
# protocol, model, and what is asked of it: nothing where only metadata are
_MODEL_PATH = re.compile(r"/(v[12])/models/([^/:]+)(:predict|:explain|/infer)?")
_VERSIONED_PATH = re.compile(r"(/v2/models/([^/]+))/versions/([^/]+)(/.*)?")


class Gate:
    """ASGI middleware that decides who may ask, how much, how long and which version, and that
    notes each request after it was answered.

    It reads the body itself, within the caps, so that nothing below waits for a caller. While an
    answer is computed it watches the connection, so that nothing is computed for a caller who has
    left. A request is under way from the moment its caller may ask until the caller has taken the
    answer.
    """

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app = app
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        # 1. the call
        started = time.monotonic()
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        path = _MODEL_PATH.match(scope["path"])
        call = Call(
            request_id(headers.get(REQUEST_ID_HEADER)),
            path[1] if path else "http",
            headers,
            started + self._admission.settings.timeout,
        )
        status, answered_at = 0, started

        with self._admission.answers.share() as hold_answer:
            begin: Message | None = None

            async def send_within_budget(message: Message) -> None:
                """Send the status only with the first bytes of the body, so that another answer can
                be sent where there is no room for this one.
                """
                nonlocal begin, status, answered_at
                if message["type"] == "http.response.start":
                    begin = message
                    return
                if begin is not None:
                    try:
                        hold_answer(len(message.get("body", b"")))
                    except QueueFull as error:
                        begin, message = _messages(_fault_response(fault(error)))
                    status = begin["status"]
                    headers_sent = [*begin.get("headers", []), *self._headers(call)]
                    await send({**begin, "headers": headers_sent})
                    begin = None
                answered_at = time.monotonic()
                await send(message)  # returns when the caller has taken it

            token = CALL.set(call)
            try:
                # 2. its answer
                refusal = await self._admit(scope, receive, send_within_budget, call, headers)
                # A refused request is no longer under way: its caller may take long to read this.
                if refusal is not None:
                    await refusal(scope, receive, send_within_budget)
            finally:
                # 3. the note of it
                CALL.reset(token)
                is_question = path is not None and path[3] is not None
                model = call.model
                if not model and path and is_question and path[2] in self._admission.models:
                    model = path[2]
                self._admission.observer.answered(
                    call,
                    model,
                    str(status),
                    answered_at - started,
                    quiet=not is_question and status < 400,
                )

    def _headers(self, call: Call) -> list[tuple[bytes, bytes]]:
        """The headers that every answer gets."""
        headers = [*_SECURITY, (REQUEST_ID_HEADER.encode(), call.id.encode())]
        if call.feedback_token:
            headers.append((TOKEN_HEADER.encode(), call.feedback_token.encode()))
        if self._admission.draining:
            headers.append((b"connection", b"close"))
        return headers

    async def _admit(
        self, scope: Scope, receive: Receive, send: Send, call: Call, headers: dict[str, str]
    ) -> Response | None:
        """Let the application answer, or return the refusal. The caller of this method sends it,
        when the request is no longer under way.
        """
        try:
            call.is_admin = self._admission.access.check_http(
                scope["method"], scope["path"], headers
            )
            with self._admission.under_way() as hold:
                is_of_model = scope["path"].startswith("/v1/models/")
                is_verb = is_of_model and scope["path"].endswith((":predict", ":explain"))
                if scope["method"] != "POST" and is_verb:
                    # kserve's route GET /v1/models/{model_name} would look for a model of that name
                    raise HTTPException(
                        HTTPStatus.METHOD_NOT_ALLOWED, "Method Not Allowed", {"Allow": "POST"}
                    )
                call.deadline = deadline(call.headers, self._admission.settings.timeout)
                self._admission.admit(scope["path"])
                scope = self._without_version(scope, call)
                body = await read_body(
                    scope, receive, self._admission.settings.body, call.deadline, hold
                )
                await self._answer(scope, receive, send, call, body)
        except HTTPException as error:
            return _error_response(error.status_code, error.detail, error.headers)
        except KINDS as error:
            return _fault_response(fault(error))
        return None

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, call: Call, body: bytes
    ) -> None:
        """Run the application on a body that was read already."""
        is_received = False

        async def receive_body() -> Message:
            nonlocal is_received
            if is_received:
                return await receive()
            is_received = True
            return {"type": "http.request", "body": body, "more_body": False}

        watch: asyncio.Task[None] | None = None
        if scope["method"] == "POST":
            watch = asyncio.create_task(_abandon_when_caller_leaves(receive, call))
        try:
            await self._app(scope, receive_body, send)
        finally:
            if watch:
                watch.cancel()

    def _without_version(self, scope: Scope, call: Call) -> Scope:
        """The request with the path of its model; a version that the path names is noted on the
        call.

        Raises:
            HTTPException: 404, that version is not served.
        """
        match = _VERSIONED_PATH.fullmatch(scope["path"])
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


async def _abandon_when_caller_leaves(receive: Receive, call: Call) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    call.abandon()


class Rest(RESTServer):  # type: ignore[misc]
    """kserve's REST server on a socket that is already bound.

    Questions have routes of our own, because kserve's parse a V2 body twice, drop the fields that
    they do not know, and validate the answer once more.
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
            "",  # the application's import path; see `create_application`
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
        self._server.capture_signals = contextlib.nullcontext  # type: ignore[assignment, method-assign]  # Server handles signals

    def create_application(self) -> None:
        """Create an application for this server alone. kserve has one for the whole process, which
        a second server would share with the first.
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
                await request.body(), {**headers, "content-type": _content_type(headers)}
            )
        except InvalidInput:
            raise
        except Exception:  # kserve raises anything where a CloudEvent is none
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


def _content_type(headers: Mapping[str, str]) -> str:
    """The content type for kserve, which parses JSON only under four exact ones and hands the model
    bytes under any other.
    """
    header = headers.get("content-type", "")
    return header if header.startswith("application/cloudevents") else _JSON


def _error_response(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps({"error": text}), status, headers, media_type=_JSON)


def _fault_response(answer: Fault) -> Response:
    return _error_response(answer.http, answer.text, answer.headers)


def _messages(response: Response) -> tuple[Message, Message]:
    """A response as the two messages that ASGI sends."""
    start = {
        "type": "http.response.start",
        "status": response.status_code,
        "headers": response.raw_headers,
    }
    return start, {"type": "http.response.body", "body": bytes(response.body)}


async def _answer_fault(_: Request, error: Exception) -> Response:
    return _fault_response(fault(error))


async def _answer_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error_response(error.status_code, error.detail, error.headers)


async def _answer_malformed(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    field = ".".join(str(part) for part in problem["loc"])
    return _error_response(HTTPStatus.BAD_REQUEST, f"{field}: {problem['msg']}")
