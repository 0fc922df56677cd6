"""Prometheus metrics of the server, and how its log lines are written."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from prometheus_client import Counter, Gauge, Histogram

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


def batch_computed(
    model: str, instances: int, measured: Mapping[str, float], waits: Iterable[float]
) -> None:
    """Count one batch.

    Args:
        measured: seconds by stage, and how often the session's cache was hit and missed.
        waits: seconds that each of its requests waited in the queue.
    """
    BATCH_SIZE.labels(model).observe(instances)
    for wait in waits:
        STAGE_SECONDS.labels("queue").observe(wait)
    for stage in STAGES:
        if stage in measured:
            STAGE_SECONDS.labels(stage).observe(measured[stage])
    for outcome, name in (("hit", "cache_hits"), ("miss", "cache_misses")):
        CACHE.labels(outcome).inc(measured.get(name, 0.0))


class ObservedCall(Protocol):
    """What is noted of a request that was answered; see `serving.answering.call.Call`."""

    @property
    def id(self) -> str: ...
    @property
    def protocol(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def answered_by(self) -> str | None: ...
    @property
    def timings(self) -> Mapping[str, float]: ...


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, then the fields of the event, or the
    exception.
    """

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = record.exc_text or self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class Plain(logging.Formatter):
    """The same on one line of text, for people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", None)
        line = super().format(record)
        if not fields:
            return line
        return " ".join([line, *(f"{name}={value}" for name, value in fields.items())])
