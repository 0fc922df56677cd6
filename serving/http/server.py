"""A real `kserve.ModelServer`, locked down.

The stock server (0.21) does the following, and this one does not: bind every interface, share its
gRPC port with a second server (SO_REUSEPORT), let anyone unload a model, read bodies of any size,
queue without a bound, answer the caller's mistakes with 500 and our mistakes with the exception's
text, refuse `application/json; charset=utf-8`, claim extensions that are off, and on SIGTERM take
the models away from requests that still come.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence
from typing import Any

import kserve
from kserve.protocol.dataplane import DataPlane
from starlette.routing import BaseRoute

import tasteloop
from serving.answering.batching import Batcher
from serving.http import v2
from serving.http.access import Access
from serving.http.addresses import address, bind
from serving.http.admission import Admission
from serving.http.repository import Repository
from serving.http.rest import Rest
from serving.http.rpc import Rpc
from serving.observe import telemetry
from serving.observe.observer import Observer
from serving.settings import ServerSettings
from tasteloop import files
from tasteloop.errors import TasteloopError

logger = logging.getLogger(__name__)


class _Plane(DataPlane):  # type: ignore[misc]
    """kserve's data plane with liveness, readiness and metadata that are true."""

    def __init__(self, admission: Admission) -> None:
        super().__init__(admission.repository)
        self._admission = admission

    async def live(self) -> dict[str, str]:
        """Dead when the compute thread has ended: only a restart helps then."""
        return {"status": "alive" if self._admission.alive else "dead"}

    async def ready(self) -> bool:
        return self._admission.ready

    async def model_ready(
        self, model_name: str, disable_predictor_health_check: bool = False
    ) -> bool:
        return bool(await super().model_ready(model_name, True)) and self._admission.ready

    def metadata(self) -> dict[str, Any]:
        return {"name": "tasteloop", "version": tasteloop.__version__, "extensions": [v2.EXTENSION]}

    async def model_metadata(self, model_name: str) -> dict[str, Any]:
        metadata = await super().model_metadata(model_name)
        versions = [
            predictor.version
            for predictor in self._admission.live.serving
            if model_name in predictor.models
        ]
        return {**metadata, "versions": versions, "platform": "tasteloop"}


class Server(kserve.ModelServer):  # type: ignore[misc]
    """A `kserve.ModelServer` on one address, for the live predictor.

    The ports are bound on construction, so that a port that is in use is noticed before a model is
    loaded. Connections are accepted from `start` on, when the predictor is warm. Port 0 is any free
    one.

    Args:
        access: who may ask.
        routes: what it answers beside the models.
        observer: notes every request after it was answered.

    Attributes:
        admission: what the gates of both protocols share; it exists from `open` on.

    Raises:
        TasteloopError: a port is in use, or the address is not this machine's.
    """

    def __init__(
        self,
        settings: ServerSettings,
        access: Access,
        routes: Sequence[BaseRoute] = (),
        observer: Observer | None = None,
    ) -> None:
        super().__init__(
            http_port=settings.port,
            grpc_port=settings.grpc_port,
            workers=1,
            enable_latency_logging=False,
            grace_period=settings.grace,
        )
        # uvicorn logs errors again that are already in the log, under the id that the caller got.
        logging.getLogger("uvicorn.error").addFilter(
            lambda entry: "ASGI application" not in str(entry.msg)
        )
        logging.getLogger("uvicorn.access").propagate = False
        self.settings = settings
        self.access = access
        self.routes = routes
        self.observer = observer or Observer()
        self._listener = bind(settings.host, settings.port, "--port")
        if settings.grpc_port:
            bind(settings.host, settings.grpc_port, "--grpc-port").close()

    def open(self, batcher: Batcher) -> None:
        """Make the servers of both protocols, for the batcher of a warm predictor; they do not
        listen yet.
        """
        self._batcher = batcher
        self.admission = Admission(self.settings, self.access, batcher, self.observer)
        self.registered_models = self.admission.repository
        self.model_repository_extension = Repository(self.registered_models, self.access)
        self.dataplane = _Plane(self.admission)
        keep_alive = self.timeout_keep_alive
        parts = (self.admission, self.dataplane, self.model_repository_extension, keep_alive)
        self._rest_server = Rest(self._listener, *parts, self.routes)
        self._grpc_server = Rpc(*parts)

    def start(self, batcher: Batcher) -> None:
        """Serve until SIGTERM or SIGINT, and until what was accepted by then is answered."""
        self.open(batcher)
        asyncio.run(self._run())

    async def _run(self) -> None:
        # 1. start
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        rest = asyncio.create_task(self._rest_server.start())
        rpc = asyncio.create_task(self._grpc_server.start(self.max_threads))
        stopped = asyncio.create_task(stop.wait())
        announced = asyncio.create_task(self._announce())

        # 2. wait for a signal
        await asyncio.wait({rest, rpc, stopped}, return_when=asyncio.FIRST_COMPLETED)
        announced.cancel()
        if not stopped.done():  # one of them did not start, or ended by itself
            for task in (rest, rpc):
                if task.done():
                    task.result()
            raise TasteloopError("a server ended by itself; the log says why")

        # 3. drain
        await self._drain()
        await asyncio.gather(rest, rpc)
        await loop.run_in_executor(None, self._batcher.close)

    async def _drain(self) -> None:
        self.admission.draining = True
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
        version = self.admission.live.current.version
        telemetry.READY.set(1)
        logger.info(
            "serving %s, version %s, on http://%s and gRPC %s",
            ", ".join(self.admission.models),
            version,
            http,
            rpc,
        )
        if self.settings.ready_file:
            files.write_json(
                self.settings.ready_file,
                {"http": f"http://{http}", "grpc": rpc, "version": version},
            )
