"""What every kind of exchange has in common: a slot, a task of the user's code, its cancellation, its line in
the log.

The rules (DESIGN §3, "Cancellation, precisely"):
- user code runs in one task with a context of its own; a cancellation cancels first the handle calls of the
  request, then sends the closing reply, then cancels the task;
- the exchange is over for the caller at once, but the slot stays taken until the task has ended;
- after the closing reply (background tasks) nothing is cancelled any more;
- CancelledError without a cancellation is an error like any other.
"""

import asyncio
import contextvars
import itertools
import logging
import time
from collections.abc import Callable
from typing import Protocol

from slipknot_core import request_context, tracing
from slipknot_core.cancel_reasons import reason_name
from slipknot_core.deadline import Deadline
from slipknot_core.errors import ProtocolError, SlipknotServeException
from slipknot_core.failures import to_error_info
from slipknot_core.ids import DeploymentId
from slipknot_core.logs import access_log
from slipknot_core.metrics import known_method
from slipknot_core.request_context import RequestContext
from slipknot_core.routing.exchange import CHUNK_COST_BYTES
from slipknot_core.routing.messages import ReplyFrame
from slipknot_core.tracing import Span, Tracer
from slipknot_proto.v1 import replica_pb2
from slipknot_proto.v1.payload_pb2 import CancelReason

from .admission import Admission
from .metrics import Counters, is_error
from .server_stream import ServerStream
from .user_code import UserCode

logger = logging.getLogger("slipknot.serve")

ACCEPT_AFTER_S = 0.005
"""A request that has not been answered after this is reported as accepted."""

DEFAULT_REPLY_CREDIT_BYTES = 262_144

MAX_BREATH_S = 0.0002
"""A producer that never waits leaves the loop to others after this; what it made until then goes together."""

MIN_BREATH_S = 0.00002
ROUND_S = 0.004
"""Producers that never wait share this, down to `MIN_BREATH_S` each: a round of all of them is what others on
the loop wait for."""

_turns = itertools.count(1)
"""Of all producers that left the loop to others."""

OUTLIVES_AFTER_S = 1.0
"""Code that goes on so long after its request was cancelled is named in the log."""


class Replica(Protocol):
    """The replica, as its exchanges see it."""

    admission: Admission
    counters: Counters
    user_code: UserCode | None
    deployment_id: DeploymentId
    base_context: contextvars.Context
    origin: str
    access_log_enabled: bool
    allows_pickle: bool
    max_payload_bytes: int


class ServerExchange:
    """One request on the replica. Subclasses say how the request becomes a call of user code."""

    error_status = "ERROR"
    """What the access log calls a request whose code raised."""

    def __init__(self, replica: Replica, open_: replica_pb2.Open, stream: ServerStream) -> None:
        self.on_ended: Callable[[ServerExchange], None] = lambda exchange: None
        self._replica = replica
        self._open = open_
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._started_s = time.monotonic()
        self._task: asyncio.Task[None] | None = None
        self._has_slot = True
        self._is_closed = False
        self._has_replied = False
        self._status = ""
        self._credit = open_.reply_credit_bytes or DEFAULT_REPLY_CREDIT_BYTES
        self._credit_waiter: asyncio.Future[None] | None = None
        self._accept_timer: asyncio.TimerHandle | None = None
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._outlive_timer: asyncio.TimerHandle | None = None
        self._hang_up: OSError | None = None
        self._breathed_s = 0.0
        self._breath_s = MAX_BREATH_S
        self._turn = 0
        self._counts_route = True
        self.request = RequestContext(
            request_id=open_.request_id,
            route=open_.route,
            app_name=open_.app_name,
            deployment_name=open_.deployment_name,
            multiplexed_model_id=open_.multiplexed_model_id,
            session_id=open_.session_id,
            traceparent=open_.traceparent,
            tracestate=open_.tracestate,
            deadline=Deadline.from_budget_us(open_.deadline_budget_us),
            caller_chain=tuple(open_.caller_chain),
        )
        if tracing.active is not None:
            self._begin_span(tracing.active)

    # --- for the stream -----------------------------------------------------------------------------

    @property
    def body_is_complete(self) -> bool:
        """The caller has nothing more to send of the request's body."""
        return True

    def start(self) -> None:
        """Run user code; the slot is taken already."""
        context = self._replica.base_context.copy()
        context.run(request_context.current.set, self.request)
        if self.request.span is not None:
            self.request.span.attach(context)
        self._context = context
        self._task = self._loop.create_task(
            self._run(), name=f"request {self.request.request_id}", context=context
        )
        self._task.add_done_callback(self._task_ended)
        self._accept_timer = self._loop.call_later(ACCEPT_AFTER_S, self._say_accepted)
        if not self.request.deadline.is_never:
            self._deadline_timer = self._loop.call_later(self.request.deadline.remaining_s(), self._expire)

    def on_frame(self, kind: str, frame: replica_pb2.CallFrame) -> None:
        """Take a frame of the caller."""
        if kind != "credit":
            raise ProtocolError(
                f"frame {kind!r} does not belong to a {self._open.WhichOneof('request')} exchange"
            )
        self._credit += frame.credit.byte_count
        wake(self._credit_waiter)

    def cancel(self, reason: CancelReason, origin: str) -> None:
        """Cancel the request; a no-op once it has been answered or cancelled."""
        if self._is_closed or self.request.is_cancelled:
            return
        self.request.cancel(reason, origin)
        self._close(replica_pb2.ReplyFrame(cancelled=replica_pb2.Cancelled(reason=reason, origin=origin)))
        self._replica.counters.cancelled += 1
        self._replica.counters.cancelled_by.add((reason_name(reason),))
        self._on_cancelled()
        if self._task is not None and not self._task.done():
            # What the task does from now on is cleanup: calls it makes do not belong to the request any more.
            self._context.run(request_context.cancellation_raised.set, self.request)
            self._task.cancel()
            self._outlive_timer = self._loop.call_later(OUTLIVES_AFTER_S, self._report_outliving)

    @property
    def described(self) -> tuple[str, str]:
        """What it calls, and its request's id, for people; from any thread."""
        return " ".join(self._label()), self.request.request_id

    # --- for subclasses -----------------------------------------------------------------------------

    @property
    def _user_code(self) -> UserCode:
        assert self._replica.user_code is not None  # nothing is admitted before it was constructed
        return self._replica.user_code

    async def _serve(self) -> None:
        """Call user code and reply."""
        raise NotImplementedError

    def _label(self) -> tuple[str, str]:
        """Method and route for the access log."""
        raise NotImplementedError

    def _on_cancelled(self) -> None:
        """Wake what waits for the caller."""

    def _hung_up(self, text: str) -> OSError:
        """What code gets that answers although its request was cancelled; raising it is no failure."""
        self._hang_up = OSError(text)
        return self._hang_up

    def _on_error(self, error: BaseException) -> None:
        """Answer what user code raised."""
        failure = replica_pb2.Failure(error=to_error_info(error, with_pickle=False), route=self._label()[1])
        self._close(replica_pb2.ReplyFrame(failure=failure))

    def _reply(self, frame: ReplyFrame) -> None:
        if not self._has_replied:
            self._has_replied = True
            self._stop_timer(self._accept_timer)
        self._stream.post(frame)

    def _close(self, frame: ReplyFrame) -> None:
        """Send the closing reply, once."""
        if self._is_closed:
            return
        self._is_closed = True
        self._stop_timer(self._accept_timer)
        self._stop_timer(self._deadline_timer)
        self._stream.post_closing(frame, self)

    async def _spend(self, byte_count: int, cost_bytes: int = CHUNK_COST_BYTES) -> None:
        """Wait until the caller takes more, then use its credit."""
        if self._credit <= 0:
            await self._credited()
        cost = byte_count + cost_bytes
        if not self._stream.has_room(cost):
            await self._stream.room()
        self._credit -= cost

    async def _credited(self) -> None:
        while self._credit <= 0:
            self._credit_waiter = self._loop.create_future()
            await self._credit_waiter

    async def _breathe(self) -> None:
        """Leave the loop to others now and then: a producer that never waits must not keep it for itself."""
        if time.monotonic() - self._breathed_s >= self._breath_s:
            await asyncio.sleep(0)
            last_turn, self._turn = self._turn, next(_turns)
            self._breath_s = min(max(ROUND_S / (self._turn - last_turn), MIN_BREATH_S), MAX_BREATH_S)
            self._breathed_s = time.monotonic()

    # --- inside -------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._serve()
            self._status = self._status or "OK"
            self._replica.counters.completed += 1
            if self.request.is_cancelled:
                self._replica.counters.completed_after_cancel += 1
        except asyncio.CancelledError:
            if self.request.is_cancelled:
                raise
            error = SlipknotServeException(
                "the handler raised CancelledError by itself: "
                "something it awaited was cancelled, but not this request"
            )
            self._failed(error)
        except BaseException as error:  # whatever the user's code raises, KeyboardInterrupt too
            if not self._loop.is_running():
                raise  # the loop was given up, and this coroutine is only closed
            self._failed(error)
        finally:
            self._release_slot()

    def _failed(self, error: BaseException) -> None:
        if self.request.is_cancelled:
            # Starlette raises an exception of its own instead of it.
            if self._hang_up is not None and self._hang_up in (error, error.__context__):
                self._replica.counters.completed_after_cancel += 1
                return
            logger.info(
                "cleanup_failed after the cancellation of request %s: %r", self.request.request_id, error
            )
            return
        self._status = self._status or self.error_status
        if isinstance(error, SlipknotServeException):
            logger.warning("request_failed %s: %s", type(error).__name__, error)
        else:
            logger.error("request_failed %s", type(error).__name__, exc_info=error)
        self._on_error(error)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._release_slot()  # a task cancelled before its first step never came to its `finally`
        self._stop_timer(self._outlive_timer)
        self._stop_timer(self._deadline_timer)
        if not task.cancelled() and task.exception() is not None:
            logger.error("request_task_failed %s", self.request.request_id, exc_info=task.exception())

    def _release_slot(self) -> None:
        if not self._has_slot:
            return
        self._has_slot = False
        self._ended()
        self.on_ended(self)
        self._replica.admission.release()

    def _ended(self) -> None:
        """Count the request and write its line."""
        method, route = self._label()
        status = "CANCELLED" if self.request.is_cancelled else self._status
        latency_ms = (time.monotonic() - self._started_s) * 1e3
        if self.request.span is not None:
            self._end_span(self.request.span, f"{method} {route}", status)
        counted = route if self._counts_route else ""
        self._replica.counters.requests.observe((counted, known_method(method), status), latency_ms)
        if not self._replica.access_log_enabled or not logger.isEnabledFor(logging.INFO):
            return
        access_log(method, route, status, latency_ms, cancel_reason=reason_name(self.request.cancel_reason))

    def _begin_span(self, tracer: Tracer) -> None:
        request = self.request
        request.span = tracer.start(
            f"replica {request.app_name}/{request.deployment_name}",
            "server",
            traceparent=request.traceparent,
            tracestate=request.tracestate,
            attributes={
                "slipknot.application": request.app_name,
                "slipknot.deployment": request.deployment_name,
                "slipknot.replica": self._replica.origin,
                "slipknot.request_id": request.request_id,
            },
        )
        request.traceparent, request.tracestate = request.span.traceparent, request.span.tracestate

    def _end_span(self, span: Span, name: str, status: str) -> None:
        span.end(
            status,
            name=f"replica {self.request.app_name}/{self.request.deployment_name} {name}",
            is_error=is_error(status),
            cancel_reason=reason_name(self.request.cancel_reason),
        )

    def _say_accepted(self) -> None:
        if not self._has_replied:
            self._reply(replica_pb2.ReplyFrame(accepted=replica_pb2.Accepted()))

    def _expire(self) -> None:
        self.cancel(CancelReason.CANCEL_REASON_DEADLINE_EXCEEDED, self._replica.origin)

    def _report_outliving(self) -> None:
        self._replica.counters.outlived += 1
        logger.info(
            "request_outlived %s: its code still runs %.0f s after it was cancelled and keeps its slot",
            self.request.request_id,
            OUTLIVES_AFTER_S,
        )

    def _stop_timer(self, timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


def wake(waiter: asyncio.Future[None] | None) -> None:
    """Let the one that waits go on."""
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
