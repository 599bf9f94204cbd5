"""The proxy's span of a request, where tracing is on."""

from slipknot_core.request_context import RequestContext
from slipknot_core.tracing import Tracer

FIRST_ERROR_STATUS = 500
LAST_ERROR_STATUS = 599
INTERNAL_ERROR_CODE = 1011
"""Of a WebSocket."""


def begin_span(tracer: Tracer, context: RequestContext, method: str) -> None:
    """Begin it below what the client sent, and pass it on instead."""
    context.span = tracer.start(
        f"proxy {method} {context.route}",
        "server",
        traceparent=context.traceparent,
        tracestate=context.tracestate,
        attributes={
            "http.request.method": method,
            "slipknot.application": context.app_name,
            "slipknot.deployment": context.deployment_name,
            "slipknot.request_id": context.request_id,
        },
    )
    context.traceparent, context.tracestate = context.span.traceparent, context.span.tracestate


def end_span(context: RequestContext, method: str, route: str, status: int | str, cancel_reason: str) -> None:
    """End it, if there is one; and let the log line name the route that matched."""
    if context.app_name:
        context.route = route
    if context.span is None:
        return
    if isinstance(status, int):
        is_error = FIRST_ERROR_STATUS <= status <= LAST_ERROR_STATUS or status == INTERNAL_ERROR_CODE
    else:
        is_error = status == "ERROR"
    context.span.end(
        str(status), name=f"proxy {method} {route}", is_error=is_error, cancel_reason=cancel_reason
    )
