"""What can be seen of the server from outside: Prometheus metrics and one log line for each request."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import Counter, Gauge, Histogram, Info

STAGES = ("tokenise", "encode", "rank")

_FINE = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

REQUESTS = Counter(
    "tasteloop_requests", "Requests answered, refusals included", ("protocol", "model", "version", "code")
)
SECONDS = Histogram(
    "tasteloop_request_seconds", "Seconds from a request's arrival to its answer", ("protocol", "model"), buckets=_FINE
)
STAGE_SECONDS = Histogram(
    "tasteloop_stage_seconds", "Seconds by stage: queue of a request, the others of a batch", ("stage",), buckets=_FINE
)
BATCH_SIZE = Histogram(
    "tasteloop_batch_instances", "Instances computed at once", ("model",), buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
QUEUED = Gauge("tasteloop_queue_instances", "Instances that wait")
REFUSED = Counter("tasteloop_queue_refusals", "Requests refused because too much waited")
CACHE = Counter("tasteloop_cache_lookups", "Texts looked up in the session's cache", ("outcome",))
READY = Gauge("tasteloop_ready", "1: warm and taking requests")
VERSION = Info("tasteloop_model", "The bundle that answers")

access = logging.getLogger("serving.access")


def batch_computed(model: str, instances: int, found: Mapping[str, float], waits: Iterable[float]) -> None:
    BATCH_SIZE.labels(model).observe(instances)
    for wait in waits:
        STAGE_SECONDS.labels("queue").observe(wait)
    for stage in STAGES:
        if stage in found:
            STAGE_SECONDS.labels(stage).observe(found[stage])
    for outcome in ("hits", "misses"):
        CACHE.labels(outcome[:-1] if outcome == "hits" else "miss").inc(found.get(f"cache_{outcome}", 0.0))


def answered(
    request: str, protocol: str, model: str, version: str, code: str, seconds: float, timings: Mapping[str, float]
) -> None:
    """Counts one request and logs it. `model` and `version` are ours or "": a caller cannot make up label values."""
    REQUESTS.labels(protocol, model, version, code).inc()
    if model:
        SECONDS.labels(protocol, model).observe(seconds)
    if access.isEnabledFor(logging.INFO):
        fields = {
            "request": request,
            "protocol": protocol,
            "model": model,
            "version": version,
            "code": code,
            "seconds": round(seconds, 6),
            **{name: round(value, 6) for name, value in timings.items()},
        }
        access.info("answered", extra={"fields": fields})


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, then the fields of the event, or the exception."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class Plain(logging.Formatter):
    """For people: the same on one line of words."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", None)
        line = super().format(record)
        return f"{line} " + " ".join(f"{name}={value}" for name, value in fields.items()) if fields else line
