"""OpenTelemetry traces. FastAPI makes the span of each request, a child of its `traceparent`; the spans of queue and
generation are added below it, with the attributes of the conventions for generative AI.

The standard variables OTEL_* configure them; without an endpoint among these there are no spans, and no cost.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers

from server.http.exchange import Exchange, Generated

if TYPE_CHECKING:  # the SDK is an extra
    from opentelemetry.sdk.trace import TracerProvider

logger = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_CLOSE_SECONDS = 3.0
_CHAT_ROUTES = ("/v1/chat/completions", "/v1/responses")


class Tracing:
    """The traces of one server."""

    def __init__(self, model: str, provider: "TracerProvider | None") -> None:
        """
        Args:
            model: the name of the served model, for the spans.
            provider: where spans go; None for the global one, which by default drops them.
        """
        self._model = model
        self._provider = provider
        self._tracer = trace.get_tracer("llada", tracer_provider=provider)

    def config(self, exclude: Callable[[MutableMapping[str, Any]], bool]) -> TelemetryConfig:
        """How FastAPI traces requests. Its log records are off: they would carry what a request asked.

        Args:
            exclude: whether a request, by its ASGI scope, has no span.
        """
        return {"tracer_provider": self._provider, "operation_spans": False, "logs": False, "exclude": exclude}

    def trace_id(self, headers: Headers) -> str | None:
        """The id of the trace that the current request belongs to: that of its span, or of its `traceparent`."""
        context = trace.get_current_span().get_span_context()
        if not context.is_valid:
            context = trace.get_current_span(TraceContextTextMapPropagator().extract(headers)).get_span_context()
        return trace.format_trace_id(context.trace_id) if context.is_valid else None

    def add_spans(self, exchange: Exchange) -> None:
        """Add the spans of queue and generation below that of the request, now that they are over."""
        generated = exchange.generated
        if generated is None or (times := generated.times) is None or (started := times.admitted) is None:
            return
        nanoseconds = _clock()
        # A stream that was resumed has waited and begun, and maybe ended, in another request.
        is_resumed = times.arrived != exchange.arrived
        if is_resumed:
            started = exchange.arrived
            if generated.ended <= started:
                return
        else:
            queue = self._tracer.start_span("queue", start_time=nanoseconds(times.submitted))
            queue.end(nanoseconds(started))
        span = self._tracer.start_span(
            f"{_operation(exchange)} {self._model}",
            start_time=nanoseconds(started),
            attributes=self._attributes(exchange, generated),
        )
        if times.first_commit_seconds is not None and not is_resumed:
            span.add_event("first commit", timestamp=nanoseconds(times.arrived + times.first_commit_seconds))
        if {"error", "timeout"} & set(generated.finish_reasons):
            span.set_status(trace.StatusCode.ERROR)
        span.end(nanoseconds(generated.ended))

    def close(self) -> None:
        """Send the spans that are still waiting, if the collector takes them soon: it must not hold up the end."""
        if self._provider is not None:
            sending = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
            sending.start()
            sending.join(_CLOSE_SECONDS)

    def _attributes(self, exchange: Exchange, generated: Generated) -> dict[str, Any]:
        return {
            "gen_ai.operation.name": _operation(exchange),
            "gen_ai.provider.name": "llada",
            "gen_ai.request.model": self._model,
            "gen_ai.response.model": self._model,
            "gen_ai.response.id": exchange.answer_id or "",
            "gen_ai.response.finish_reasons": generated.finish_reasons,
            "gen_ai.usage.input_tokens": generated.prompt_tokens,
            "gen_ai.usage.output_tokens": generated.completion_tokens,
            "llada.denoising_steps": generated.denoising_steps,
        }


def _operation(exchange: Exchange) -> str:
    return "chat" if exchange.route in _CHAT_ROUTES else "text_completion"


def _clock() -> Callable[[float], int]:
    """A function that turns `time.monotonic()` into nanoseconds since 1970."""
    offset = time.time_ns() - time.monotonic_ns()
    return lambda moment: offset + int(moment * 1e9)


def exporting_provider() -> "TracerProvider | None":
    """A provider that sends spans where the OTEL_* variables say; None if they name no place."""
    named = next((name for name in _ENDPOINTS if os.environ.get(name)), None)
    is_off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if named is None or is_off or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        logger.warning("%s is set, but traces need the extra: pip install 'llada[otel]'", named)
        return None
    named_by_environment = OTELResourceDetector().detect().attributes
    resource = Resource.create({"service.name": "llada-server", **named_by_environment})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
