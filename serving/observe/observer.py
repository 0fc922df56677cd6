"""What is noted of every request after its answer: metrics, one log line, and spans."""

from __future__ import annotations

import logging
import re
from typing import Any

from serving.observe import telemetry
from serving.observe.telemetry import ObservedCall
from serving.observe.tracing import Tracing

access = logging.getLogger("serving.access")

_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")  # W3C Trace Context


class Observer:
    """Counts and logs the requests of one server.

    Args:
        tracing: where spans go; None for nowhere.
    """

    def __init__(self, tracing: Tracing | None = None) -> None:
        self._tracing = tracing

    def answered(
        self, call: ObservedCall, model: str, code: str, seconds: float, quiet: bool
    ) -> None:
        """Note one request.

        Args:
            model: one that is served, or "", so that a caller cannot make up values of a label.
            code: the HTTP status, or the name of gRPC's.
            seconds: from its arrival to its answer.
            quiet: a probe or a request for metadata that succeeded; it is logged at debug only.
        """
        version = call.answered_by or ""
        telemetry.REQUESTS.labels(call.protocol, model, version, code).inc()
        if model:
            telemetry.SECONDS.labels(call.protocol, model).observe(seconds)
        if self._tracing is not None and not quiet:
            self._tracing.answered(call, model, code, seconds)
        level = logging.DEBUG if quiet else logging.INFO
        if access.isEnabledFor(level):
            fields: dict[str, Any] = {"request": call.id, "protocol": call.protocol, "code": code}
            trace = _TRACE.fullmatch(call.headers.get("traceparent", ""))
            if trace:
                fields["trace"] = trace[1]
            if model:
                fields |= {"model": model, "version": version}
            fields["seconds"] = round(seconds, 6)
            fields |= {name: round(value, 6) for name, value in call.timings.items()}
            access.log(level, "answered", extra={"fields": fields})

    def close(self) -> None:
        """Send the spans that are left, for a few seconds at most."""
        if self._tracing is not None:
            self._tracing.close()
