"""Spans of OpenTelemetry. Imported only where tracing is on; needs the extra `slipknot[otel]`."""

import contextvars
import importlib
from collections.abc import Iterable
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .tracing import Kind, TracingSettings

FLUSH_MS = 2000
"""How long the end of a process waits for an exporter."""

_KINDS = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT}
_w3c = TraceContextTextMapPropagator()


class OtelSpan:
    """As `tracing.Span`."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        carrier: dict[str, str] = {}
        _w3c.inject(carrier, trace.set_span_in_context(span, Context()))
        self.traceparent = carrier.get("traceparent", "")
        self.tracestate = carrier.get("tracestate", "")

    def attach(self, context: contextvars.Context) -> None:
        """As `tracing.Span.attach`."""
        context.run(self._attach)

    def _attach(self) -> None:
        otel_context.attach(trace.set_span_in_context(self._span))

    def end(self, status: str, *, name: str = "", is_error: bool = False, cancel_reason: str = "") -> None:
        """As `tracing.Span.end`."""
        if not self._span.is_recording():
            return
        if name:
            self._span.update_name(name)
        self._span.set_attribute("slipknot.status", status)
        if cancel_reason:
            self._span.set_attribute("slipknot.cancelled", True)
            self._span.set_attribute("slipknot.cancel_reason", cancel_reason)
        if cancel_reason or is_error:
            text = f"cancelled: {cancel_reason}" if cancel_reason else status
            self._span.set_status(Status(StatusCode.ERROR, text))
        self._span.end()


class OtelTracer:
    """As `tracing.Tracer`.

    Raises:
        ValueError: The exporter cannot be made.
    """

    def __init__(self, settings: TracingSettings) -> None:
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.sampling_ratio)),
            resource=Resource.create({"service.name": "slipknot"}),
            shutdown_on_exit=False,
        )
        for processor in _processors(settings.exporter_import_path):
            self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("slipknot")

    def start(
        self,
        name: str,
        kind: Kind,
        *,
        traceparent: str = "",
        tracestate: str = "",
        attributes: dict[str, Any],
    ) -> OtelSpan:
        """As `tracing.Tracer.start`."""
        if kind == "client" and trace.get_current_span().get_span_context().is_valid:
            parent = None  # what the running code has; maybe a span of the user's own
        else:
            carrier = {"traceparent": traceparent, "tracestate": tracestate} if traceparent else {}
            parent = _w3c.extract(carrier, Context())
        return OtelSpan(
            self._tracer.start_span(name, context=parent, kind=_KINDS[kind], attributes=attributes)
        )

    def use_for_user_code(self) -> None:
        """Spans that user code makes go the same way, unless it has set a provider of its own."""
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            trace.set_tracer_provider(self._provider)

    def stop(self) -> None:
        """As `tracing.Tracer.stop`."""
        self._provider.force_flush(FLUSH_MS)
        self._provider.shutdown()


def _processors(import_path: str) -> list[SpanProcessor]:
    if not import_path:
        return []
    module_name, _, name = import_path.partition(":")
    try:
        made = getattr(importlib.import_module(module_name), name)()
    except Exception as error:  # the operator's code may raise anything; all of it means that it is unusable
        raise ValueError(f"tracing: the exporter {import_path!r} cannot be made: {error!r}") from error
    found = list(made) if isinstance(made, Iterable) else [made]
    return [_processor(one, import_path) for one in found]


def _processor(one: Any, import_path: str) -> SpanProcessor:
    if isinstance(one, SpanProcessor):
        return one
    if isinstance(one, SpanExporter):
        return BatchSpanProcessor(one)
    raise ValueError(
        f"tracing: the exporter {import_path!r} gave {one!r}; it must give span exporters or span processors"
    )
