"""What a proxy counts, and what it shows of itself on its admin port."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from slipknot_core.cancel_reasons import reason_name
from slipknot_core.metrics import (
    Counts,
    Distribution,
    Distributions,
    Labels,
    Reading,
    counters,
    gauge,
    histogram,
    known_method,
)
from slipknot_core.routing.exchange import Exchange

if TYPE_CHECKING:
    from .app import ProxyApp

HTTP = ("route", "method", "status", "application", "deployment")
WEBSOCKET = ("route", "status", "application", "deployment")
GRPC = ("method", "status", "application")
FIRST_ERROR_STATUS = 400

Match = tuple[str, str, str]
"""Route template, application and deployment that a request belongs to; empty where nothing matched, so that
unknown paths make no labels.
"""

NO_MATCH: Match = ("", "", "")


class ProxyCounts:
    """Requests that have ended; counting one is a dictionary lookup and an addition."""

    def __init__(self) -> None:
        self.http = Distributions()
        """Milliseconds, by HTTP."""
        self.websockets = Distributions()
        """Milliseconds, by WEBSOCKET."""
        self.grpc = Distributions()
        """Milliseconds, by GRPC."""
        self.cancelled = Counts()
        """By reason, application and deployment."""
        self.grpc_ongoing = 0

    def http_ended(self, method: str, status: int, latency_ms: float, match: Match, reason: str) -> None:
        """Count an HTTP request.

        Args:
            method: As the client sent it.
            status: As the client saw it; 499: it had left.
            latency_ms: From arrival to end.
            match: Where it went.
            reason: Why it was cancelled; empty if it was not.
        """
        route, app_name, deployment = match
        self.http.observe((route, known_method(method), status, app_name, deployment), latency_ms)
        if reason:
            self.cancelled.add((reason, app_name, deployment))

    def websocket_ended(self, status: int, duration_ms: float, match: Match, reason: str) -> None:
        """Count a WebSocket; `status` is its close code, or the status of a handshake that was refused."""
        route, app_name, deployment = match
        self.websockets.observe((route, status, app_name, deployment), duration_ms)
        if reason:
            self.cancelled.add((reason, app_name, deployment))

    def grpc_ended(self, method: str, status: str, latency_ms: float, exchange: Exchange) -> None:
        """Count a call of a method through the gateway; `method` is the gateway's own."""
        app_name = exchange.open.app_name
        self.grpc.observe((method, status, app_name), latency_ms)
        reason = cancel_reason(exchange)
        if reason:
            self.cancelled.add((reason, app_name, exchange.open.deployment_name))


def cancel_reason(exchange: Exchange | None) -> str:
    """Why it was cancelled, for people; empty if it was not."""
    return "" if exchange is None else reason_name(exchange.cancel_reason)


def proxy_readings(app: "ProxyApp", connection_count: int) -> list[Reading]:
    """Everything that is the proxy's own."""
    counts = app.counts
    return [
        counters(
            "slipknot_proxy_http_requests", "HTTP requests that have ended.", HTTP, _counts(counts.http)
        ),
        counters(
            "slipknot_proxy_http_errors",
            "Those of them with a status of 400 or more.",
            HTTP,
            {labels: count for labels, count in _counts(counts.http).items() if _is_error(labels[2])},
        ),
        histogram(
            "slipknot_proxy_http_request_latency_ms",
            "From arrival to end, queueing included.",
            HTTP,
            counts.http,
        ),
        counters(
            "slipknot_proxy_websockets", "WebSockets that have ended.", WEBSOCKET, _counts(counts.websockets)
        ),
        histogram(
            "slipknot_proxy_websocket_duration_ms", "From handshake to close.", WEBSOCKET, counts.websockets
        ),
        counters(
            "slipknot_proxy_grpc_requests", "Method calls through the gateway.", GRPC, _counts(counts.grpc)
        ),
        histogram(
            "slipknot_proxy_grpc_request_latency_ms",
            "Of method calls through the gateway.",
            GRPC,
            counts.grpc,
        ),
        counters(
            "slipknot_proxy_cancelled_requests",
            "Requests that were cancelled before they had been answered.",
            ("reason", "application", "deployment"),
            counts.cancelled,
        ),
        *_gauges(app, connection_count),
    ]


def _gauges(app: "ProxyApp", connection_count: int) -> Iterable[Reading]:
    yield gauge(
        "slipknot_proxy_ongoing_http_requests",
        "HTTP requests and WebSockets under way, those of the gateway included.",
        app.ongoing,
    )
    yield gauge(
        "slipknot_proxy_ongoing_grpc_requests",
        "Method calls under way at the gateway.",
        app.counts.grpc_ongoing,
    )
    yield gauge("slipknot_proxy_client_connections", "Open connections of HTTP clients.", connection_count)
    yield gauge("slipknot_proxy_draining", "1: it takes no new work.", float(app.is_draining))
    yield gauge("slipknot_proxy_ready", "1: /-/healthz answers 200.", float(app.healthz() is None))


def _counts(distributions: dict[Labels, Distribution]) -> dict[Labels, float]:
    return {labels: distribution.count for labels, distribution in distributions.items()}


def _is_error(status: str | int) -> bool:
    return isinstance(status, int) and status >= FIRST_ERROR_STATUS
