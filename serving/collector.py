"""`python -m serving.collector`: what KServe's inference logger sends, into the same journal.

The logger (`spec.predictor.logger`, mode `all`) posts each request and each answered response as a CloudEvent of its
own, in binary mode, both with one `ce-id`; it does not log gRPC. A pair becomes the journal's rows. The id of a row is
the caller's `X-Request-Id` where the logger passes it on (`metadataHeaders: [X-Request-Id]`), else the event's.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
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

from serving.journal import Answered, Journal, JournalSettings, model_of, now
from serving.rollout import from_v2
from serving.users import take_users
from tasteloop.errors import TasteloopError
from tasteloop.events import microseconds
from tasteloop.privacy.pseudonyms import pseudonym_key

if TYPE_CHECKING:
    from serving.access import Access

logger = logging.getLogger(__name__)

REQUEST = "org.kubeflow.serving.inference.request"
RESPONSE = "org.kubeflow.serving.inference.response"
WAITING = 1000  # halves whose other half has not come
WAITING_BYTES = 64 * 1024 * 1024  # of their events
LARGEST = 8 * 1024 * 1024  # bytes of one event
SECONDS = 30.0  # in which it comes
_V2_PARAMETERS = ("k", "user")


class Pairs:
    """Joins requests and responses as they come, in either order. Safe to share between threads.

    Attributes:
        unpaired: events that were given up, since too many newer ones waited.
    """

    def __init__(self, key: bytes) -> None:
        self.unpaired = 0
        self._key = key
        self._waiting: OrderedDict[str, tuple[str, dict[str, Any], int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def take(self, headers: Mapping[str, str], body: bytes) -> Answered | None:
        """What a CloudEvent completes; None while its other half is missing.

        Args:
            headers: with lower-case names; binary mode has the attributes here, structured mode in the body.

        Raises:
            TasteloopError: no CloudEvent, not one of the logger's, or not what this server asks and answers.
        """
        attributes, data = _event(headers, body)
        kind, identity = attributes.get("type"), attributes.get("id")
        if kind not in (REQUEST, RESPONSE):
            raise TasteloopError(f"CloudEvent of type {kind!r}; known: {REQUEST}, {RESPONSE}")
        if not identity:
            raise TasteloopError("a CloudEvent without an id cannot be joined")
        half = _request(data, attributes, self._key) if kind == REQUEST else _response(data, attributes)
        with self._lock:
            waiting = self._waiting.pop(identity, None)
            self._bytes -= waiting[2] if waiting else 0
            if waiting is None or waiting[0] == kind:
                self._waiting[identity] = (kind, half, len(body))
                self._bytes += len(body)
                while len(self._waiting) > WAITING or self._bytes > WAITING_BYTES:
                    _, (_, _, size) = self._waiting.popitem(last=False)
                    self._bytes -= size
                    self.unpaired += 1
                return None
        asked, answered = (waiting[1], half) if kind == RESPONSE else (half, waiting[1])
        return Answered(
            request_id=asked["name"] or identity,
            model=answered["model"],
            version=answered["version"],
            protocol=answered["protocol"],
            time=answered["time"],
            instances=asked["instances"],
            outputs=answered["outputs"],
            users=asked["users"],
        )


def _event(headers: Mapping[str, str], body: bytes) -> tuple[dict[str, str], Any]:
    """The attributes of a CloudEvent and its data, whatever content type it claims: the logger gives the request's."""
    try:
        if headers.get("content-type", "").startswith("application/cloudevents+json"):
            envelope = orjson.loads(body)
            if not isinstance(envelope, dict):
                raise TasteloopError("a structured CloudEvent is a JSON object")
            data = envelope.pop("data", None)
            if "data_base64" in envelope:
                data = base64.b64decode(envelope.pop("data_base64"), validate=True)
            data = orjson.loads(data) if isinstance(data, bytes | str) else data
            return {name: str(value) for name, value in envelope.items()}, data
        attributes = {name.removeprefix("ce-"): value for name, value in headers.items() if name.startswith("ce-")}
        if not attributes:
            raise TasteloopError("no CloudEvent: neither `ce-` headers nor the type application/cloudevents+json")
        return attributes, orjson.loads(body)
    except (ValueError, binascii.Error):
        raise TasteloopError("the CloudEvent's data is not JSON; binary tensors cannot be journalled") from None


def _request(data: Any, attributes: Mapping[str, str], key: bytes) -> dict[str, Any]:
    """A request's instances and users, pseudonyms already: nothing raw waits for the other half."""
    try:
        if "instances" in data:
            instances = data["instances"]
        else:
            [tensor] = data["inputs"]
            given = {**data.get("parameters", {}), **tensor.get("parameters", {})}
            parameters = {name: given[name] for name in _V2_PARAMETERS if name in given}
            elements = tensor["data"]
            if tensor["name"] == "text":
                parameters.pop("k", None)
                instances = [{"text": element, **parameters} for element in elements]
            else:
                instances = [{**parameters, **orjson.loads(element)} for element in elements]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise TasteloopError("the request is neither V1 ({instances}) nor V2 ({inputs}) of a Tasteloop model") from None
    kept, users = take_users(instances, key)
    return {"instances": kept, "users": users, "name": _header(attributes.get("metadata"), "x-request-id")}


def _response(data: Any, attributes: Mapping[str, str]) -> dict[str, Any]:
    try:
        if "predictions" in data:
            outputs, protocol = data["predictions"], "v1"
            model = model_of(outputs[0])
        else:
            model, protocol = data["model_name"], "v2"
            outputs = from_v2(model, data["outputs"])
        if model is None or any(model_of(output) != model for output in outputs):
            raise ValueError
        version = str(data["model_version"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, StopIteration):
        raise TasteloopError("the response is not a whole answer of a Tasteloop model over V1 or V2") from None
    answered = {"model": model, "version": version, "protocol": protocol, "outputs": outputs}
    return {**answered, "time": _time(attributes.get("time"))}


def _time(given: str | None) -> int:
    try:
        return microseconds(datetime.fromisoformat(given or ""))
    except ValueError:
        return now()


def _header(metadata: str | None, name: str) -> str | None:
    """A header that the logger passed on, from its JSON object of lists."""
    try:
        found = {key.lower(): values for key, values in orjson.loads(metadata or "{}").items()}
        return str(found[name][0])
    except (ValueError, AttributeError, KeyError, IndexError, TypeError):
        return None


def application(journal: Journal, pairs: Pairs, access: Access) -> Any:
    """The ASGI application: `POST /` takes an event, `GET /` tells the journal's state."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from serving.bodies import read_body
    from serving.faults import KINDS, fault

    def check(request: Request) -> None:
        access.check_http(request.method, "/events", dict(request.headers))  # "/" would be open, for probes

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
        routes=routes, exception_handlers={**dict.fromkeys(KINDS, answer_fault), HTTPException: answer_http}
    )


def main(argv: list[str] | None = None) -> int:
    from tasteloop.files import home

    parser = argparse.ArgumentParser(
        "python -m serving.collector",
        description="Write what KServe's inference logger sends to the journal. "
        "Name this service in an InferenceService: spec.predictor.logger: {mode: all, url: http://HOST:PORT}.",
        allow_abbrev=False,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8082, help="port (default: %(default)s)")
    parser.add_argument(
        "--without-token",
        action="store_true",
        help="listen beyond this machine without TASTELOOP_API_TOKEN: the network lets only the logger through",
    )
    parser.add_argument("--journal", type=Path, metavar="DIR", help="directory (default: journal under TASTELOOP_HOME)")
    parser.add_argument("--journal-days", type=int, default=30, metavar="N", help="retention (default: %(default)s)")
    parser.add_argument("--journal-text", action="store_true", help="write the questions too, raw text included")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # what uvicorn raises again at its end: the journal is closed
    sys.argv[1:] = []  # kserve parses them as its own when it is imported
    from serving.access import Access
    from serving.server import bind
    from serving.settings import ServerSettings

    try:
        access = Access.of(arguments.host, arguments.without_token)
        limits = ServerSettings(host=arguments.host, port=arguments.port)
        settings = JournalSettings(
            directory=arguments.journal or home() / "journal", days=arguments.journal_days, text=arguments.journal_text
        )
        pairs = Pairs(pseudonym_key())
        listener = bind(arguments.host, arguments.port, "--port")
        journal = Journal(settings)
    except (TasteloopError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    import uvicorn

    from serving.connections import GuardedServer

    config = uvicorn.Config(application(journal, pairs, access), log_config=None, log_level="warning", access_log=False)
    server = GuardedServer(config, limits.connections, limits.connections_of_one, SECONDS)
    try:
        asyncio.run(server.serve([listener]))
    finally:
        journal.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
