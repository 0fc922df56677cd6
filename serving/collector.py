"""`python -m serving.collector`: what KServe's inference logger sends, into the same journal.

The logger (`spec.predictor.logger`, mode `all`) posts each request and each answered response as a
CloudEvent of its own, in binary mode, both with one `ce-id`; it does not log gRPC. A pair becomes
the journal's rows. The id of a row is the caller's `X-Request-Id` where the logger passes it on
(`metadataHeaders: [X-Request-Id]`), else the event's.
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
WAITING = 1000  # halves whose other half has not come
WAITING_BYTES = 64 * 1024 * 1024  # of their events
LARGEST = 8 * 1024 * 1024  # bytes of one event
SECONDS = 30.0  # in which it comes


class Pairs:
    """Joins requests and responses as they come, in either order. Safe to share between threads.

    Attributes:
        unpaired: events that were given up, since too many newer ones waited.
    """

    def __init__(self, key: bytes) -> None:
        self.unpaired = 0
        self._key = key
        self._waiting: OrderedDict[str, tuple[str, bytes, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def take(self, headers: Mapping[str, str], body: bytes) -> Answered | None:
        """What a CloudEvent completes; None while its other half is missing.

        Args:
            headers: with lower-case names; binary mode has the attributes here, structured mode in
                the body.

        Raises:
            TasteloopError: no CloudEvent, not one of the logger's, or not what this server asks and
                answers.
        """
        attributes, data = _event(headers, body)
        kind, identity = attributes.get("type"), attributes.get("id")
        if kind not in (REQUEST, RESPONSE):
            raise TasteloopError(f"CloudEvent of type {kind!r}; known: {REQUEST}, {RESPONSE}")
        if not is_request_id(identity):
            raise TasteloopError(
                f"a CloudEvent's id has 1 to {LONGEST_REQUEST_ID} visible ASCII characters; this one is "
                + (f"{identity[:40]!r}, of {len(identity)} characters" if identity else "missing")
            )
        half = (
            _request(data, attributes, self._key)
            if kind == REQUEST
            else _response(data, attributes)
        )
        try:
            # what waits is as large as what came, which parsed objects are not
            packed = orjson.dumps(half)
        except TypeError:
            raise TasteloopError(
                "the CloudEvent's data is nested too deeply for a Tasteloop model"
            ) from None
        with self._lock:
            waiting = self._waiting.pop(identity, None)
            self._bytes -= waiting[2] if waiting else 0
            if waiting is None or waiting[0] == kind:
                self._waiting[identity] = (kind, packed, len(body))
                self._bytes += len(body)
                while len(self._waiting) > WAITING or self._bytes > WAITING_BYTES:
                    _, (_, _, size) = self._waiting.popitem(last=False)
                    self._bytes -= size
                    self.unpaired += 1
                return None
        other = orjson.loads(waiting[1])
        return _joined(identity, *((other, half) if kind == RESPONSE else (half, other)))


def _joined(identity: str, asked: Mapping[str, Any], answered: Mapping[str, Any]) -> Answered:
    """Raises TasteloopError where a response is none to its request."""
    instances, model = asked["instances"], answered["model"]
    outputs = answered["outputs"] or [{SERVED_MODELS[model].key: []}] * len(instances)
    if len(outputs) != len(instances):
        raise TasteloopError(f"{len(outputs)} answers came to {len(instances)} instances")
    joined = Answered(
        request_id=asked["name"] or identity,
        model=model,
        version=answered["version"],
        protocol=answered["protocol"],
        time=answered["time"],
        instances=instances,
        outputs=outputs,
        users=asked["users"],
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
"""What Python raises where JSON has another shape than a program expects."""


def _event(headers: Mapping[str, str], body: bytes) -> tuple[dict[str, str], bytes]:
    """The attributes of a CloudEvent and its data, whatever content type it claims: the logger
    gives the request's.
    """
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


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(data)
    except ValueError:
        raise TasteloopError(
            "the CloudEvent's data is not JSON; binary tensors cannot be journalled"
        ) from None
    return parsed if isinstance(parsed, dict) else {}


def _request(data: bytes, attributes: Mapping[str, str], key: bytes) -> dict[str, Any]:
    """A request's instances and users, pseudonyms already: nothing raw waits for the other half.

    Both protocols are read as the server reads them, so that what it answered is journalled.
    """
    # kserve reads the command line as its own when it is imported
    from kserve.errors import InvalidInput

    from serving.http import v2

    body = _parsed(data)
    if "inputs" in body:
        try:
            request = v2.from_rest(data, None, None)
            names = [tensor.name for tensor in request.inputs]
            # A request does not name its model: any that takes this input reads it alike.
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
    kept, users = take_users(instances, key)
    name = _header(attributes.get("metadata"), "x-request-id")
    return {"instances": kept, "users": users, "name": name if is_request_id(name) else None}


def _response(data: bytes, attributes: Mapping[str, str]) -> dict[str, Any]:
    """An answer as V1's; without outputs where V2's tensors have rows of no width, which only the
    request can count.
    """
    body = _parsed(data)
    try:
        if "predictions" in body:
            outputs, protocol = body["predictions"], "v1"
            model = model_of(outputs[0])
        else:
            model, protocol = body["model_name"], "v2"
            first = body["outputs"][0]
            is_ranked = SERVED_MODELS[model].ranking is not None
            empty = is_ranked and first["data"] == []
            outputs = [] if empty else from_v2(model, body["outputs"], first["shape"][0])
        if model is None or any(model_of(output) != model for output in outputs):
            raise ValueError
        version = str(body["model_version"])
    except _MALFORMED:
        raise TasteloopError(
            "the response is not a whole answer of a Tasteloop model over V1 or V2"
        ) from None
    answered = {"model": model, "version": version, "protocol": protocol, "outputs": outputs}
    return {**answered, "time": _time(attributes.get("time"))}


def _time(given: str | None) -> int:
    """When an answer was given; now, where the event does not say or says what cannot be."""
    arrived = now()
    try:
        micros = microseconds(datetime.fromisoformat(given or ""))
    except (OverflowError, ValueError):
        return arrived
    return micros if 0 <= micros <= arrived + CLOCK_SKEW else arrived


def _header(metadata: str | None, name: str) -> str | None:
    """A header that the logger passed on, from its JSON object of lists."""
    try:
        found = {key.lower(): values for key, values in orjson.loads(metadata or "{}").items()}
        return str(found[name][0])
    except _MALFORMED:
        return None


def application(journal: Journal, pairs: Pairs, access: Access) -> Any:
    """The ASGI application: `POST /` takes an event, `GET /` tells the journal's state."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from serving.http.bodies import read_body
    from serving.http.faults import KINDS, fault

    def check(request: Request) -> None:
        # "/" would be open, for probes
        access.check_http(request.method, "/events", dict(request.headers))

    async def take(request: Request) -> JSONResponse:
        check(request)
        body = await read_body(request.scope, request.receive, LARGEST, time.monotonic() + SECONDS)
        answered = pairs.take(dict(request.headers), body)
        if answered is not None and not journal.answered(answered):
            return JSONResponse({"error": "the journal is full"}, 429, headers={"Retry-After": "1"})
        return JSONResponse({})  # 200: the logger takes any other status for a failure

    async def tell(request: Request) -> JSONResponse:
        check(request)
        return JSONResponse({**journal.status(), "unpaired": pairs.unpaired})

    def answer_fault(_: Request, error: Exception) -> JSONResponse:
        found = fault(error)
        return JSONResponse({"error": found.text}, found.http, headers=found.headers)

    def answer_http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)

    routes = [Route("/", take, methods=["POST"]), Route("/", tell, methods=["GET"])]
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
    # what uvicorn raises again at its end: the journal is closed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sys.argv[1:] = []  # kserve parses them as its own when it is imported
    from serving.http.access import Access
    from serving.http.addresses import bind
    from serving.settings import ServerSettings

    try:
        access = Access.of(arguments.host, arguments.without_token)
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

    from serving.http.connections import GuardedServer

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
