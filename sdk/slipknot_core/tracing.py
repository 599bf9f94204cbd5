"""W3C trace context through every hop, and spans where tracing is on.

Off (the default) a client's `traceparent` and `tracestate` travel with the request as they came: to user
code, to logs, to every handle call. On, proxy, handle call and replica each make a span whose id goes on to
the next hop; the spans are OpenTelemetry's (`otel.py`, the extra `slipknot[otel]`).
"""

import re
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Literal, Protocol

MAX_TRACESTATE_CHARS = 512

_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})(?P<span>[0-9a-f]{16})-[0-9a-f]{2}(-.*)?"
)
_TRACESTATE = re.compile(r"[\x20-\x7e]*")

Kind = Literal["server", "client"]
"""A request that came, or one that is made."""


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """Whether spans are made, and where they go.

    Raises:
        ValueError: A value is not allowed.
    """

    enabled: bool = False
    """`SLIPKNOT_TRACING_ENABLED`: "1" or "true". Needs the extra `slipknot[otel]`."""
    exporter_import_path: str = ""
    """`SLIPKNOT_TRACING_EXPORTER_IMPORT_PATH`: "module:function" that returns a span exporter, a span
    processor, or a list of these. Empty: spans are made and passed on, but go nowhere.
    """
    sampling_ratio: float = 1.0
    """`SLIPKNOT_TRACING_SAMPLING_RATIO`: part of the traces that begin here and are recorded, 0 to 1; one
    that a client began is recorded if the client says so.
    """

    def __post_init__(self) -> None:
        if not isinstance(self.enabled, bool):
            raise ValueError(f"tracing: enabled={self.enabled!r} is not true or false")
        if not isinstance(self.exporter_import_path, str) or (
            self.exporter_import_path and not all(self.exporter_import_path.partition(":")[::2])
        ):
            raise ValueError(
                f"tracing: exporter_import_path={self.exporter_import_path!r}; use 'module:function'"
            )
        if not isinstance(self.sampling_ratio, (int, float)) or not 0 <= self.sampling_ratio <= 1:
            raise ValueError(f"tracing: sampling_ratio={self.sampling_ratio!r} is not from 0 to 1")

    def environment(self) -> dict[str, str]:
        """The variables that say the same to a child process."""
        if not self.enabled:
            return {"SLIPKNOT_TRACING_ENABLED": "0"}
        return {
            "SLIPKNOT_TRACING_ENABLED": "1",
            "SLIPKNOT_TRACING_EXPORTER_IMPORT_PATH": self.exporter_import_path,
            "SLIPKNOT_TRACING_SAMPLING_RATIO": str(self.sampling_ratio),
        }


class Span(Protocol):
    """One hop's part of a request."""

    traceparent: str
    """For the next hop."""
    tracestate: str

    def attach(self, context: Context) -> None:
        """Make it the parent of the spans that code in `context` makes by itself."""

    def end(self, status: str, *, name: str = "", is_error: bool = False, cancel_reason: str = "") -> None:
        """The hop is over; only the first call counts."""


class Tracer(Protocol):
    """Makes spans."""

    def start(
        self,
        name: str,
        kind: Kind,
        *,
        traceparent: str = "",
        tracestate: str = "",
        attributes: dict[str, Any],
    ) -> Span:
        """Begin a span below `traceparent`; a "client" one below that of the running code, if it has one."""

    def use_for_user_code(self) -> None:
        """Spans that user code makes go the same way."""

    def stop(self) -> None:
        """Send what waits to be sent, within bounds."""


active: Tracer | None = None
"""None: tracing is off. Read as `tracing.active`: it is set when the process starts."""


def configure(settings: TracingSettings) -> None:
    """Turn tracing on or off in this process.

    Raises:
        ValueError: OpenTelemetry is not installed, or the exporter cannot be made.
    """
    global active
    stop()
    if settings.enabled:
        try:
            from .otel import OtelTracer
        except ImportError as error:
            raise ValueError(
                f"tracing needs OpenTelemetry: pip install 'slipknot[otel]' ({error})"
            ) from error
        active = OtelTracer(settings)


def configure_for_user_code(settings: TracingSettings) -> None:
    """The same in a process that runs user code: spans that it makes by itself go the same way.

    Raises:
        ValueError: As `configure`.
    """
    configure(settings)
    if active is not None:
        active.use_for_user_code()


def stop() -> None:
    """Turn it off; twice is fine."""
    global active
    tracer, active = active, None
    if tracer is not None:
        tracer.stop()


def trace_context(traceparent: str, tracestate: str) -> tuple[str, str]:
    """What a client sent, checked; both empty if the first is none, as W3C wants it."""
    if not traceparent or len(traceparent) > MAX_TRACESTATE_CHARS or not _TRACEPARENT.fullmatch(traceparent):
        return "", ""
    if len(tracestate) > MAX_TRACESTATE_CHARS or not _TRACESTATE.fullmatch(tracestate):
        tracestate = ""
    return traceparent, tracestate


def trace_ids(traceparent: str) -> tuple[str, str]:
    """Trace id and span id; empty if it is none."""
    match = _TRACEPARENT.fullmatch(traceparent)
    return (match["trace"], match["span"]) if match else ("", "")
