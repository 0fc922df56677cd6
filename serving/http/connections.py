"""HTTP connections: how much each may send ahead, how long it may take, and how many there may be.

uvicorn gives a connection that waits between two answers a clock and no other. Here every
connection has one at every moment (`Phase`), so that whoever stops sending or reading is let go.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import resource
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from enum import Enum
from functools import partial
from itertools import chain
from typing import Any, cast

import httptools
import orjson
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from serving.observe import telemetry

# request line and headers; and again between two parts of a body: chunk extensions, trailers
HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 10.0  # from a connection's first byte, or from being open, to the end of the headers
# in which the rest of a request is discarded that was answered before it had come whole
LINGER_SECONDS = 10.0
# of that rest; closing on a caller who still sends would lose the answer
LINGER_BYTES = 16 * 1024 * 1024
LATE_SECONDS = 10.0  # that an application may begin its answer after its own deadline
# requests that wait behind the one that is answered; a connection that sends more is closed after
# them
PIPELINED = 16
# bytes that are parsed at once, so that what they begin stays within the bounds above
_PIECE = 4096

_BACKLOG = 2048  # connections that the kernel keeps until they are accepted
_ACCEPTED_AT_ONCE = 16  # asyncio opens so many before it looks at the first
# that connections leave to everything else: journal, database, a new bundle, what is being accepted
_SPARE_FILES = 128
_FEWEST = 8  # connections, however few files the process may open

logger = logging.getLogger(__name__)


class Phase(Enum):
    """What a connection waits for."""

    HEAD = "a request"
    IDLE = "the next request"
    BODY = "a body"
    REQUEST = "its answer to begin"
    ANSWER = "its caller to take the answer"
    LINGER = "the end of what was answered already"


# to a new connection, in this order
_GIVES_WAY = (Phase.HEAD, Phase.LINGER, Phase.IDLE, Phase.BODY, Phase.ANSWER)


def fit_open_files(most: int) -> int:
    """So many connections at once, or fewer: accepting one must not fail for want of files.

    HTTP and gRPC each get half of the files that the process may still open and that nothing else
    needs.
    """
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return most
    free = allowed - len(
        os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd")
    )
    return min(most, max(_FEWEST, (free - _SPARE_FILES) // 2))


class Connections:
    """All connections of one server: at most `most`, and at most `most_of_one` from one address.

    A connection that is one too many takes the place of the one that has waited longest for its
    caller: to ask, to send a body, to take an answer. Where every connection waits for the server,
        the new one is closed.
    """

    def __init__(self, most: int, most_of_one: int) -> None:
        self.most = most
        self.most_of_one = most_of_one
        self._addresses: Counter[str] = Counter()
        # longest first
        self._by_phase: dict[Phase, dict[GuardedProtocol, None]] = {phase: {} for phase in Phase}

    def __len__(self) -> int:
        return self._addresses.total()

    def add(self, connection: GuardedProtocol) -> None:
        address = connection.address
        if self._addresses[address] >= self.most_of_one and not self._close_one(address):
            return connection.abort("its address has too many connections")
        if len(self) >= self.most and not self._close_one():
            return connection.abort("too many connections")
        self._addresses[address] += 1
        self._by_phase[connection.phase][connection] = None
        return None

    def remove(self, connection: GuardedProtocol) -> None:
        if self._by_phase[connection.phase].pop(connection, self) is None:
            self._addresses[connection.address] -= 1
            if not self._addresses[connection.address]:
                del self._addresses[connection.address]

    def move(self, connection: GuardedProtocol, phase: Phase) -> None:
        if self._by_phase[connection.phase].pop(connection, self) is None:
            self._by_phase[phase][connection] = None

    def _close_one(self, address: str | None = None) -> bool:
        """Make room; returns whether there was a connection (of the address) that could be
        closed.
        """
        waiting: Iterable[GuardedProtocol] = chain.from_iterable(
            self._by_phase[phase] for phase in _GIVES_WAY
        )
        chosen = next((one for one in waiting if address in (None, one.address)), None)
        if chosen is None:
            return False
        self.remove(chosen)
        chosen.abort("another connection took its place")
        return True


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, in which every connection has a clock, and everything that it may
    hold a bound.

    Args:
        connections: those of its server.
        seconds: within which an answer begins, and within which its caller takes it.
    """

    def __init__(self, *, connections: Connections, seconds: float, **given: Any) -> None:
        super().__init__(**given)
        self.phase = Phase.HEAD
        self.address = ""
        self._connections = connections
        self._seconds = {
            Phase.HEAD: HEAD_SECONDS,
            Phase.IDLE: float(self.timeout_keep_alive),
            Phase.BODY: seconds + LATE_SECONDS,
            Phase.REQUEST: seconds + LATE_SECONDS,
            Phase.ANSWER: seconds,
            Phase.LINGER: LINGER_SECONDS,
        }
        self._timer: asyncio.TimerHandle | None = None
        self._timed: tuple[Phase, RequestResponseCycle | None] | None = None
        self._answering: RequestResponseCycle | None = None
        self._lingers = False
        self._reads = True  # False: what still comes is discarded
        self._discarded = 0
        self._between = True  # no byte of the next request was parsed yet
        self._answered = False  # a request of this connection was
        self._in_head = True
        self._counts_body = False  # its end is known by its length
        self._ahead = 0  # bytes since the last of a body
        self._line = bytearray()  # of which the end has not come

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # `flow.drain` then waits until the caller has taken everything
        transport.set_write_buffer_limits(0)
        super().connection_made(transport)
        self.address = _network(self.client[0]) if self.client else ""
        self._connections.add(self)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.remove(self)
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def abort(self, why: str) -> None:
        """Close now, whatever has not been sent."""
        if not self.transport.is_closing():
            telemetry.CLOSED.labels(why).inc()
        self.transport.abort()

    def _watch(self) -> None:
        """Set the clock for what the connection waits for; it keeps the one that runs where that is
        the same.
        """
        phase, cycle = self._current_phase(), self._answering
        if (phase, cycle) == self._timed or self.transport.is_closing():
            return
        if self._timer is not None:
            self._timer.cancel()
        self._connections.move(self, phase)
        self.phase, self._timed = phase, (phase, cycle)
        self._timer = self.loop.call_later(
            self._seconds[phase], self.abort, f"waited too long for {phase.value}"
        )

    def _current_phase(self) -> Phase:
        if self._lingers:
            return Phase.LINGER
        if self._answering is not None and self._answering.response_started:
            return Phase.ANSWER
        if self._answering is not None:
            return Phase.BODY if self._answering.more_body else Phase.REQUEST
        return Phase.IDLE if self._answered and self._between and not self._ahead else Phase.HEAD

    # What comes

    def data_received(self, data: bytes) -> None:
        if self._line:
            data, self._line = bytes(self._line) + data, bytearray()
        rest = memoryview(data)
        while rest and self._reads:
            piece, rest = rest[:_PIECE], rest[_PIECE:]
            if len(piece) < _PIECE and self._is_inside_line(piece):
                # The parser copies a growing header value whenever it grows: it gets whole lines
                # where they are short.
                self._line += piece
            else:
                self._parse(piece)
        if not self._reads:
            self._discarded += len(data)
            if self._discarded > HEAD_BYTES and self._answering is None:
                self.transport.close()
        self._watch()

    def _is_inside_line(self, piece: memoryview) -> bool:
        return not self._between and not self._counts_body and b"\n" not in bytes(piece)

    def _parse(self, piece: memoryview) -> None:
        while piece and self._reads:
            self._ahead += len(piece)
            try:
                piece = self._feed(piece)
            except httptools.HttpParserError:
                self._refuse(400, "this is not a request of HTTP/1.1")
        if self._reads and self._ahead > HEAD_BYTES:
            self._refuse(
                431,
                f"the headers, or what comes beside the body, are larger than {HEAD_BYTES} bytes",
            )

    def _feed(self, piece: memoryview) -> memoryview:
        """Parse; returns what is left of the piece behind a head that asks for another protocol."""
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade()
            return piece[upgrade.args[0] :]
        return piece[len(piece) :]

    def _ignore_upgrade(self) -> None:
        """Parse a head again without its wish for another protocol, for which the parser would keep
        the body.

        Java's client sends `Upgrade: h2c` with its first request.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (method, self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                value = b",".join(
                    option for option in value.split(b",") if option.strip().lower() != b"upgrade"
                )
            if name != b"upgrade":
                lines.append(name + b": " + value)
        if method == b"CONNECT":
            raise httptools.HttpParserError("CONNECT is for proxies")
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.parser.feed_data(b"\r\n".join([*lines, b"", b""]))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._between, self._in_head, self._counts_body = False, True, False

    def on_header(self, name: bytes, value: bytes) -> None:
        # trailers are nobody's: a header must not come after what it allows was decided
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        if len(self.pipeline) >= PIPELINED:
            self._read_no_more()
            return
        super().on_headers_complete()
        self._in_head, self._ahead = False, 0
        self._counts_body = all(name != b"transfer-encoding" for name, _ in self.headers)

    def on_body(self, body: bytes) -> None:
        if self._reads:
            self._ahead = 0
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade() or not self._reads:
            return
        super().on_message_complete()
        self._between, self._counts_body, self._ahead = True, False, 0

    def _refuse(self, status: int, text: str) -> None:
        """Answer what cannot be read, unless requests before it still wait for their answers, and
        read no more.
        """
        logger.warning("%s sent what cannot be read: %s", self.address, text)
        broken = self.cycle
        if broken is not None and broken.more_body and not broken.response_complete:
            # it is a body that cannot be read: whoever waits for it is told
            broken.disconnected = True
            broken.waiting_for_100_continue = False
            broken.message_event.set()
            if self.pipeline:
                self.pipeline.popleft()
                self.cycle = (
                    self.pipeline[0][0]
                    if self.pipeline
                    else cast(RequestResponseCycle, self._answering)
                )
            elif broken.response_started:
                self._reads = False
                self.transport.close()
                return
            else:
                self._answering = None
        if self._answering is not None:
            self._read_no_more()
            return
        self._reads, self._lingers = False, True
        content = orjson.dumps({"error": text})
        head = (
            b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            % len(content)
        )
        self.transport.write(STATUS_LINE[status] + head + content)
        self.transport.write_eof()

    def _read_no_more(self) -> None:
        """Close after the requests that came."""
        self._reads = False
        self.cycle.keep_alive = False

    # What goes

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, partial(self._answer, cycle, app))

    async def _answer(
        self, cycle: RequestResponseCycle, app: ASGIApp, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Run the application. Its last `send` returns when the caller has taken the answer, or is
        gone.

        An answer that is given before its request has come whole is the connection's last: what of
        the request still comes is discarded for a while, so that the caller, who may read only
        after having sent, gets the answer.
        """

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                if cycle.more_body:
                    message = {
                        **message,
                        "headers": [*message.get("headers", []), (b"connection", b"close")],
                    }
                await send(message)
                self._watch()
            elif message.get("more_body"):
                await send(message)
            else:
                await send({**message, "more_body": True})
                await self.flow.drain()
                await self._discard_rest(cycle, receive)
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await app(scope, receive, sending)

    async def _discard_rest(self, cycle: RequestResponseCycle, receive: Receive) -> None:
        left = LINGER_BYTES
        while cycle.more_body and not cycle.disconnected and left > 0:
            self._lingers = True
            self._watch()
            left -= len((await receive()).get("body", b""))

    def on_response_complete(self) -> None:
        self._answering, self._answered = None, True
        super().on_response_complete()
        self._unset_keepalive_if_required()  # the clock is set here
        self._watch()


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
        for name in ("asyncio", "uvicorn.error", __name__):
            logging.getLogger(name).addFilter(_REPEATED_LINES)
        self.connections.most = fit_open_files(self.connections.most)
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(_BACKLOG)


class RepeatedLines(logging.Filter):
    """Lets through so many lines a minute of one line of code; the next to pass says how many did
    not.
    """

    def __init__(
        self, most: int = 5, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._most, self._seconds, self._clock = most, seconds, clock
        self._seen: dict[tuple[str, int, Any], tuple[float, int]] = {}  # since when, and how many

    def filter(self, record: logging.LogRecord) -> bool:
        key = (record.pathname, record.lineno, record.exc_info and record.exc_info[0])
        now = self._clock()
        since, count = self._seen.get(key, (now, 0))
        if now - since >= self._seconds:
            if count > self._most:
                record.msg = f"{record.getMessage()} (and {count - self._most} times more since the last such line)"
                record.args = ()
            since, count = now, 0
        self._seen[key] = since, count + 1
        return count < self._most


_REPEATED_LINES = RepeatedLines()


def _network(host: str) -> str:
    """The address whose connections are counted together: of IPv6 the network, since one caller has
    all of it.
    """
    try:
        address = ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))
