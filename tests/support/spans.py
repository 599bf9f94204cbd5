"""An exporter that keeps spans in memory, for a cluster in this process."""

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

_exporter = InMemorySpanExporter()


def keep() -> list[SpanProcessor]:
    """The `exporter_import_path`."""
    _exporter.clear()
    return [SimpleSpanProcessor(_exporter)]


def kept() -> dict[str, ReadableSpan]:
    """The spans that have ended, by name; the last one of each name."""
    return {span.name: span for span in _exporter.get_finished_spans()}


def broken() -> None:
    """An exporter that is none."""
