"""What a caller may do to a server by its bytes alone: hold a connection, send without end, not
read, pretend.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.answering.call import CALL, Call
from serving.http import connection_limits, connections
from serving.http.connection_limits import counted_address, fit_open_files
from serving.http.faults import Forbidden
from serving.journal.writer import Journal
from serving.observe.repeated_lines import RepeatedLines
from serving.settings import JournalSettings
from tests.support.edge import (
    ADMIN,
    API,
    ASK,
    FEEDBACK,
    ONE,
    ask,
    is_closed,
    open_house,
    read,
    request,
    running,
    statuses,
)
from tests.support.processes import HOUSE

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:ORJSONResponse is deprecated")]

Address = tuple[str, int]
PROBE = request("/v2/health/live", b"", "GET", token=None)
UNLOAD, READY = "/v2/repository/models/interests/unload", "/v2/models/interests/ready"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    journal = Journal(JournalSettings(directory=tmp_path_factory.mktemp("journal"), seconds=0.05))
    with open_house(
        journal, timeout=10.0, connections=60, connections_of_one=40, body=100_000
    ) as house:
        yield house
    journal.close()


@pytest.fixture(scope="module")
def address(house: Any) -> Iterator[Address]:
    """Its clocks run fast."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "HEAD_SECONDS", 0.5)
        patch.setattr(connections, "LINGER_SECONDS", 0.5)
        with running(house) as address:
            yield address


@pytest.fixture
def impatient() -> Iterator[Any]:
    """A server that waits a second for whoever does not read, and keeps little for them."""
    with open_house(timeout=1.0, answers=12_000_000) as house:
        yield house


def open_connections(address: Address, number: int, first: bytes = b"") -> list[socket.socket]:
    opened = [socket.create_connection(address, timeout=10) for _ in range(number)]
    for connection in opened:
        connection.sendall(first)
    return opened


# Who may load and unload


@pytest.mark.parametrize(
    "path",
    [
        UNLOAD + more
        for more in (
            "%0A",
            "%0D",
            "%0D%0A",
            "%00",
            "%7F",
            "%C2%85",
            "%E2%80%A8",
            "%E2%80%A9",
            "%0Ax",
        )
    ]
    + [UNLOAD.replace("interests", "interests" + more) for more in ("%0A", "%0B", "%1F")],
)
def test_a_control_character_in_a_path_is_refused(address: Address, path: str) -> None:
    answer = ask(address, request(path, b""))

    assert statuses(answer) == [400] and b"control character in the path" in answer
    assert statuses(ask(address, request(READY, b"", "GET"))) == [200]


@pytest.mark.parametrize(
    "path",
    [
        UNLOAD,
        UNLOAD + "/",
        "/" + UNLOAD,
        UNLOAD + "?x=1",
        UNLOAD + "%20",
        UNLOAD + ";x",
        UNLOAD + "%2F",
        UNLOAD.upper(),
    ]
    + [
        UNLOAD.replace("/repository", other)
        for other in ("%2Frepository", "//repository", "/./repository", "/x/../repository")
    ]
    + [
        UNLOAD.replace("unload", "%75nload"),
        UNLOAD.replace("/v2", "http://localhost/v2"),
        "/v2/models/x/versions/1/.." + UNLOAD,
    ],
)
def test_no_spelling_of_a_path_lets_a_caller_unload_a_model(address: Address, path: str) -> None:
    status = statuses(ask(address, request(path, b"", Content_Type="text/plain")))

    assert status[0] in (307, 400, 403, 404, 405)
    assert statuses(ask(address, request(READY, b"", "GET"))) == [200]


def test_the_admin_may(address: Address) -> None:
    unloaded = ask(address, request(UNLOAD, b"", token=ADMIN))
    missing = ask(address, request(READY, b"", "GET"))
    back = ask(address, request(UNLOAD.replace("unload", "load"), b"", token=ADMIN))

    assert [statuses(answer) for answer in (unloaded, missing, back)] == [[200], [404], [200]]


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_the_repository_asks_for_the_admin_however_it_is_reached(house: Any, verb: str) -> None:
    async def change(is_admin: bool) -> Any:
        CALL.set(Call("id", "grpc", {}, 0.0, is_admin=is_admin))
        return await getattr(house.model_repository_extension, verb)("sentiment")

    with pytest.raises(Forbidden):
        asyncio.run(change(is_admin=False))
    assert house.registered_models._unloaded == set()
    assert asyncio.run(change(is_admin=True)) == {"name": "sentiment", verb: True}
    house.registered_models.load("sentiment")


# Connections and their clocks


@pytest.mark.parametrize("token", [API, None])
@pytest.mark.parametrize("stray", [b"G", b"\r\n", b"POST / HTTP/1.1\r\n"])
def test_a_stray_byte_after_an_answer_keeps_no_connection_open(
    address: Address, token: str | None, stray: bytes
) -> None:
    [connection] = open_connections(address, 1, request(token=token))
    with connection:
        assert statuses(read(connection)) == [200 if token else 401]

        connection.sendall(stray)

        assert is_closed(connection)


@pytest.mark.parametrize(
    "first", [b"", b"G", b"GET / HTTP/1.1\r\nHost: localhost\r\n", PROBE + b"G"]
)
def test_a_head_that_does_not_come_is_not_waited_for(address: Address, first: bytes) -> None:
    [connection] = open_connections(address, 1, first)
    with connection:
        assert is_closed(connection)


def test_an_answer_before_the_body_came_ends_the_connection_and_reaches_a_caller_who_still_sends(
    address: Address,
) -> None:
    head = request(body=b"", token=None, Content_Length="90000000")
    [connection] = open_connections(address, 1, head)
    with connection:
        for _ in range(50):
            connection.sendall(b" " * 100_000)

        answer = read(connection)

        assert statuses(answer) == [401] and b"connection: close" in answer
        assert is_closed(connection)


def test_an_answered_connection_stays_open_for_the_next_request(address: Address) -> None:
    [connection] = open_connections(address, 1, request())
    with connection:
        first = read(connection)
        time.sleep(2 * connections.HEAD_SECONDS)
        connection.sendall(request())

        assert statuses(first + read(connection)) == [200, 200]


@pytest.mark.parametrize(
    "first",
    [b"", b"G", PROBE, request(token=None)]
    + [request(body=b"", token=token, Content_Length="9") for token in (None, API)]
    + [
        request(body=b"", token=token, Transfer_Encoding="chunked") + b"0\r\nTrailer: "
        for token in (None, API)
    ],
)
def test_connections_that_send_no_request_make_room_for_new_ones(
    address: Address, house: Any, first: bytes
) -> None:
    held = open_connections(address, 45, first)

    assert statuses(ask(address, PROBE)) == [200]
    assert len(house._rest_server._server.connections) <= 40
    for connection in held:
        connection.close()


def test_a_request_that_is_computed_gives_way_to_nobody(address: Address) -> None:
    [asking] = open_connections(address, 1, request(body=ONE.replace(b"fine", b"slow")))
    with asking:
        others = open_connections(address, 80) + open_connections(
            address, 80, request(body=b"", Content_Length="9")
        )

        assert statuses(read(asking)) == [200]
    for connection in others:
        connection.close()


CROWD = """
import resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000))
opened = []
for _ in range(600):
    opened.append(socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=10))
    opened[-1].sendall(b"G")
probe = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=30)
probe.sendall(b"GET / HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
print(probe.recv(100).decode())
"""
FEW_FILES = """
import asyncio, resource, socket, uvicorn
from serving.http.guarded_server import GuardedServer
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
asyncio.run(GuardedServer(uvicorn.Config(app, log_config=None, lifespan="off"), 5000, 5000, 30.0).serve([listener]))
"""


def test_a_process_that_may_open_few_files_answers_its_probe_and_logs_little(
    tmp_path: Path,
) -> None:
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", FEW_FILES],
            cwd=HOUSE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        with server:
            assert server.stdout is not None
            port = server.stdout.readline().strip()
            crowd = [sys.executable, "-c", CROWD, port]
            answers = [
                subprocess.run(crowd, capture_output=True, text=True, check=True).stdout
                for _ in range(2)
            ]
            server.terminate()

    assert [answer[:12] for answer in answers] == ["HTTP/1.1 200"] * 2
    assert (tmp_path / "log").stat().st_size < 10_000


def test_connections_leave_files_for_everything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (300, 300))
    assert 8 <= fit_open_files(768) <= (300 - connection_limits._SPARE_FILES) // 2
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert fit_open_files(768) == 768


def test_grpc_connections_are_bounded_and_have_a_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 1.0)
    with open_house(connections=5) as house:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(
            target=lambda: loop.run_until_complete(house._grpc_server.start(2)), daemon=True
        )
        thread.start()
        while house._grpc_server.bound is None:
            time.sleep(0.01)
        opened = open_connections(("127.0.0.1", house._grpc_server.bound), 20)
        alive = [connection for connection in opened if not is_refused(connection)]
        let_go = [is_closed(connection) for connection in alive]
        asyncio.run_coroutine_threadsafe(house._grpc_server.stop(), loop)  # the loop ends with it
        thread.join(30)

    assert len(alive) <= 5 and let_go == [True] * len(alive)


def is_refused(connection: socket.socket) -> bool:
    """A gRPC server sends its settings to whom it accepts."""
    try:
        return connection.recv(9) == b""
    except ConnectionResetError:
        return True


def test_of_ipv6_a_network_is_one_address() -> None:
    same = {counted_address(host) for host in ("2001:db8::1", "2001:db8::2:3", "2001:db8::%eth0")}
    assert len(same) == 1
    assert counted_address("::ffff:10.0.0.1") == "10.0.0.1" != counted_address("::ffff:10.0.0.2")


def test_a_line_that_is_logged_again_and_again_is_counted_instead() -> None:
    now = [0.0]
    lines = RepeatedLines(most=2, seconds=60.0, clock=lambda: now[0])

    def log(number: int) -> str | None:
        record = logging.LogRecord("x", logging.WARNING, "file.py", 7, "number %d", (number,), None)
        return record.getMessage() if lines.filter(record) else None

    assert [log(n) for n in range(5)] == ["number 0", "number 1", None, None, None]
    now[0] = 61.0
    assert [log(n) for n in range(5, 8)] == [
        "number 5 (and 3 times more since the last such line)",
        "number 6",
        None,
    ]


# Heads, trailers, other protocols


CHUNKED = request(body=b"", Transfer_Encoding="chunked")
TOKENLESS = request(body=b"", token=None, Transfer_Encoding="chunked")


@pytest.mark.parametrize(
    "endless",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Endless: ",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 100,
        b"GET /",
        CHUNKED + b"1\r\nx\r\n0\r\nTrailer: ",
        CHUNKED + b"0\r\n" + b"A: b\r\n" * 100,
        CHUNKED + b"1;extension=",
        TOKENLESS + b"0\r\nTrailer: ",
        TOKENLESS + b"1;extension=",
        PROBE + b"\r\n" * 100,
        PROBE + b"GET / HTTP/1.1\r\nX-Endless: ",
        request(token=None) + CHUNKED + b"0\r\nTrailer: ",
    ],
)
def test_heads_and_trailers_without_end_are_cut(address: Address, endless: bytes) -> None:
    line = (
        b"A: b\r\n"
        if endless.endswith(b"A: b\r\n")
        else b"\r\n"
        if endless.endswith(b"\r\n\r\n")
        else b"x"
    )
    [connection] = open_connections(address, 1, endless)
    with connection, pytest.raises(OSError):
        for _ in range(2000):
            connection.sendall(line * (10_000 // len(line)))
            time.sleep(0.0005)


def test_a_head_that_is_too_large_is_told_so(address: Address) -> None:
    answer = ask(address, request(X_Large="x" * 70_000))

    assert statuses(answer) == [431] and b"larger than 65536 bytes" in answer


def test_trailers_are_dropped(address: Address) -> None:
    chunked = request(body=b"", token=None, Transfer_Encoding="chunked")
    trailer = f"Authorization: Bearer {API}\r\nX-Request-Id: from-a-trailer\r\n".encode()

    answer = ask(address, chunked + b"%x\r\n%s\r\n0\r\n" % (len(ONE), ONE) + trailer + b"\r\n")

    assert statuses(answer) == [401] and b"from-a-trailer" not in answer


def test_a_request_may_come_byte_by_byte(address: Address) -> None:
    chunked = request(body=b"", Transfer_Encoding="chunked", X_Long="x" * 300)
    body = b"".join(b"1;e=f\r\n%c\r\n" % byte for byte in ONE) + b"0\r\nTrailer: %s\r\n\r\n" % (
        b"y" * 300
    )

    assert statuses(ask(address, *(bytes([byte]) for byte in chunked + body))) == [200]


@pytest.mark.parametrize("upgrade", ["h2c", "websocket", "TLS/1.0, HTTP/1.1", "h2c, websocket"])
@pytest.mark.parametrize("connection", ["Upgrade, HTTP2-Settings", "keep-alive, upgrade"])
def test_a_wish_for_another_protocol_is_ignored(
    address: Address, upgrade: str, connection: str
) -> None:
    wish = request(
        Connection=connection,
        Upgrade=upgrade,
        HTTP2_Settings="AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    )
    chunked = request(body=b"", Connection=connection, Upgrade=upgrade, Transfer_Encoding="chunked")
    chunked += b"%x\r\n%s\r\n0\r\n\r\n" % (len(ONE), ONE)

    answer = ask(address, wish + chunked + wish + request(), until=4)

    assert statuses(answer) == [200] * 4


def test_pipelined_requests_are_answered_in_order_up_to_a_number(address: Address) -> None:
    few = ask(address, b"".join(request(X_Request_Id=f"number-{n}") for n in range(10)), until=10)
    many = ask(address, request() * 300, until=300)

    assert [few.index(b"number-%d" % n) for n in range(10)] == sorted(
        few.index(b"number-%d" % n) for n in range(10)
    )
    assert statuses(few) == [200] * 10
    assert 1 <= len(statuses(many)) <= connections.PIPELINED + 1 and set(statuses(many)) == {200}
    assert b"connection: close" in many


def test_what_cannot_be_read_is_refused_behind_the_answers_before_it(address: Address) -> None:
    [connection] = open_connections(address, 1, request() + b"nonsense\r\n\r\n")
    with connection:
        assert statuses(read(connection, until=2)) == [200]
    for bad in (
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        request(method="CONNECT"),
    ):
        assert statuses(ask(address, bad)) == [400]
    for more in ({}, {"Expect": "100-continue"}):
        broken = request(body=b"nonsense\r\n", Transfer_Encoding="chunked", **more)
        assert statuses(ask(address, broken)) == [400]


# Answers that nobody reads


def test_who_does_not_read_an_answer_is_let_go_and_holds_nothing(impatient: Any) -> None:
    question = request("/v1/models/recommend:predict", b'{"instances": [{"events": [], "k": 8}]}')
    with running(impatient) as address:
        deaf = [socket.create_connection(address) for _ in range(3)]
        deaf[0].sendall(question)
        while (
            not impatient.admission.answers.is_spent
            and impatient.admission.answers._used < 8_000_000
        ):
            time.sleep(0.01)
        for connection in deaf[1:]:
            connection.settimeout(30)
            connection.sendall(question)
        refused = [statuses(read(connection)) for connection in deaf[1:]]
        deadline = time.monotonic() + 30
        while impatient.admission.answers._used:
            assert time.monotonic() < deadline, "what was held is not given back"
            time.sleep(0.05)

        assert refused == [[429], [429]]
        assert is_closed(deaf[0])
        assert statuses(ask(address, question)) == [200]


# Pages of other sites


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost"}, 200),
        ({"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:3000"}, 403),
        ({"Origin": "http://localhost.evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "http://[", "Sec-Fetch-Site": "none"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"}, 403),
    ],
)
def test_a_page_of_another_site_may_not_ask(
    address: Address, headers: dict[str, str], status: int
) -> None:
    for path, body, good in ((ASK, ONE, 200), ("/v1/feedback", FEEDBACK, 202)):
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json"):
            answer = ask(address, request(path, body, Content_Type=kind, **headers))
            assert statuses(answer) == [good if status == 200 else status], answer
    for token in (API, ADMIN):
        if status == 403:
            assert statuses(ask(address, request(UNLOAD, b"", token=token, **headers))) == [403]


def test_a_page_of_another_site_may_be_told_what_it_cannot_read(address: Address) -> None:
    answer = ask(address, request("/v2", b"", "GET", Origin="http://evil.example"))

    assert statuses(answer) == [200] and b"access-control" not in answer.lower()


# Compressed bodies


V2 = json.dumps(
    {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}]}
).encode()


@pytest.mark.parametrize(
    ("path", "body", "good"),
    [(ASK, ONE, 200), ("/v2/models/sentiment/infer", V2, 200), ("/v1/feedback", FEEDBACK, 202)],
)
def test_a_gzip_body_is_read_within_the_cap(
    address: Address, path: str, body: bytes, good: int
) -> None:
    packed = gzip.compress(body)
    cases: list[tuple[bytes, str, int, bytes]] = [
        (packed, "gzip", good, b""),
        (packed, "GZIP", good, b""),
        (packed, "x-gzip", good, b""),
        (gzip.compress(body[:9]) + gzip.compress(body[9:]), "gzip", good, b""),
        (body, "identity", good, b""),
        (packed[:-1], "gzip", 400, b"cut short"),
        (packed[:5], "gzip", 400, b"cut short"),
        (packed + b"more", "gzip", 400, b"not gzip"),
        (packed[:12] + b"?" + packed[13:], "gzip", 400, b"gzip"),
        (body, "gzip", 400, b"not gzip"),
        (gzip.compress(b"") * 100 + packed, "gzip", 400, b"more than 64 members"),
        (
            gzip.compress(body + b" " * 100_000),
            "gzip",
            413,
            b"larger than 100000 bytes when decompressed",
        ),
        (packed, "br", 415, b"allowed: gzip, identity"),
        (packed, "deflate", 415, b"allowed: gzip, identity"),
        (gzip.compress(packed), "gzip, gzip", 415, b"allowed: gzip, identity"),
    ]
    for body, encoding, status, text in cases:
        answer = ask(address, request(path, body, Content_Encoding=encoding))
        assert statuses(answer) == [status] and text in answer, (encoding, answer)
    assert b"accept-encoding: gzip, identity" in ask(
        address, request(path, packed, Content_Encoding="zstd")
    )


def test_a_gzip_bomb_is_too_large(address: Address) -> None:
    packed = gzip.compress(b" " * 50_000_000, 9)
    assert len(packed) < 100_000

    assert statuses(ask(address, request(body=packed, Content_Encoding="gzip"))) == [413]
