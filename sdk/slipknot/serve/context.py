"""What code in a replica can ask about where it runs, and for whom."""

import contextvars
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from slipknot_core import request_context
from slipknot_core.errors import SlipknotServeException
from slipknot_proto.v1.payload_pb2 import CancelReason

__all__ = [
    "ReplicaContext",
    "RequestContextView",
    "cancelled",
    "get_multiplexed_model_id",
    "get_replica_context",
    "get_request_context",
]


@dataclass(frozen=True, slots=True)
class ReplicaContext:
    """The replica that this code runs in.

    Args:
        app_name: Its application.
        deployment: Its deployment.
        replica_id: Its id in the cluster.
        world_size: Number of replicas the deployment should have.
        rank: 0; ranks come with a later release.
    """

    app_name: str
    deployment: str
    replica_id: str
    world_size: int = 1
    rank: int = 0
    servable: Callable[[], Any] = field(default=lambda: None, repr=False, compare=False)

    @property
    def replica_tag(self) -> str:
        """The replica's id, under its older name."""
        return self.replica_id

    @property
    def servable_object(self) -> Any:
        """The instance of the user's class, or the function; None while it is constructed."""
        return self.servable()


@dataclass(frozen=True, slots=True)
class RequestContextView:
    """The request that this code runs in; empty outside one. A snapshot: ask again for news.

    Args:
        request_id: From the client's `x-request-id`, or made at the edge; the same at every hop.
        route: Route prefix with the matched template; of the HTTP request that all this began with.
        app_name: This hop's application.
        multiplexed_model_id: Model the caller asked for.
        session_id: Session the caller named.
        cancel_reason: Why it was cancelled, for example "CLIENT_DISCONNECTED" or "DEADLINE_EXCEEDED"; None if it was not.
        cancel_origin: The hop where the cancellation began.
        remaining_s: Seconds left until its deadline; None without one.
    """

    request_id: str = ""
    route: str = ""
    app_name: str = ""
    multiplexed_model_id: str = ""
    session_id: str = ""
    cancel_reason: str | None = None
    cancel_origin: str = ""
    remaining_s: float | None = None
    grpc_context: Any = None


class _CurrentRequest:
    """`_serve_request_context.get()`, as older code asks for it."""

    def get(self) -> RequestContextView:
        """The same as `get_request_context()`."""
        return get_request_context()


_serve_request_context = _CurrentRequest()

_replica: contextvars.ContextVar[ReplicaContext | None] = contextvars.ContextVar("slipknot_replica", default=None)
_process_replica: ReplicaContext | None = None


def get_replica_context() -> ReplicaContext:
    """Tell which replica this code runs in.

    Raises:
        SlipknotServeException: It runs in none.
    """
    replica = _replica.get() or _process_replica
    if replica is None:
        raise SlipknotServeException("`serve.get_replica_context()` may only be called from within a deployment.")
    return replica


def get_request_context() -> RequestContextView:
    """Tell which request this code runs in; an empty one outside."""
    request = request_context.current.get()
    if request is None:
        return RequestContextView()
    reason = request.cancel_reason
    return RequestContextView(
        request_id=request.request_id,
        route=request.route,
        app_name=request.app_name,
        multiplexed_model_id=request.multiplexed_model_id,
        session_id=request.session_id,
        cancel_reason=None if reason is None else CancelReason.Name(reason).removeprefix("CANCEL_REASON_"),
        cancel_origin=request.cancel_origin,
        remaining_s=request.deadline.timeout_s(),
    )


_get_serve_request_context = get_request_context


def cancelled() -> bool:
    """Tell whether the request that this code runs in was cancelled. For sync handlers, which cannot be interrupted."""
    request = request_context.current.get()
    return request is not None and request.is_cancelled


def get_multiplexed_model_id() -> str:
    """The model that the caller asked for; empty if none, and outside a request."""
    request = request_context.current.get()
    return "" if request is None else request.multiplexed_model_id


def _set_replica_context(replica: ReplicaContext, *, for_process: bool = False) -> None:
    """Set it for this context and what is copied from it, or (`for_process`) for all threads of this process."""
    global _process_replica
    _replica.set(replica)
    if for_process:
        _process_replica = replica
