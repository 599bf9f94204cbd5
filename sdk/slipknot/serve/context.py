"""What code in a replica can ask about where it runs, and for whom."""

import contextvars
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from slipknot_core import request_context
from slipknot_core.cancel_reasons import reason_name
from slipknot_core.errors import SlipknotServeException
from slipknot_core.request_context import RequestContext

from .._models import ReplicaModels

__all__ = [
    "ReplicaContext",
    "RequestContextView",
    "cancelled",
    "get_multiplexed_model_id",
    "get_replica_context",
    "get_request_context",
]


_NO_REQUEST = RequestContext(request_id="")


@dataclass(frozen=True, slots=True)
class ReplicaContext:
    """The replica that this code runs in.

    Args:
        app_name: Its application.
        deployment: Its deployment.
        replica_id: Its id in the cluster.
        world_size: Number of replicas the deployment should have.
        rank: From 0; no two replicas of a version have the same while both stay.
    """

    app_name: str
    deployment: str
    replica_id: str
    world_size: int = 1
    rank: int = 0
    servable: Callable[[], Any] = field(default=lambda: None, repr=False, compare=False)
    _models: ReplicaModels = field(default_factory=ReplicaModels, repr=False, compare=False)
    _kept: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)
    """What decorated functions keep for this replica."""

    @property
    def replica_tag(self) -> str:
        """The replica's id, under its older name."""
        return self.replica_id

    @property
    def servable_object(self) -> Any:
        """The instance of the user's class, or the function; None while it is constructed."""
        return self.servable()


class RequestContextView:
    """The request that this code runs in; empty outside one. It is live: `cancel_reason` may change."""

    __slots__ = ("_request",)

    def __init__(self, request: RequestContext | None = None) -> None:
        self._request = request or _NO_REQUEST

    def __repr__(self) -> str:
        reason = f", cancelled: {self.cancel_reason}" if self.cancel_reason else ""
        return f"<RequestContextView {self.request_id!r} of {self.app_name!r}{reason}>"

    @property
    def request_id(self) -> str:
        """From the client's `x-request-id`, or made at the edge; the same at every hop."""
        return self._request.request_id

    @property
    def route(self) -> str:
        """Route prefix with the matched template, of the HTTP request that all this began with."""
        return self._request.route

    @property
    def app_name(self) -> str:
        """This hop's application."""
        return self._request.app_name

    @property
    def multiplexed_model_id(self) -> str:
        """The model that the caller asked for; empty if none."""
        return self._request.multiplexed_model_id

    @property
    def session_id(self) -> str:
        """The session that the caller named; empty if none."""
        return self._request.session_id

    @property
    def traceparent(self) -> str:
        """W3C trace context of this hop; the client's own while tracing is off, empty if there is none."""
        return self._request.traceparent

    @property
    def tracestate(self) -> str:
        """W3C tracestate that came with it."""
        return self._request.tracestate

    @property
    def cancel_reason(self) -> str | None:
        """Why it was cancelled, for example "CLIENT_DISCONNECTED"; None if it was not."""
        return reason_name(self._request.cancel_reason) or None

    @property
    def cancel_origin(self) -> str:
        """The hop where the cancellation began; empty if there was none."""
        return self._request.cancel_origin

    @property
    def remaining_s(self) -> float | None:
        """Seconds left until its deadline, never negative; None without one."""
        return self._request.deadline.timeout_s()

    @property
    def grpc_context(self) -> None:
        """Always None: user-defined gRPC services are not served."""
        return None


class _CurrentRequest:
    """`_serve_request_context.get()`, as older code asks for it."""

    def get(self) -> RequestContextView:
        """The same as `get_request_context()`."""
        return get_request_context()


_serve_request_context = _CurrentRequest()

_replica: contextvars.ContextVar[ReplicaContext | None] = contextvars.ContextVar(
    "slipknot_replica", default=None
)
_process_replica: ReplicaContext | None = None


def get_replica_context() -> ReplicaContext:
    """Tell which replica this code runs in.

    Raises:
        SlipknotServeException: It runs in none.
    """
    replica = _replica_context_or_none()
    if replica is None:
        raise SlipknotServeException(
            "`serve.get_replica_context()` may only be called from within a deployment."
        )
    return replica


def _replica_context_or_none() -> ReplicaContext | None:
    return _replica.get() or _process_replica


def get_request_context() -> RequestContextView:
    """Tell which request this code runs in; an empty one outside."""
    return RequestContextView(request_context.current.get())


_get_serve_request_context = get_request_context

_batch_requests: contextvars.ContextVar[tuple[RequestContext, ...]] = contextvars.ContextVar(
    "slipknot_batch_requests", default=()
)


def _get_serve_batch_request_context() -> list[RequestContextView]:
    """In a batch function: the requests of its callers."""
    return [RequestContextView(request) for request in _batch_requests.get()]


def cancelled() -> bool:
    """Tell whether the request at hand was cancelled; for sync handlers, which nothing interrupts."""
    request = request_context.current.get()
    return request is not None and request.is_cancelled


def get_multiplexed_model_id() -> str:
    """The model that the caller asked for; empty if none, and outside a request."""
    request = request_context.current.get()
    return "" if request is None else request.multiplexed_model_id


def _set_replica_context(replica: ReplicaContext, *, for_process: bool = False) -> None:
    """Set it for this context and what is copied from it, or (`for_process`) for all threads here."""
    global _process_replica
    _replica.set(replica)
    if for_process:
        _process_replica = replica
