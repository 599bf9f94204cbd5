"""What a request is to the code that runs in it: ids, deadline, cancellation, and the handle calls that
belong to it.

The cascade's rule (DESIGN §3): every handle call made in the context of a request belongs to it and is
cancelled with it, awaited or not. Calls made *during cleanup* do not belong to it. A call is made during
cleanup if the cancellation has already been raised in the task that makes it, or in the task that created
that task afterwards. A sibling task that has not heard of the cancellation yet is not cleaning up: what it
calls in
that instant is cancelled
at once.
"""

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from slipknot_proto.v1.payload_pb2 import CancelReason

from .deadline import NEVER, Deadline
from .tracing import Span

logger = logging.getLogger("slipknot.serve")

CancelChild = Callable[[CancelReason, str], None]
"""Cancels one handle call: (reason, origin). Must be safe to call from any thread."""


@dataclass(eq=False, slots=True)
class RequestContext:
    """One request at one hop.

    `cancel` may be called from any thread; children are then cancelled outside the lock, each exactly once.
    """

    request_id: str
    route: str = ""
    app_name: str = ""
    deployment_name: str = ""
    multiplexed_model_id: str = ""
    session_id: str = ""
    traceparent: str = ""
    tracestate: str = ""
    span: Span | None = None
    """None while tracing is off."""
    deadline: Deadline = NEVER
    caller_chain: tuple[str, ...] = ()
    cancel_reason: CancelReason | None = None
    """Set once, when the request is cancelled; None before."""
    cancel_origin: str = ""
    """The hop where the cancellation began."""
    _children: dict[object, CancelChild] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_cancelled(self) -> bool:
        """The request has been cancelled."""
        return self.cancel_reason is not None

    def adopt(self, child: object, cancel: CancelChild) -> bool:
        """Tie a handle call to this request; False if the request is already cancelled (cancel the call at
        once).
        """
        with self._lock:
            if self.cancel_reason is not None:
                return False
            self._children[child] = cancel
            return True

    def release(self, child: object) -> None:
        """The handle call has ended."""
        with self._lock:
            self._children.pop(child, None)

    @property
    def child_count(self) -> int:
        """Handle calls under way."""
        return len(self._children)

    def cancel(self, reason: CancelReason, origin: str) -> bool:
        """Mark the request cancelled and cancel every handle call that belongs to it; False if it already
        was.
        """
        with self._lock:
            if self.cancel_reason is not None:
                return False
            self.cancel_reason, self.cancel_origin = reason, origin
            children, self._children = self._children, {}
        for cancel_child in children.values():
            try:
                cancel_child(CancelReason.CANCEL_REASON_PARENT_CANCELLED, origin)
            except Exception:  # e.g. its loop was closed; the others must hear of it all the same
                logger.exception("cancel_failed a call of request %s could not be cancelled", self.request_id)
        return True


current: contextvars.ContextVar[RequestContext | None] = contextvars.ContextVar(
    "slipknot_request", default=None
)
"""The request this code runs in; None outside one."""

cancellation_raised: contextvars.ContextVar[RequestContext | None] = contextvars.ContextVar(
    "slipknot_cancellation_raised", default=None
)
"""Set, in a task's own context, to the request whose cancellation was raised there; inherited by tasks made
afterwards.
"""


def is_cleaning_up(request: RequestContext) -> bool:
    """The calling code already knows that `request` was cancelled (the rule stands in the module's
    docstring).
    """
    if cancellation_raised.get() is request:
        return True
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    return task is not None and task.cancelling() > 0 and request.is_cancelled


def owner_of_new_call() -> RequestContext | None:
    """The request that a handle call made here and now belongs to, or None (no request, or cleanup after
    one).
    """
    request = current.get()
    if request is None or (request.is_cancelled and is_cleaning_up(request)):
        return None
    return request
