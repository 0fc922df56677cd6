"""V2 over gRPC, with a gate that checks what REST's checks, and with the same faults."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.protobuf.json_format import MessageToDict, ParseDict  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from google.protobuf.struct_pb2 import Struct  # type: ignore[import-untyped]
from kserve.errors import InvalidInput, ModelNotFound
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from kserve.protocol.grpc.server import GRPCServer
from kserve.protocol.grpc.servicer import InferenceServicer

from serving.answering.call import CALL, Call
from serving.headers import REQUEST_ID_HEADER, TOKEN_HEADER
from serving.histories.service import HistoryService
from serving.http import connections, v2
from serving.http.addresses import address, port_is_taken
from serving.http.admission import Admission
from serving.http.calls import deadline, in_time, request_id
from serving.http.connection_limits import fit_open_files
from serving.http.faults import fault
from serving.http.repository import Repository


class _Gate(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """What `rest.Gate` is for REST. The caller's deadline is gRPC's own, and a caller who leaves
    cancels the task.

    It takes the message as bytes and parses it only after the caller was admitted.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    async def intercept_service(
        self, continuation: Callable[..., Any], details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        handler = await continuation(details)
        if handler is None:  # no such method
            return None

        async def answer(message: bytes, context: grpc.aio.ServicerContext) -> Any:
            return await self._answer(handler, message, context, details.method)

        return grpc.unary_unary_rpc_method_handler(answer, None, handler.response_serializer)

    async def _answer(
        self,
        handler: grpc.RpcMethodHandler,
        message: bytes,
        context: grpc.aio.ServicerContext,
        method: str,
    ) -> Any:
        # 1. the call
        started = time.monotonic()
        headers = {
            key.lower(): value
            for key, value in context.invocation_metadata()
            if isinstance(value, str)
        }
        most = self._admission.settings.timeout
        call = Call(request_id(headers.get(REQUEST_ID_HEADER)), "grpc", headers, started + most)
        token = CALL.set(call)
        is_question = method.endswith("/ModelInfer")
        model = ""  # of the question
        code = grpc.StatusCode.OK
        context.set_trailing_metadata(((REQUEST_ID_HEADER, call.id),))
        try:
            # 2. admission
            call.is_admin = self._admission.access.check(method, headers)
            self._admission.admit(method)
            remaining = context.time_remaining()
            seconds = most if remaining is None else remaining
            call.deadline = min(deadline(headers, most), started + seconds)

            # 3. the answer
            with self._admission.under_way() as hold:
                hold(len(message))
                request = _parse(handler, message, method)
                if is_question and request.model_name in self._admission.models:
                    model = request.model_name
                answer = await handler.unary_unary(request, context)
            if call.feedback_token:
                context.set_trailing_metadata(
                    ((REQUEST_ID_HEADER, call.id), (TOKEN_HEADER, call.feedback_token))
                )
            return answer
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
            raise
        except Exception as error:
            answered_fault = fault(error)
            code = answered_fault.grpc
            trailing = [(name.lower(), value) for name, value in answered_fault.headers.items()]
            context.set_trailing_metadata((*trailing, (REQUEST_ID_HEADER, call.id)))
            await context.abort(answered_fault.grpc, answered_fault.text)
        finally:
            # 4. the note of it
            CALL.reset(token)
            quiet = not is_question and code is grpc.StatusCode.OK
            self._admission.observer.answered(
                call, call.model or model, code.name, time.monotonic() - started, quiet
            )


def _parse(handler: grpc.RpcMethodHandler, message: bytes, method: str) -> Any:
    """The message of a method.

    Raises:
        InvalidInput: the bytes are no such message.
    """
    try:
        return handler.request_deserializer(message)
    except DecodeError:
        name = method.rsplit("/", 1)[-1]
        raise InvalidInput(
            f"the {len(message)} bytes of the message are no {name}Request of the Open Inference Protocol; "
            "send one that was made from its grpc_predict_v2.proto"
        ) from None


class _Servicer(InferenceServicer):  # type: ignore[misc]
    """kserve's servicer, with versions."""

    def __init__(self, admission: Admission, dataplane: DataPlane, repository: Repository) -> None:
        super().__init__(dataplane, repository)
        self._admission = admission

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        call = CALL.get()
        call.version = request.model_version or None
        await self._admission.require(request.model_name)
        answer, _ = await self._data_plane.infer(
            request.model_name, v2.from_grpc(request), dict(call.headers)
        )
        return v2.to_grpc(answer)

    async def ModelReady(self, request: Any, context: Any) -> Any:
        self._require_version(request.name, request.version)
        return await super().ModelReady(request, context)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        self._require_version(request.name, request.version)
        return pb.ModelMetadataResponse(**await self._data_plane.model_metadata(request.name))

    def _require_version(self, name: str, version: str) -> None:
        served = [predictor.version for predictor in self._admission.live.serving]
        if version and version not in served:
            raise ModelNotFound(f"{name} version {version}")


HISTORIES_SERVICE = "tasteloop.v1.Histories"
"""`Append` takes and answers what `POST /v1/events` does, each as a google.protobuf.Struct."""


def _history_methods(histories: HistoryService) -> grpc.GenericRpcHandler:
    """The service of histories. Its messages are well-known types: a caller needs no other file."""

    async def append(request: Struct, _: grpc.aio.ServicerContext) -> Struct:
        try:
            fields = MessageToDict(request)
        except ValueError:  # JSON has no NaN and no infinity
            raise InvalidInput("a number of the message is not finite") from None
        rows = fields.get("events")
        if set(fields) != {"events"} or not isinstance(rows, list):
            raise InvalidInput('the message must have the field "events", a list, and no other')
        key = CALL.get().headers.get("idempotency-key")
        body = request.SerializeToString(deterministic=True)
        answer = await in_time(histories.store_rows(rows, key, body))
        return ParseDict(answer, Struct())

    method = grpc.unary_unary_rpc_method_handler(
        append, Struct.FromString, Struct.SerializeToString
    )
    return grpc.method_handlers_generic_handler(HISTORIES_SERVICE, {"Append": method})


class Rpc(GRPCServer):  # type: ignore[misc]
    """kserve's gRPC server, on an address that it shares with no other server."""

    def __init__(
        self,
        admission: Admission,
        dataplane: DataPlane,
        repository: Repository,
        keep_alive: int,
    ) -> None:
        settings = admission.settings
        super().__init__(
            settings.grpc_port,
            dataplane,
            repository,
            {},
            grace_period=settings.grace,
        )
        self._admission = admission
        self._questions = _Servicer(admission, dataplane, repository)
        self._keep_alive = keep_alive
        self.bound: int | None = None

    async def start(self, max_workers: int) -> None:
        settings = self._admission.settings
        self._server = grpc.aio.server(
            interceptors=(_Gate(self._admission),),
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", settings.body),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_concurrent_streams", settings.requests),
                (
                    "grpc.max_allowed_incoming_connections",
                    fit_open_files(settings.connections),
                ),
                ("grpc.server_handshake_timeout_ms", int(1000 * connections.HEAD_SECONDS)),
                ("grpc.max_connection_idle_ms", 1000 * self._keep_alive),
            ],
        )
        add_GRPCInferenceServiceServicer_to_server(self._questions, self._server)
        histories = self._admission.live.histories
        if histories is not None:
            self._server.add_generic_rpc_handlers((_history_methods(histories),))
        try:
            port = self._server.add_insecure_port(address(settings.host, settings.grpc_port))
        except RuntimeError:
            raise port_is_taken(settings.host, settings.grpc_port, "--grpc-port") from None
        await self._server.start()
        self.bound = port
        await self._server.wait_for_termination()
