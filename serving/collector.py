"""`python -m serving.collector`: writes what KServe's inference logger sends to the same journal.

The logger (`spec.predictor.logger`, mode `all`) posts each request and each response as a
CloudEvent of its own, in binary mode, both with the same `ce-id`; it does not log gRPC. A pair
becomes rows of the journal. The id of a row is the caller's `X-Request-Id` where the logger passes
it on (`metadataHeaders: [X-Request-Id]`), else the event's.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import logging
import signal
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from serving.answering.tensors import from_v2, v1_instances, v2_instances
from serving.answering.users import take_users
from serving.journal.answered import (
    CLOCK_SKEW,
    LONGEST_REQUEST_ID,
    Answered,
    is_request_id,
    now,
    rows,
)
from serving.journal.writer import Journal
from serving.settings import JournalSettings
from tasteloop import process
from tasteloop.answers import RECOMMEND, SENTIMENT, SERVED_MODELS, TEXT, model_of
from tasteloop.behaviour.times import microseconds
from tasteloop.errors import TasteloopError
from tasteloop.journal import CHAMPION
from tasteloop.privacy.pseudonyms import pseudonym_key

if TYPE_CHECKING:
    from serving.http.access import Access

logger = logging.getLogger(__name__)

REQUEST = "org.kubeflow.serving.inference.request"
RESPONSE = "org.kubeflow.serving.inference.response"
WAITING = 1000  # events that wait for the other event of their pair
WAITING_BYTES = 64 * 1024 * 1024  # of these events
LARGEST = 8 * 1024 * 1024  # bytes of one event
SECONDS = 30.0  # within which an event must have come


@dataclass(frozen=True)
class LoggedRequest:
    """What a request's event says.

    Attributes:
        instances: as V1 instances, without users.
        users: each instance's pseudonym, or None.
        name: the caller's id of the request; None where it sent none, or none that may be one.
    """

    instances: list[Any]
    users: list[str | None]
    name: str | None


@dataclass(frozen=True)
class LoggedResponse:
    """What a response's event says.

    Attributes:
        outputs: as V1 predictions; empty where V2's tensors have rows of no width, so that only the
            request shows how many there are.
        time: µs since 1970 UTC at which the answer was given.
    """

    model: str
    version: str
    protocol: str
    outputs: list[Any]
    time: int


@dataclass(frozen=True)
class _Waiting:
    """An event that waits for the other of its pair.

    Attributes:
        kind: `REQUEST` or `RESPONSE`.
        packed: a `LoggedRequest` or a `LoggedResponse` as JSON, whose size is bounded by that of
            the event; parsed objects take more.
        size: bytes of the event.
    """

    kind: str
    packed: bytes
    size: int


class Pairs:
    """Joins requests and responses as they come, in either order. Safe to share between threads.

    Attributes:
        unpaired: events that were dropped, because too many newer ones waited.
    """

    def __init__(self, key: bytes) -> None:
        self.unpaired = 0
        self._key = key
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()  # by the event's id
        self._bytes = 0  # of the events that wait
        self._lock = threading.Lock()

    def take(self, headers: Mapping[str, str], body: bytes) -> Answered | None:
        """The pair that a CloudEvent completes; None while the other event is missing.

        Args:
            headers: with lower-case names; binary mode has the attributes here, structured mode in
                the body.

        Raises:
            TasteloopError: it is no CloudEvent, none of the logger's, or none of a request to this
                server or of its response.
        """
        # 1. the event
        attributes, data = _read_event(headers, body)
        kind, identity = attributes.get("type"), attributes.get("id")
        if kind not in (REQUEST, RESPONSE):
            raise TasteloopError(f"CloudEvent of type {kind!r}; known: {REQUEST}, {RESPONSE}")
        if not is_request_id(identity):
            described = (
                f"{identity[:40]!r}, of {len(identity)} characters" if identity else "missing"
            )
            raise TasteloopError(
                f"a CloudEvent's id has 1 to {LONGEST_REQUEST_ID} visible ASCII characters; this one is {described}"
            )
        half = (
            _read_request(data, attributes, self._key)
            if kind == REQUEST
            else _read_response(data, attributes)
        )
        try:
            packed = orjson.dumps(half)
        except TypeError:
            raise TasteloopError(
                "the CloudEvent's data is nested too deeply for a Tasteloop model"
            ) from None

        # 2. the other one; without it this one waits, in place of one of its own kind
        with self._lock:
            other = self._waiting.pop(identity, None)
            if other is not None:
                self._bytes -= other.size
            if other is None or other.kind == kind:
                self._waiting[identity] = _Waiting(kind, packed, len(body))
                self._bytes += len(body)
                self._drop_oldest()
                return None

        # 3. both
        if isinstance(half, LoggedRequest):
            return _join(identity, half, LoggedResponse(**orjson.loads(other.packed)))
        return _join(identity, LoggedRequest(**orjson.loads(other.packed)), half)

    def _drop_oldest(self) -> None:
        """Drop the events that have waited longest, until the others are within the bounds."""
        while len(self._waiting) > WAITING or self._bytes > WAITING_BYTES:
            _, dropped = self._waiting.popitem(last=False)
            self._bytes -= dropped.size
            self.unpaired += 1


def _join(identity: str, request: LoggedRequest, response: LoggedResponse) -> Answered:
    """The pair of a request and its response.

    Raises:
        TasteloopError: the response is none to this request.
    """
    instances, model = request.instances, response.model
    outputs = response.outputs or [{SERVED_MODELS[model].key: []}] * len(instances)
    if len(outputs) != len(instances):
        raise TasteloopError(f"{len(outputs)} answers came to {len(instances)} instances")
    joined = Answered(
        request_id=request.name or identity,
        model=model,
        version=response.version,
        protocol=response.protocol,
        time=response.time,
        instances=instances,
        outputs=outputs,
        users=request.users,
    )
    try:
        rows(joined, CHAMPION)
    except _MALFORMED:
        raise TasteloopError(f"the pair is no question to {model} and its answer") from None
    return joined


_MALFORMED = (
    AttributeError,
    IndexError,
    KeyError,
    TasteloopError,
    TypeError,
    ValueError,
    ZeroDivisionError,
)
"""What Python raises where JSON has another shape than the program expects."""


def _read_event(headers: Mapping[str, str], body: bytes) -> tuple[dict[str, str], bytes]:
    """The attributes of a CloudEvent and its data. The content type says only whether the mode is
    structured: in binary mode the logger gives the request's.
    """
    # 1. binary mode
    if not headers.get("content-type", "").startswith("application/cloudevents+json"):
        attributes = {
            name.removeprefix("ce-"): value
            for name, value in headers.items()
            if name.startswith("ce-")
        }
        if not attributes:
            raise TasteloopError(
                "no CloudEvent: neither `ce-` headers nor the type application/cloudevents+json"
            )
        return attributes, body

    # 2. structured mode
    try:
        envelope = orjson.loads(body)
    except ValueError as error:
        raise TasteloopError(
            f"a structured CloudEvent is a JSON object; this is no JSON: {error}"
        ) from None
    if not isinstance(envelope, dict):
        raise TasteloopError("a structured CloudEvent is a JSON object")
    attributes = {name: value for name, value in envelope.items() if isinstance(value, str)}
    if "data_base64" in envelope:
        try:
            return attributes, base64.b64decode(envelope["data_base64"], validate=True)
        except (TypeError, ValueError):
            raise TasteloopError(
                "data_base64 is no string of base64; send one, or the data as `data`"
            ) from None
    data = envelope.get("data")
    if isinstance(data, str):
        return attributes, data.encode()
    try:
        return attributes, orjson.dumps(data)
    except TypeError:
        raise TasteloopError(
            "the CloudEvent's data is nested too deeply for a Tasteloop model"
        ) from None


def _parse_object(data: bytes) -> dict[str, Any]:
    """A JSON object of an event; other JSON counts as an empty one."""
    try:
        parsed = orjson.loads(data)
    except ValueError:
        raise TasteloopError(
            "the CloudEvent's data is not JSON; binary tensors cannot be journalled"
        ) from None
    return parsed if isinstance(parsed, dict) else {}


def _read_request(data: bytes, attributes: Mapping[str, str], key: bytes) -> LoggedRequest:
    """A request's instances and users. The users are pseudonyms from here on, so no raw id waits
    for the response.

    Both protocols are read as the server reads them, so that everything that it answered can be
    written.
    """
    # kserve reads the command line as its own when it is imported
    from kserve.errors import InvalidInput

    from serving.http import v2

    body = _parse_object(data)
    if "inputs" in body:
        try:
            request = v2.from_rest(data, None, None)
            names = [tensor.name for tensor in request.inputs]
            # The event does not name the model; all that take this input read it in the same way.
            is_text = names == [TEXT.field]
            model = SENTIMENT if is_text else RECOMMEND
            instances: object = v2_instances(model, request.inputs, request.parameters)
        except (InvalidInput, TasteloopError) as error:
            raise TasteloopError(
                f"the request is neither V1 nor V2 of a Tasteloop model: {error}"
            ) from None
    elif "instances" in body:
        instances = v1_instances(body)
    else:
        raise TasteloopError(
            "the request is neither V1 ({instances}) nor V2 ({inputs}) of a Tasteloop model"
        )
    if not isinstance(instances, list) or not all(
        isinstance(instance, dict) for instance in instances
    ):
        raise TasteloopError("the instances are no list of JSON objects")
    name = _header(attributes.get("metadata"), "x-request-id")
    without_users, users = take_users(instances, key)
    assert isinstance(without_users, list)  # it was one
    return LoggedRequest(without_users, users, name if is_request_id(name) else None)


def _read_response(data: bytes, attributes: Mapping[str, str]) -> LoggedResponse:
    """A response of either protocol, its answers as V1's."""
    body = _parse_object(data)
    try:
        if "predictions" in body:
            outputs, protocol = body["predictions"], "v1"
            model = model_of(outputs[0])
        else:
            model, protocol = body["model_name"], "v2"
            first = body["outputs"][0]
            is_ranked = SERVED_MODELS[model].ranking is not None
            has_no_rows = is_ranked and first["data"] == []
            outputs = [] if has_no_rows else from_v2(model, body["outputs"], first["shape"][0])
        if model is None or any(model_of(output) != model for output in outputs):
            raise ValueError
        version = str(body["model_version"])
    except _MALFORMED:
        raise TasteloopError(
            "the response is not a whole answer of a Tasteloop model over V1 or V2"
        ) from None
    return LoggedResponse(model, version, protocol, outputs, _time(attributes.get("time")))


def _time(text: str | None) -> int:
    """The µs of an event's time; now, where the event has none or an impossible one."""
    arrived = now()
    try:
        micros = microseconds(datetime.fromisoformat(text or ""))
    except (OverflowError, ValueError):
        return arrived
    return micros if 0 <= micros <= arrived + CLOCK_SKEW else arrived


def _header(metadata: str | None, name: str) -> str | None:
    """A header that the logger passed on, in a JSON object of lists; None where it did not."""
    try:
        headers = {key.lower(): values for key, values in orjson.loads(metadata or "{}").items()}
        return str(headers[name][0])
    except _MALFORMED:
        return None


def application(journal: Journal, pairs: Pairs, access: Access) -> Any:
    """The ASGI application: `POST /` takes an event, `GET /` answers the state of the journal."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from serving.http.bodies import read_body
    from serving.http.faults import KINDS, fault

    def check(request: Request) -> None:
        # The path "/" itself would be open, for probes.
        access.check_http(request.method, "/events", dict(request.headers))

    async def take_event(request: Request) -> JSONResponse:
        check(request)
        body = await read_body(request.scope, request.receive, LARGEST, time.monotonic() + SECONDS)
        answered = pairs.take(dict(request.headers), body)
        if answered is not None and not journal.answered(answered):
            return JSONResponse({"error": "the journal is full"}, 429, headers={"Retry-After": "1"})
        return JSONResponse({})  # 200: the logger takes any other status for a failure

    async def answer_status(request: Request) -> JSONResponse:
        check(request)
        return JSONResponse({**journal.status(), "unpaired": pairs.unpaired})

    def answer_fault(_: Request, error: Exception) -> JSONResponse:
        answer = fault(error)
        return JSONResponse({"error": answer.text}, answer.http, headers=answer.headers)

    def answer_http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)

    routes = [
        Route("/", take_event, methods=["POST"]),
        Route("/", answer_status, methods=["GET"]),
    ]
    return Starlette(
        routes=routes,
        exception_handlers={**dict.fromkeys(KINDS, answer_fault), HTTPException: answer_http},
    )


def main(argv: list[str] | None = None) -> int:
    from tasteloop.home import Home

    parser = argparse.ArgumentParser(
        "python -m serving.collector",
        description="Write what KServe's inference logger sends to the journal. "
        "Name this service in an InferenceService: spec.predictor.logger: {mode: all, url: http://HOST:PORT}.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=8082, help="port (default: %(default)s)")
    parser.add_argument(
        "--without-token",
        action="store_true",
        help="listen beyond this machine without TASTELOOP_API_TOKEN: the network lets only the logger through",
    )
    parser.add_argument(
        "--journal",
        type=Path,
        metavar="DIR",
        help="directory (default: journal under TASTELOOP_HOME)",
    )
    parser.add_argument(
        "--journal-days", type=int, default=30, metavar="N", help="retention (default: %(default)s)"
    )
    parser.add_argument(
        "--journal-text", action="store_true", help="write the questions too, raw text included"
    )
    arguments = parser.parse_args(argv)
    directory = arguments.journal or Home.current().journal
    process.begin(directory)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    # uvicorn raises the signal again at its end, when the journal has been closed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sys.argv[1:] = []  # kserve parses them as its own when it is imported
    from serving.http.access import Access
    from serving.http.addresses import bind
    from serving.settings import ServerSettings

    try:
        access = Access.from_environment(arguments.host, arguments.without_token)
        limits = ServerSettings(host=arguments.host, port=arguments.port)
        settings = JournalSettings(
            directory=directory, days=arguments.journal_days, text=arguments.journal_text
        )
        pairs = Pairs(pseudonym_key())
        listener = bind(arguments.host, arguments.port, "--port")
        journal = Journal(settings)
    except (TasteloopError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    import uvicorn

    from serving.http.guarded_server import GuardedServer

    config = uvicorn.Config(
        application(journal, pairs, access), log_config=None, log_level="warning", access_log=False
    )
    server = GuardedServer(config, limits.connections, limits.connections_of_one, SECONDS)
    try:
        asyncio.run(server.serve([listener]))
    finally:
        journal.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
