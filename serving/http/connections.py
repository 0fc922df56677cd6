"""One HTTP connection: how much its caller may send ahead, and how long everything may take.

uvicorn gives a clock only to a connection that waits between two answers. Here every connection has
one at every moment (`Phase`), so that a caller who stops sending or reading is let go.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any, cast

import httptools
import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from serving.http.connection_limits import Connections, Phase, counted_address
from serving.observe import telemetry

# The most that the request line and the headers may have together; also what may come between two
# parts of a body, such as chunk extensions, and after it, as trailers.
HEAD_BYTES = 64 * 1024
# From a connection's opening, or the first byte of its next request, to the end of the headers.
HEAD_SECONDS = 10.0
# A request that was answered before all of it had come is read on and discarded, for so long and so
# many bytes: closing on a caller who still sends would lose the answer.
LINGER_SECONDS = 10.0
LINGER_BYTES = 16 * 1024 * 1024
# By how much an application may begin its answer after its own deadline.
LATE_SECONDS = 10.0
# Requests that may wait behind the one that is answered. A connection that sends more is closed
# after them.
PIPELINED = 16
# Bytes that are parsed at once: few, so that what they begin stays within the bounds above.
_PIECE = 4096

logger = logging.getLogger(__name__)


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, in which every connection has a clock, and everything that it may
    hold a bound.

    Args:
        connections: those of its server.
        seconds: within which an answer begins, and within which its caller takes it.
        options: those of uvicorn's protocol.

    Attributes:
        phase: what the connection waits for.
        address: the address under which it is counted.
    """

    def __init__(self, *, connections: Connections, seconds: float, **options: Any) -> None:
        super().__init__(**options)
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

        # 1. the clock, and what it was set for
        self._timer: asyncio.TimerHandle | None = None
        self._timed: tuple[Phase, RequestResponseCycle | None] | None = None

        # 2. answers
        self._answering: RequestResponseCycle | None = None
        self._answered = False  # at least one request of this connection was answered
        self._lingers = False  # the rest of an answered request is read and discarded

        # 3. what comes
        self._reads = True  # False: what still comes is discarded
        self._discarded = 0  # bytes
        self._between = True  # no byte of the next request was parsed yet
        self._in_head = True  # the headers have not ended
        self._counts_body = False  # the body ends by its length, not by a last chunk
        self._ahead = 0  # bytes that came since the last byte of a body
        self._line = bytearray()  # the beginning of a line whose end has not come

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # `flow.drain` then waits until the caller has taken everything
        transport.set_write_buffer_limits(0)
        super().connection_made(transport)
        self.address = counted_address(self.client[0]) if self.client else ""
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
        """Set the clock for what the connection waits for. A clock that runs for the same goes
        on.
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
        """Parse a head again without its `Upgrade`, because of which the parser would not parse the
        body.

        Java's client sends `Upgrade: h2c` with its first request.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (method, self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                options = value.split(b",")
                value = b",".join(
                    option for option in options if option.strip().lower() != b"upgrade"
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
        # Trailers are dropped: a header that comes after the body must not decide anything.
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
        """Read no more, and answer with this error, unless requests before it still wait for their
        answers.
        """
        logger.warning("%s sent what cannot be read: %s", self.address, text)

        # 1. a body that cannot be read: whoever waits for the rest learns that it does not come
        broken = self.cycle
        if broken is not None and broken.more_body and not broken.response_complete:
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

        # 2. requests before it are answered first, and the connection is closed after them
        if self._answering is not None:
            self._read_no_more()
            return

        # 3. the error
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
        """Run the application. Its last `send` returns when the caller has taken the answer, or has
        left.

        An answer to a request that has not come completely is the connection's last. The rest of
        that request is discarded for a while, so that a caller who sends everything before reading
        gets the answer.
        """

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                if cycle.more_body:
                    headers = [*message.get("headers", []), (b"connection", b"close")]
                    message = {**message, "headers": headers}
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
