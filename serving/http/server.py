"""A real `kserve.ModelServer`, locked down.

What the stock server (0.21) does and this one does not: bind every interface, share its gRPC port
with a second server (SO_REUSEPORT), let anyone unload a model, read bodies of any size, queue
without a bound, answer the caller's mistakes with 500 and our mistakes with the exception's text,
refuse `application/json; charset=utf-8`, claim extensions that are off, and on SIGTERM take the
models away from requests that still come.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import kserve
from kserve.protocol.dataplane import DataPlane
from starlette.routing import BaseRoute

import tasteloop
from serving.answering.batching import Batcher, QueueFull
from serving.answering.live import Live
from serving.answering.models import Models, Repository
from serving.http import v2
from serving.http.access import OPEN, Access
from serving.http.rest import Rest
from serving.http.rpc import Rpc
from serving.observe import telemetry
from serving.settings import ServerSettings
from tasteloop import files
from tasteloop.errors import TasteloopError

logger = logging.getLogger(__name__)

# ends of what is answered from the queue
_ASKING = (":predict", ":explain", "/infer", "/ModelInfer")


class _Plane(DataPlane):  # type: ignore[misc]
    """kserve's data plane with liveness, readiness and metadata that are true."""

    def __init__(self, server: Server) -> None:
        super().__init__(server.registered_models)
        self._house = server

    async def live(self) -> dict[str, str]:
        """Not alive once nobody computes any more: only a restart helps then."""
        return {"status": "alive" if self._house.alive else "dead"}

    async def ready(self) -> bool:
        return self._house.ready

    async def model_ready(
        self, model_name: str, disable_predictor_health_check: bool = False
    ) -> bool:
        return bool(await super().model_ready(model_name, True)) and self._house.ready

    def metadata(self) -> dict[str, Any]:
        return {"name": "tasteloop", "version": tasteloop.__version__, "extensions": [v2.EXTENSION]}

    async def model_metadata(self, model_name: str) -> dict[str, Any]:
        metadata = await super().model_metadata(model_name)
        versions = [
            predictor.version
            for predictor in self._house.live.serving
            if model_name in predictor.models
        ]
        return {**metadata, "versions": versions, "platform": "tasteloop"}


class Budget:
    """Bytes of memory that requests share."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._used = 0

    @property
    def is_spent(self) -> bool:
        return self._used >= self._most

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """What it yields takes so many bytes, until the context ends.

        Raises:
            QueueFull: (what it yields) they are more than there are; none of them is taken.
        """
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if self._used + size > self._most:
                raise QueueFull(1.0)
            taken += size
            self._used += size

        try:
            yield take
        finally:
            self._used -= taken


class Server(kserve.ModelServer):  # type: ignore[misc]
    """A `kserve.ModelServer` on one address, for whoever is `live`.

    The ports are bound on construction, so that a taken one is known before a model is loaded;
    connections are accepted from `start` on, when the predictor is warm. Port 0 is any free one.

    Attributes:
        draining: SIGTERM came: not ready any more, but what comes is still answered.

    Raises:
        TasteloopError: a port that is taken, or an address that is not this machine's.
    """

    def __init__(
        self, settings: ServerSettings, access: Access, routes: Sequence[BaseRoute] = ()
    ) -> None:
        super().__init__(
            http_port=settings.port,
            grpc_port=settings.grpc_port,
            workers=1,
            enable_latency_logging=False,
            grace_period=settings.grace,
        )
        # What it logs again is already in the log, under the id that the caller got.
        logging.getLogger("uvicorn.error").addFilter(
            lambda entry: "ASGI application" not in str(entry.msg)
        )
        logging.getLogger("uvicorn.access").propagate = False
        self.settings = settings
        self.access = access
        self.routes = routes
        self.draining = False
        self._under_way = 0
        self._bodies = Budget(settings.bodies)
        self.answers = Budget(settings.answers)
        self._listener = bind(settings.host, settings.port, "--port")
        if settings.grpc_port:
            bind(settings.host, settings.grpc_port, "--grpc-port").close()

    @property
    def live(self) -> Live:
        return self._batcher.live

    @property
    def models(self) -> tuple[str, ...]:
        return self.live.current.models

    @property
    def alive(self) -> bool:
        """Whether there is somebody to compute."""
        return self._batcher.alive

    @property
    def ready(self) -> bool:
        """Warm, and not on its way out."""
        return not self.draining and self.alive

    async def require(self, model: str) -> None:
        """Raises ModelNotFound for one that is not there, or was taken out of service."""
        if not await self.registered_models.is_model_ready(model):
            raise self.registered_models.not_found(model)

    @contextmanager
    def under_way(self) -> Iterator[Callable[[int], None]]:
        """One request more. What it yields takes so many bytes for its body until it ends, or
        raises QueueFull.
        """
        self._under_way += 1
        try:
            with self._bodies.share() as hold:
                yield hold
        finally:
            self._under_way -= 1

    def admit(self, place: str) -> None:
        """Before a body is read: raises QueueFull where too many requests are under way, or where
        the queue would refuse whatever is asked, or where the answers that nobody takes leave no
        room. Probes always pass.
        """
        if place not in OPEN and (
            self._under_way > self.settings.requests or self.answers.is_spent
        ):
            raise QueueFull(1.0)
        if place.endswith(_ASKING):
            self._batcher.admit()

    def open(self, batcher: Batcher) -> None:
        """Everything but the network: the servers of both protocols, for a warm predictor's
        batcher.
        """
        self._batcher = batcher
        self.registered_models = Models(batcher)
        self.model_repository_extension = Repository(self.registered_models, self.access)
        self.dataplane = _Plane(self)
        self._rest_server = Rest(self._listener, self)
        self._grpc_server = Rpc(self)

    def start(self, batcher: Batcher) -> None:
        """Serve until SIGTERM or SIGINT, and until what was accepted by then is answered."""
        self.open(batcher)
        asyncio.run(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        rest = asyncio.create_task(self._rest_server.start())
        rpc = asyncio.create_task(self._grpc_server.start(self.max_threads))
        stopped = asyncio.create_task(stop.wait())
        announced = asyncio.create_task(self._announce())
        await asyncio.wait({rest, rpc, stopped}, return_when=asyncio.FIRST_COMPLETED)
        announced.cancel()
        if not stopped.done():  # one of them did not start, or ended by itself
            for task in (rest, rpc):
                if task.done():
                    task.result()
            raise TasteloopError("a server ended by itself; the log says why")
        await self._drain()
        await asyncio.gather(rest, rpc)
        await loop.run_in_executor(None, self._batcher.close)

    async def _drain(self) -> None:
        self.draining = True
        telemetry.READY.set(0)
        logger.info(
            "stopping: not ready any more, answering what still comes for %g s",
            self.settings.linger,
        )
        await asyncio.sleep(self.settings.linger)
        self._rest_server.stop()
        await self._grpc_server.stop()

    async def _announce(self) -> None:
        while not (self._rest_server.started and self._grpc_server.bound):
            await asyncio.sleep(0.01)
        http = address(self.settings.host, self._listener.getsockname()[1])
        rpc = address(self.settings.host, self._grpc_server.bound)
        version = self.live.current.version
        telemetry.READY.set(1)
        logger.info(
            "serving %s, version %s, on http://%s and gRPC %s",
            ", ".join(self.models),
            version,
            http,
            rpc,
        )
        if self.settings.ready_file:
            files.write_json(
                self.settings.ready_file,
                {"http": f"http://{http}", "grpc": rpc, "version": version},
            )


def address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind(host: str, port: int, option: str) -> socket.socket:
    """A bound socket that does not listen yet."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ][0]
        # asyncio sets TCP_NODELAY only where the protocol is named; without it an answer waits 40
        # ms for an ACK.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise taken(host, port, option) from None
        raise TasteloopError(
            f"cannot listen on {address(host, port)}: {error.strerror or error}"
        ) from None
    return listener


def taken(host: str, port: int, option: str) -> TasteloopError:
    return TasteloopError(
        f"{address(host, port)} is taken by another program; choose another {option} (0: any free one)"
    )
