"""What can be seen of the server from outside: Prometheus metrics and one log line for each
request.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from serving.answering.batching import Call
    from serving.observe.tracing import Tracing

STAGES = ("tokenise", "encode", "rank")

_FINE = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

REQUESTS = Counter(
    "tasteloop_requests",
    "Requests answered, refusals included",
    ("protocol", "model", "version", "code"),
)
SECONDS = Histogram(
    "tasteloop_request_seconds",
    "Seconds from a request's arrival to its answer",
    ("protocol", "model"),
    buckets=_FINE,
)
STAGE_SECONDS = Histogram(
    "tasteloop_stage_seconds",
    "Seconds by stage: queue of a request, the others of a batch",
    ("stage",),
    buckets=_FINE,
)
BATCH_SIZE = Histogram(
    "tasteloop_batch_instances",
    "Instances computed at once",
    ("model",),
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
QUEUED = Gauge("tasteloop_queue_instances", "Instances that wait")
REFUSED = Counter("tasteloop_queue_refusals", "Requests refused because too much waited")
CACHE = Counter("tasteloop_cache_lookups", "Texts looked up in the session's cache", ("outcome",))
CLOSED = Counter(
    "tasteloop_connections_closed",
    "HTTP connections that the server closed, not the caller",
    ("why",),
)
READY = Gauge("tasteloop_ready", "1: warm and taking requests")

_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")  # W3C Trace Context

access = logging.getLogger("serving.http.access")
tracing: Tracing | None = None  # where the server was told of a collector


def batch_computed(
    model: str, instances: int, found: Mapping[str, float], waits: Iterable[float]
) -> None:
    BATCH_SIZE.labels(model).observe(instances)
    for wait in waits:
        STAGE_SECONDS.labels("queue").observe(wait)
    for stage in STAGES:
        if stage in found:
            STAGE_SECONDS.labels(stage).observe(found[stage])
    for outcome, name in (("hit", "cache_hits"), ("miss", "cache_misses")):
        CACHE.labels(outcome).inc(found.get(name, 0.0))


def answered(call: Call, model: str, code: str, seconds: float, quiet: bool) -> None:
    """Counts one request and logs it.

    Args:
        model: one that is served, or "": a caller cannot make up label values.
        quiet: a probe or a look at metadata that went well; logged at debug only.
    """
    version = call.answered_by or ""
    REQUESTS.labels(call.protocol, model, version, code).inc()
    if model:
        SECONDS.labels(call.protocol, model).observe(seconds)
    if tracing is not None and not quiet:
        tracing.answered(call, model, code, seconds)
    level = logging.DEBUG if quiet else logging.INFO
    if access.isEnabledFor(level):
        fields: dict[str, Any] = {"request": call.id, "protocol": call.protocol, "code": code}
        if match := _TRACE.fullmatch(call.headers.get("traceparent", "")):
            fields["trace"] = match[1]
        if model:
            fields |= {"model": model, "version": version}
        fields["seconds"] = round(seconds, 6)
        fields |= {name: round(value, 6) for name, value in call.timings.items()}
        access.log(level, "answered", extra={"fields": fields})


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, then the fields of the event, or the
    exception.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = record.exc_text or self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class Plain(logging.Formatter):
    """For people: the same on one line of words."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", None)
        line = super().format(record)
        return (
            f"{line} " + " ".join(f"{name}={value}" for name, value in fields.items())
            if fields
            else line
        )
