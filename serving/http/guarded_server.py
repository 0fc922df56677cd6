"""The uvicorn server whose connections have clocks and bounds."""

from __future__ import annotations

import logging
import socket
from functools import partial

import uvicorn

from serving.http import connections
from serving.http.connection_limits import Connections, fit_open_files
from serving.http.connections import GuardedProtocol
from serving.observe.repeated_lines import RepeatedLines

_BACKLOG = 2048  # connections that the kernel holds until they are accepted
_ACCEPTED_AT_ONCE = 16  # asyncio opens so many before it looks at the first
_REPEATED_LINES = RepeatedLines()  # one for all servers of the process, as loggers are


class GuardedServer(uvicorn.Server):
    """A uvicorn server whose connections are guarded.

    Args:
        most, most_of_one: see `Connections`; fewer where the process may not open so many files.
        seconds: see `GuardedProtocol`.
    """

    def __init__(self, config: uvicorn.Config, most: int, most_of_one: int, seconds: float) -> None:
        self.connections = Connections(most, most_of_one)
        config.http = partial(GuardedProtocol, connections=self.connections, seconds=seconds)  # type: ignore[assignment]
        config.ws = "none"
        config.server_header = False
        config.backlog = _ACCEPTED_AT_ONCE
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        for name in ("asyncio", "uvicorn.error", connections.logger.name):
            logging.getLogger(name).addFilter(_REPEATED_LINES)
        # A path may name a user, and `serving.access` has a line for each request.
        lines = logging.getLogger("uvicorn.access")
        lines.handlers.clear()
        lines.propagate = False
        self.connections.most = fit_open_files(self.connections.most)
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(_BACKLOG)
