"""Bytes that nobody would send, to the real application: each is answered or refused, and nothing
is left behind.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.http.connections import HEAD_BYTES, PIPELINED, GuardedProtocol
from tests.support.edge import ASK, ONE, ask, open_house, request, running, statuses

pytestmark = [
    pytest.mark.slow,
    pytest.mark.fuzz,
    pytest.mark.filterwarnings("ignore:ORJSONResponse is deprecated"),
]

UNLOAD = "/v2/repository/models/interests/unload"


class Wire(asyncio.Transport):
    """A connection in memory, whose other end reads at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.loop = loop
        self.written = b""
        self.reads = True
        self._ended = self._closing = False

    def start(self, protocol: GuardedProtocol) -> None:
        self.protocol = protocol
        protocol.connection_made(self)

    def write(self, data: Any) -> None:
        if self._ended:
            raise RuntimeError("Cannot call write() after write_eof()")
        self.written += bytes(data)

    def write_eof(self) -> None:
        self._ended = True

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self.loop.call_soon(self.protocol.connection_lost, None)

    abort = close

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class Driver:
    """Drives one application through its protocol class, in a loop of its own."""

    def __init__(self, house: Any) -> None:
        self.house = house
        self.errors: list[Any] = []
        self.runner = asyncio.Runner()
        self.loop = self.runner.get_loop()
        self.loop.set_exception_handler(lambda _, context: self.errors.append(context))
        house._rest_server.create_application()
        self.server = house._rest_server._server
        self.server.config.load()
        application = self.server.config.loaded_app

        async def watched(scope: Any, receive: Any, send: Any) -> None:
            try:
                await application(scope, receive, send)
            except Exception as error:
                self.errors.append(error)
                raise

        self.server.config.loaded_app = watched

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    def connect(self) -> tuple[Wire, GuardedProtocol]:
        wire = Wire(self.loop)
        protocol = GuardedProtocol(
            connections=self.server.connections,
            seconds=5.0,
            config=self.server.config,
            server_state=self.server.server_state,
            app_state={},
            _loop=self.loop,
        )
        wire.start(protocol)
        return wire, protocol

    async def send(self, pieces: Sequence[bytes], half_closes: bool) -> bytes:
        """What is answered to the pieces; everything that must hold of the connection meanwhile and
        afterwards.
        """
        wire, protocol = self.connect()
        try:
            await self._converse(wire, protocol, pieces, half_closes)
        finally:
            wire.abort()
            await asyncio.wait_for(self._idle(), 60)
        assert len(self.server.connections) == 0
        assert self.errors == []
        return wire.written

    async def _converse(
        self, wire: Wire, protocol: GuardedProtocol, pieces: Sequence[bytes], half_closes: bool
    ) -> None:
        for piece in pieces:
            await self._until(lambda: wire.reads or wire.is_closing(), protocol)
            if wire.is_closing() or not wire.reads:
                break
            protocol.data_received(piece)
            assert len(protocol.pipeline) <= PIPELINED and len(protocol._line) <= 4096
            headers = protocol.headers or []
            assert sum(len(name) + len(value) for name, value in headers) <= HEAD_BYTES + 2 * 4096
            assert wire.is_closing() or is_timed(protocol)
        if half_closes and not protocol.eof_received():  # type: ignore[func-returns-value]
            wire.close()
        await self._until(lambda: not self.server.server_state.tasks, protocol)
        assert wire.is_closing() or is_timed(protocol)

    async def _until(self, holds: Any, protocol: GuardedProtocol) -> None:
        """Until then, or until the connection waits for more bytes."""
        for _ in range(2000):
            await asyncio.sleep(0)
            cycle = protocol._answering
            if holds() or (cycle is not None and cycle.more_body and not cycle.body):
                break
            await asyncio.sleep(0.0005)

    async def _idle(self) -> None:
        state = self.server.server_state
        while state.tasks or state.connections:
            await asyncio.sleep(0.0005)


def is_timed(protocol: GuardedProtocol) -> bool:
    return protocol._timer is not None and not protocol._timer.cancelled()


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    with open_house(timeout=5.0, body=100_000) as house:
        driver = Driver(house)
        yield driver
        driver.runner.close()


def check(driver: Driver, answer: bytes) -> None:
    assert all(status < 500 or status == 501 for status in statuses(answer)), answer
    assert driver.house.registered_models._unloaded == set()


def test_a_body_that_breaks_before_it_was_asked_for(driver: Driver) -> None:
    broken = request(body=b"nonsense\r\n", Expect="100-continue", Transfer_Encoding="chunked")

    assert statuses(driver.run(driver.send([broken], False))) == [400]


class CountingParser:
    def __init__(self, parser: Any) -> None:
        self.parser = parser
        self.fed = 0

    def feed_data(self, data: Any) -> None:
        self.fed += 1
        self.parser.feed_data(data)


@pytest.mark.parametrize(
    "before", [b"GET / HTTP/1.1\r\nX: ", request(body=b"0\r\nX: ", Transfer_Encoding="chunked")]
)
def test_a_growing_value_is_not_copied_at_every_byte(driver: Driver, before: bytes) -> None:
    async def grow() -> int:
        wire, protocol = driver.connect()
        protocol.data_received(before)
        protocol.parser = CountingParser(protocol.parser)
        for _ in range(60_000):
            protocol.data_received(b"x")
        fed: int = protocol.parser.fed
        wire.abort()
        await driver._idle()
        return fed

    assert driver.run(grow()) <= 60_000 // 4096 + 1


def check_another(driver: Driver) -> None:
    assert statuses(driver.run(driver.send([request()], False))) == [200]


# What is sent

NUMBERS = st.integers(0, 200).map(str) | st.sampled_from(
    ["", "-1", "+5", "0x5", "9" * 30, "9" * 5000, "33", "33, 33", " 33"]
)
HEADERS = st.one_of(
    st.tuples(st.just("Content-Length"), NUMBERS),
    st.tuples(
        st.just("Transfer-Encoding"),
        st.sampled_from(["chunked", "gzip", "gzip, chunked", "Chunked"]),
    ),
    st.tuples(
        st.just("Connection"),
        st.sampled_from(["close", "keep-alive", "Upgrade", "Upgrade, close", "upgrade"]),
    ),
    st.tuples(st.just("Upgrade"), st.sampled_from(["h2c", "websocket", "HTTP/2.0", ""])),
    st.tuples(st.just("Expect"), st.sampled_from(["100-continue", "200-ok"])),
    st.tuples(
        st.just("Content-Encoding"), st.sampled_from(["gzip", "br", "identity", "gzip, gzip"])
    ),
    st.tuples(
        st.just("Origin"),
        st.sampled_from(["http://localhost", "http://evil.example", "null", "http://["]),
    ),
    st.tuples(
        st.just("Host"), st.sampled_from(["localhost", "evil.example", "[::1]:80", "[", "", ":"])
    ),
    st.tuples(st.just("X-Request-Timeout-Ms"), NUMBERS),
    st.tuples(st.just("Inference-Header-Content-Length"), NUMBERS),
    st.tuples(
        st.just("Content-Type"),
        st.sampled_from(["text/plain", "application/cloudevents+json", "x"]),
    ),
    st.tuples(st.just("Ce-Id"), st.text("ab\x0b", max_size=3)),
    st.tuples(st.text("abC-_ :\r\n\x00", max_size=5), st.text("ab:, \t\r\n\x00\x7fé", max_size=9)),
    st.tuples(st.just("X-Long"), st.integers(0, 70_000).map("x".__mul__)),
)
PATHS = st.sampled_from(
    [
        ASK,
        "/v2/models/sentiment/infer",
        "/v2/health/live",
        "/v2",
        "/metrics",
        "/v1/feedback",
        "/v1/status",
        UNLOAD,
    ]
    + [
        UNLOAD + "%0A",
        "*",
        "http://localhost/v2",
        "//",
        "/%",
        "/%ff",
        "/?a",
        "localhost:80",
        "/é",
        "",
    ]
)
METHODS = st.sampled_from(
    ["POST", "GET", "HEAD", "OPTIONS", "PUT", "CONNECT", "PRI", "post", "M-SEARCH", "X"]
)
BODIES = st.sampled_from(
    [ONE, b"", b"{", gzip.compress(ONE), gzip.compress(ONE)[:-3], gzip.compress(b" " * 200_000)]
)
EXTENSIONS = st.sampled_from([b"", b";a", b";a=b", b";" + b"x" * 5000, b" "])


@st.composite
def chunks(draw: Any, body: bytes) -> bytes:
    parts = []
    while body:
        size = draw(st.integers(1, len(body)))
        parts.append(b"%x%s\r\n%s\r\n" % (size, draw(EXTENSIONS), body[:size]))
        body = body[size:]
    trailers = draw(st.lists(HEADERS, max_size=3))
    lines = b"".join(f"{name}: {value}\r\n".encode() for name, value in trailers)
    return b"".join(parts) + b"0%s\r\n%s\r\n" % (draw(EXTENSIONS), lines)


@st.composite
def messages(draw: Any) -> bytes:
    """A request that is well-formed but for what its headers say."""
    body, headers = draw(BODIES), dict(draw(st.lists(HEADERS, max_size=3)))
    form = draw(st.sampled_from(["length", "chunked", "neither"]))
    token = draw(st.sampled_from([None, "api-token-of-a-test"]))
    if form == "chunked":
        headers.setdefault("Transfer-Encoding", "chunked")
    head = request(draw(PATHS), b"", draw(METHODS), token, **headers)
    if form == "length" and "Content-Length" not in headers:
        head = head[:-2] + b"Content-Length: %d\r\n\r\n" % len(body)
    return head + (draw(chunks(body)) if form == "chunked" else body)


@st.composite
def streams(draw: Any) -> list[bytes]:
    """Requests behind one another, with something changed, cut off somewhere, in pieces."""
    stream = b"".join(draw(st.lists(messages() | st.just(request()), min_size=1, max_size=4)))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(stream)))
        new = draw(
            st.binary(max_size=4)
            | st.sampled_from([b"\r\n", b"\n", b"\r\n\r\n", b"\0", b"0\r\n\r\n", request()])
        )
        stream = stream[:at] + new + stream[at + draw(st.integers(0, 3)) :]
    if draw(st.booleans()):
        stream = stream[: draw(st.integers(0, len(stream)))]
    if len(stream) < 1500 and draw(st.booleans()):
        return [bytes([byte]) for byte in stream]
    size = draw(st.integers(1, 300) | st.integers(1000, 100_000))
    size = max(size, len(stream) // 300)
    return [stream[at : at + size] for at in range(0, len(stream), size)]


@given(pieces=streams(), half_closes=st.booleans())
def test_any_bytes_are_answered_or_refused_and_the_connection_has_a_clock(
    driver: Driver, pieces: list[bytes], half_closes: bool
) -> None:
    check(driver, driver.run(driver.send(pieces, half_closes)))
    check_another(driver)


ODD = st.sampled_from(
    list("/.;?#% \\:@&=+~|*")
    + ["%2F", "%2f", "%0A", "%0D", "%00", "%E2%80%A8", "%C2%85", "//", "/..", "%25"]
)


@st.composite
def spellings(draw: Any) -> str:
    """The path under which a model is unloaded, written so that a guard may not see what a route
    sees.
    """
    text = ""
    for character in UNLOAD:
        way = draw(st.integers(0, 40))
        text += (
            f"%{ord(character):02x}" if way == 0 else character.upper() if way == 1 else character
        )
        text += draw(ODD) if way == 2 else ""
    return draw(ODD | st.just("")) + text + draw(ODD | st.just(""))


@given(path=spellings(), method=st.sampled_from(["POST", "GET", "PUT", "post"]))
def test_no_spelling_of_a_path_passes_by_the_admin(driver: Driver, path: str, method: str) -> None:
    answer = driver.run(driver.send([request(path, b"", method)], False))

    check(driver, answer)
    assert 200 not in statuses(answer)


@settings(max_examples=max(10, settings.default.max_examples // 5))
@given(streams=st.lists(streams(), min_size=1, max_size=4))
def test_any_bytes_over_sockets(
    sockets: tuple[Any, tuple[str, int]], streams: list[list[bytes]]
) -> None:
    house, address = sockets
    opened = [socket.create_connection(address, timeout=30) for _ in streams]
    for connection, pieces in zip(opened, streams, strict=True):
        with suppress(OSError):  # closed meanwhile
            for piece in pieces if len(pieces) < 50 else [b"".join(pieces)]:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
    for connection in opened:
        received = b""
        with connection, suppress(ConnectionError):
            while part := connection.recv(65536):
                received += part
        assert all(status < 500 or status == 501 for status in statuses(received)), received

    assert statuses(ask(address, request())) == [200]
    assert house.registered_models._unloaded == set()
    deadline = time.monotonic() + 30
    while house.admission.answers._used or house.admission._under_way:
        assert time.monotonic() < deadline, "what was held is not given back"
        time.sleep(0.001)


@pytest.fixture(scope="module")
def sockets() -> Iterator[tuple[Any, tuple[str, int]]]:
    with open_house(timeout=5.0, body=100_000) as house, running(house) as address:
        yield house, address
