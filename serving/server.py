"""A real `kserve.ModelServer`, locked down.

What the stock server (0.21) does and this one does not: bind every interface, share its gRPC port with a
second server (SO_REUSEPORT), let anyone unload a model, read bodies of any size, answer the caller's
mistakes with 500 and our mistakes with the exception's text, refuse `application/json; charset=utf-8`,
claim extensions that are off.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import re
import socket
import uuid
from http import HTTPStatus
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import kserve
from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from grpc_interceptor import AsyncExceptionToStatusInterceptor
from kserve.errors import (
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    ServerNotLive,
    ServerNotReady,
    UnsupportedProtocol,
)
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from kserve.protocol.grpc.server import GRPCServer
from kserve.protocol.grpc.servicer import InferenceServicer
from kserve.protocol.rest.server import RESTServer
from kserve.protocol.rest.v2_datamodels import InferenceRequest
from pydantic import ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import tasteloop
from serving.models import TasteModel
from tasteloop import files
from tasteloop.errors import TasteloopError

logger = logging.getLogger(__name__)

MAXIMUM_BODY = 4 * 1024 * 1024  # bytes, REST and gRPC
GRACE_PERIOD = 10  # seconds for requests under way after SIGTERM

_FAULTS: dict[type[Exception], tuple[HTTPStatus, grpc.StatusCode]] = {
    InvalidInput: (HTTPStatus.BAD_REQUEST, grpc.StatusCode.INVALID_ARGUMENT),
    ModelNotFound: (HTTPStatus.NOT_FOUND, grpc.StatusCode.NOT_FOUND),
    ModelNotReady: (HTTPStatus.SERVICE_UNAVAILABLE, grpc.StatusCode.UNAVAILABLE),
    ServerNotReady: (HTTPStatus.SERVICE_UNAVAILABLE, grpc.StatusCode.UNAVAILABLE),
    ServerNotLive: (HTTPStatus.SERVICE_UNAVAILABLE, grpc.StatusCode.UNAVAILABLE),
    UnsupportedProtocol: (HTTPStatus.NOT_IMPLEMENTED, grpc.StatusCode.UNIMPLEMENTED),
    NotImplementedError: (HTTPStatus.NOT_IMPLEMENTED, grpc.StatusCode.UNIMPLEMENTED),
}


def _fault(error: Exception) -> tuple[HTTPStatus, grpc.StatusCode, str]:
    """What a caller may know of an error: ours get an id, under which the log has the rest."""
    for kind, (http, rpc) in _FAULTS.items():
        if isinstance(error, kind):
            return http, rpc, (str(error) or "not implemented").encode(errors="replace").decode()
    identity = uuid.uuid4().hex
    logger.error("internal error %s", identity, exc_info=error)
    return HTTPStatus.INTERNAL_SERVER_ERROR, grpc.StatusCode.INTERNAL, f"internal error {identity}"


async def _answer_fault(_: Request, error: Exception) -> JSONResponse:
    status, _, text = _fault(error)
    return JSONResponse({"error": text}, status)


async def _answer_http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StarletteHTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def _answer_malformed(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return JSONResponse({"error": _first(error.errors())}, HTTPStatus.BAD_REQUEST)


def _first(problems: Any) -> str:
    """The first of pydantic's problems as `inputs.0.shape: Field required`, without the caller's data."""
    problem = problems[0]
    if problem["type"] == "json_invalid":
        return f"the body is not JSON: {problem['ctx']['error']}"
    skipped = {"body", "InferenceRequest", "bytes"}
    place = ".".join(str(part) for part in problem["loc"] if part not in skipped)
    return f"{place or 'body'}: {problem['msg']}"


class Gate:
    """ASGI middleware: 413 for a body above `MAXIMUM_BODY`, 404 for a version that is not served."""

    _VERSIONED = re.compile(r"(/v2/models/([^/]+))/versions/([^/]+)(/.*)?")

    def __init__(self, app: ASGIApp, version: str) -> None:
        self._app = app
        self._version = version

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if match := self._VERSIONED.fullmatch(scope["path"]):
            model, name, version, rest = match.groups()
            if version != self._version:
                text = f"model {name!r} has no version {version!r}; served: {self._version!r}"
                await JSONResponse({"error": text}, HTTPStatus.NOT_FOUND)(scope, receive, send)
                return
            path = model + (rest or "")
            scope = {**scope, "path": path, "raw_path": path.encode()}
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAXIMUM_BODY:
                # Read on, keeping nothing: closing on a caller that still sends would lose the answer.
                while message.get("more_body") and received <= 4 * MAXIMUM_BODY:
                    message = await receive()
                    received += len(message.get("body", b""))
                raise HTTPException(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {MAXIMUM_BODY} bytes"
                )
            return message

        await self._app(scope, counted, send)


class _Plane(DataPlane):  # type: ignore[misc]
    """kserve's data plane with metadata that is true and decoding that blames whom it should."""

    def __init__(self, registry: Any, version: str) -> None:
        super().__init__(registry)
        self.version = version

    def metadata(self) -> dict[str, Any]:
        return {"name": "tasteloop", "version": tasteloop.__version__, "extensions": ["binary_tensor_data"]}

    async def model_metadata(self, model_name: str) -> dict[str, Any]:
        metadata = await super().model_metadata(model_name)
        return {**metadata, "versions": [self.version], "platform": "tasteloop"}

    def decode(
        self, body: Any, headers: dict[str, str], protocol_version: str = "v1", model_name: str | None = None
    ) -> tuple[Any, dict[str, Any]]:
        # kserve parses JSON under four exact content types, and hands the model bytes under any other.
        if not headers.get("content-type", "").startswith("application/cloudevents"):
            headers = {**headers, "content-type": "application/json"}
        return super().decode(body, headers, protocol_version, model_name)  # type: ignore[no-any-return]

    def decode_inference_request(self, body: Any, headers: dict[str, str], model_name: str) -> Any:
        try:
            if isinstance(body, bytes) and "inference-header-content-length" not in headers:
                body = InferenceRequest.model_validate_json(body)
            return super().decode_inference_request(body, headers, model_name)
        except InvalidInput:
            raise
        except ValidationError as error:
            raise InvalidInput(_first(error.errors())) from None
        except Exception:  # kserve's parser lets out whatever its slicing and indexing meet
            raise InvalidInput("the body does not follow the V2 protocol's binary tensor data extension") from None


class _WithoutRepository:
    """A `FastAPI` to which the endpoints that load and unload models are not added."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def include_router(self, router: APIRouter, **options: Any) -> None:
        router.routes[:] = [route for route in router.routes if "/repository/" not in getattr(route, "path", "")]
        self._app.include_router(router, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)


class _Rest(RESTServer):  # type: ignore[misc]
    """kserve's REST server on a socket that is already bound, without the repository's endpoints."""

    def __init__(self, listener: socket.socket, version: str, server: Server) -> None:
        super().__init__(
            "kserve.model_server:app",
            server.dataplane,
            server.model_repository_extension,
            listener.getsockname()[1],
            grace_period=server.grace_period,
            timeout_keep_alive=server.timeout_keep_alive,
        )
        self._listener = listener
        self._version = version

    def _register_endpoints(self, app: FastAPI) -> None:
        super()._register_endpoints(_WithoutRepository(app))

    def _add_exception_handlers(self, app: FastAPI) -> None:
        for kind in (*_FAULTS, Exception):
            app.add_exception_handler(kind, _answer_fault)
        app.add_exception_handler(StarletteHTTPException, _answer_http)
        app.add_exception_handler(RequestValidationError, _answer_malformed)

    def _add_middlewares(self, app: FastAPI) -> None:
        app.add_middleware(Gate, version=self._version)

    @property
    def started(self) -> bool:
        return bool(self._server.started)

    async def start(self) -> None:
        self.create_application()
        await self._server.serve(sockets=[self._listener])


class _Faults(AsyncExceptionToStatusInterceptor):
    """gRPC status codes from the same table as REST's. kserve's own loses the text of four of its errors."""

    async def handle_exception(
        self, ex: Exception, request_or_iterator: Any, context: grpc.aio.ServicerContext, method_name: str
    ) -> Any:
        if isinstance(ex, grpc.aio.AbortError):
            raise ex
        _, status, text = _fault(ex)
        await context.abort(status, text)


class _Servicer(InferenceServicer):  # type: ignore[misc]
    """kserve's servicer; a named version must be the one served, and nobody loads or unloads models."""

    def _check(self, name: str, version: str) -> None:
        if version and version != self._data_plane.version:
            raise ModelNotFound(f"{name} version {version}")

    async def ModelReady(self, request: Any, context: Any) -> Any:
        self._check(request.name, request.version)
        return await super().ModelReady(request, context)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        self._check(request.name, request.version)
        return pb.ModelMetadataResponse(**await self._data_plane.model_metadata(request.name))

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:
        raise NotImplementedError("this server does not load models on request")

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:
        raise NotImplementedError("this server does not unload models on request")


class _Grpc(GRPCServer):  # type: ignore[misc]
    """kserve's gRPC server on one address of its own."""

    def __init__(self, host: str, port: int, server: Server) -> None:
        super().__init__(
            port, server.dataplane, server.model_repository_extension, {}, grace_period=server.grace_period
        )
        self._host = host
        self.bound: int | None = None

    async def start(self, max_workers: int) -> None:
        self._server = grpc.aio.server(
            interceptors=(_Faults(),),
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", MAXIMUM_BODY),
                ("grpc.max_send_message_length", -1),
            ],
        )
        servicer = _Servicer(self._data_plane, self._model_repository_extension)
        add_GRPCInferenceServiceServicer_to_server(servicer, self._server)
        try:
            port = self._server.add_insecure_port(address(self._host, self._port))
        except RuntimeError:
            raise _taken(self._host, self._port, "--grpc-port") from None
        await self._server.start()
        self.bound = port
        await self._server.wait_for_termination()


class Server(kserve.ModelServer):  # type: ignore[misc]
    """A `kserve.ModelServer` for one version of the models, on one address.

    The ports are bound on construction, so that a taken one is known before a model is loaded; connections
    are accepted from `start` on. Port 0 is any free one.

    Args:
        ready_file: written once both protocols answer: {"http": URL, "grpc": "host:port", "version"}.

    Raises:
        TasteloopError: a port that is taken, or an address that is not this machine's.
    """

    def __init__(self, host: str, port: int, grpc_port: int, ready_file: Path | None = None) -> None:
        super().__init__(
            http_port=port,
            grpc_port=grpc_port,
            workers=1,
            enable_latency_logging=False,
            grace_period=GRACE_PERIOD,
        )
        # What it logs again is already in the log, under the id that the caller got.
        logging.getLogger("uvicorn.error").addFilter(lambda entry: "ASGI application" not in entry.msg)
        self.host = host
        self._listener = bind(host, port, "--port")
        if grpc_port:
            bind(host, grpc_port, "--grpc-port").close()
        self._ready_file = ready_file

    def start(self, models: list[TasteModel]) -> None:
        """Serve until SIGTERM or SIGINT."""
        self._version = models[0].version
        self.dataplane = _Plane(self.registered_models, self._version)
        self._register_and_check_atleast_one_model_is_ready(models)
        self._rest_server = _Rest(self._listener, self._version, self)
        self._grpc_server = _Grpc(self.host, self.grpc_port, self)
        self.servers = [
            self._rest_server.start(),
            self._grpc_server.start(self.max_threads),
            self._announce(),
        ]
        self.setup_event_loop()
        self.register_signal_handler()
        asyncio.run(self._serve())

    async def _announce(self) -> None:
        while not (self._rest_server.started and self._grpc_server.bound):
            await asyncio.sleep(0.01)
        http = address(self.host, self._listener.getsockname()[1])
        rpc = address(self.host, self._grpc_server.bound)
        names = ", ".join(self.registered_models.get_models())
        logger.info("serving %s, version %s, on http://%s and gRPC %s", names, self._version, http, rpc)
        if self._ready_file:
            files.write_json(self._ready_file, {"http": f"http://{http}", "grpc": rpc, "version": self._version})


def address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind(host: str, port: int, option: str) -> socket.socket:
    """A bound socket that does not listen yet."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise _taken(host, port, option) from None
        raise TasteloopError(f"cannot listen on {address(host, port)}: {error.strerror or error}") from None
    return listener


def _taken(host: str, port: int, option: str) -> TasteloopError:
    return TasteloopError(
        f"{address(host, port)} is taken by another program; choose another {option} (0: any free one)"
    )
