"""OpenTelemetry spans, where `--traces` names a collector: one for each request, and one for each
of its stages.

A request's span continues the caller's trace (W3C `traceparent`). It is written after the answer
was sent, from what the batcher measured; nothing is recorded before. Spans are exported as OTLP
over HTTP in a thread of their own; those that a collector does not take are dropped, and nothing
waits for it. The SDK's own variables hold: OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS,
OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME.
"""

from __future__ import annotations

import os
import time
from urllib.parse import urlsplit

from serving.observe import telemetry
from serving.observe.telemetry import ObservedCall
from tasteloop.errors import TasteloopError

STAGES = ("queue", *telemetry.STAGES)
_SECONDS = 5  # that one export may take


class Tracing:
    """Spans to a collector.

    Args:
        url: the collector's address for traces, such as http://127.0.0.1:4318/v1/traces.

    Raises:
        TasteloopError: it is no address.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise TasteloopError(
                f"--traces: an address such as http://127.0.0.1:4318/v1/traces is expected, not {url!r}"
            )
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        import tasteloop

        named = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": "tasteloop"}
        self._provider = TracerProvider(
            resource=Resource.create({**named, "service.version": tasteloop.__version__}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(endpoint=url, timeout=_SECONDS))
        )
        self._tracer = self._provider.get_tracer("tasteloop.serving", tasteloop.__version__)

    def answered(self, call: ObservedCall, model: str, code: str, seconds: float) -> None:
        """The spans of a request that has just been answered.

        The stages are laid end to end from the request's arrival. How long the queue, the
        tokeniser, the encoder and the ranking took was measured; the moments between were not.
        """
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        # 1. the request's span
        end = time.time_ns()
        start = end - int(seconds * 1e9)
        known = {
            "rpc.system": "grpc" if call.protocol == "grpc" else "http",
            "tasteloop.protocol": call.protocol,
            "tasteloop.request": call.id,
            "tasteloop.code": code,
            "tasteloop.model": model,
            "tasteloop.model_version": call.answered_by or "",
            **{
                f"tasteloop.{name}": value
                for name, value in call.timings.items()
                if name not in STAGES
            },
        }
        span = self._tracer.start_span(
            f"{call.protocol} {model or 'request'}",
            TraceContextTextMapPropagator().extract(call.headers),
            trace.SpanKind.SERVER,
            known,
            start_time=start,
        )

        # 2. its stages
        if span.is_recording():
            if code.startswith("5") or code in ("INTERNAL", "UNKNOWN"):
                span.set_status(trace.StatusCode.ERROR)
            inside, moment = trace.set_span_in_context(span), start
            for name in STAGES:
                if name in call.timings:
                    stage = self._tracer.start_span(name, inside, start_time=moment)
                    moment = min(end, moment + int(call.timings[name] * 1e9))
                    stage.end(moment)
        span.end(end)

    def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        self._provider.force_flush(_SECONDS * 1000)
        self._provider.shutdown()
