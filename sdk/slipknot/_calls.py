"""One handle call from its beginning to its outcome. `serve/handle.py` wraps it for users.

A call lives on the loop of its connection; who uses it from elsewhere hops there. To which request it belongs
is decided where it is made: to the one in whose context `.remote()` ran, unless that is already cleaning up,
or the handle is detached.

A call ends in one of these ways, and then stays so:
- a reply: the result, the end of a stream, or what the method raised;
- cancelled by `response.cancel()` or by the task that awaited it: RequestCancelledError;
- cancelled with its request: CancelledError in tasks, RequestCancelledError in threads;
- an error of slipknot's own: the deadline, no replica, the replica lost, an argument that could not be had.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from slipknot_core import payloads, request_context, tracing
from slipknot_core.cancel_reasons import reason_name
from slipknot_core.deadline import NEVER
from slipknot_core.errors import (
    DeploymentUnavailableError,
    ProtocolError,
    ReplicaUnavailableError,
    RequestCancelledError,
    RequestTimeoutError,
    SlipknotServeException,
)
from slipknot_core.ids import DeploymentId, new_request_id
from slipknot_core.request_context import RequestContext
from slipknot_core.routing.exchange import PARENT_FIRST_S, Exchange
from slipknot_core.tracing import Span
from slipknot_proto.v1 import replica_pb2
from slipknot_proto.v1.payload_pb2 import CancelReason

from ._call_open import HandleOptions, begin_span, new_call, origin
from ._connection import CLOSED, Connection
from ._replies import read_reply, renewed

REQUESTED = CancelReason.CANCEL_REASON_REQUESTED
PARENT_CANCELLED = CancelReason.CANCEL_REASON_PARENT_CANCELLED
DEADLINE_EXCEEDED = CancelReason.CANCEL_REASON_DEADLINE_EXCEEDED

_NO_VALUE: Any = object()


class Call:
    """One call. It is made, and `begin` is called, in the thread and context of the caller.

    Invariant: `is_done` is set once, on the loop, when the outcome is there to be read from any thread.
    """

    def __init__(self, connection: Connection, deployment_id: DeploymentId, options: HandleOptions) -> None:
        parent = request_context.current.get()
        self.connection = connection
        self.deployment_id = deployment_id
        self.request_id = parent.request_id if parent is not None else new_request_id()
        self.owner: RequestContext | None = None if options.detached else request_context.owner_of_new_call()
        self.is_done = False
        self._first = new_call(self.request_id, options, parent)
        self._open = self._first.open
        self._span: Span | None = None
        if tracing.active is not None:
            self._span = begin_span(tracing.active, self._open, deployment_id)
        self._exchange: Exchange | None = None
        self._frame: replica_pb2.ReplyFrame | None = None
        self._value: Any = _NO_VALUE
        self._early_error: Exception | None = None
        self._early_reason: CancelReason | None = None
        self._is_cancel_requested = False
        self._is_parent_asked = False
        self._waiters: list[asyncio.Future[None]] = []
        self._resolving: asyncio.Task[None] | None = None

    def begin(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], upstream: "Mapping[int | str, Call]"
    ) -> None:
        """Start the call; with `upstream` calls among the arguments, once their results are there.

        Args:
            args: Positional arguments.
            kwargs: Keyword arguments.
            upstream: The calls whose results are to take the place of arguments, by position or name.

        Raises:
            SerializationError: An argument cannot travel; names it.
            SlipknotServeException: The connection is closed.
        """
        if upstream:
            self.connection.call_soon(self._begin_resolving, list(args), dict(kwargs), upstream)
            return
        self._set_arguments(args, kwargs)
        self.connection.call_soon(self._send)

    # --- from any thread ----------------------------------------------------------------------------------

    @property
    def cancel_reason(self) -> CancelReason | None:
        """Why it was cancelled, if it was; None if its outcome came first."""
        if self._is_cancel_requested:
            return REQUESTED
        if not self.is_done:
            return None
        exchange = self._exchange
        if exchange is None:
            reason = self._early_reason
        else:
            reason = exchange.cancel_reason if exchange.error is not None else None
        if self._has_timed_out and self.owner is not None and self.owner.is_cancelled:
            return PARENT_CANCELLED  # both have the same deadline, and it is the request's that counts
        return reason

    @property
    def is_cancelled(self) -> bool:
        """It was cancelled before it had an outcome; a deadline does not count."""
        return self.cancel_reason not in (None, DEADLINE_EXCEEDED)

    @property
    def is_settled(self) -> bool:
        """It is done, and nothing that its request may still have to say would change how."""
        return self.is_done and not self._must_ask_parent

    def cancel(self) -> None:
        """Cancel what runs for this call; from any thread. Once it is done a no-op."""
        if self.is_done:
            return
        if self.connection.is_on_loop:
            self.end(REQUESTED, origin())
            return
        # From here on it counts as cancelled, even if a reply arrives before the loop hears of it.
        self._is_cancel_requested = True
        self.post_cancel()

    def post_cancel(self) -> None:
        """Cancel a little later, on the loop; may be called from a finaliser."""
        try:
            self.connection.post(self.end, REQUESTED, origin())
        except SlipknotServeException:
            pass  # a closed connection has ended all its calls

    def value(self) -> Any:
        """The result of a settled unary call, or raise why there is none."""
        if self._is_cancel_requested or self._frame is None:
            raise self.error()
        if self._value is _NO_VALUE:
            self._value = read_reply(self._frame, "result", allow_pickle=self.connection.allows_pickle)
        return self._value

    def error(self) -> BaseException:
        """What to raise for a call that ended without a reply; made anew, or tracebacks would pile up."""
        reason = self.cancel_reason
        if reason == PARENT_CANCELLED:
            return asyncio.CancelledError(f"request {self.request_id} was cancelled")
        if reason not in (None, DEADLINE_EXCEEDED):
            return RequestCancelledError(f"Request {self.request_id} was cancelled.")
        error = self._early_error if self._exchange is None else self._exchange.error
        if error is None:
            return ProtocolError(f"request {self.request_id} to {self.deployment_id} ended without a reply")
        return renewed(error)

    # --- on the loop --------------------------------------------------------------------------------------

    def end(self, reason: CancelReason, origin: str) -> None:
        """End the call with a cancellation, whatever it does; once it is done a no-op."""
        if self._exchange is not None:
            self._exchange.cancel(reason, origin)
        elif not self.is_done:
            self._early_reason = reason
            self._finish()

    async def settle(self) -> None:
        """Wait for the outcome; raises nothing of the call's.

        Cancellation:
            Safe; the call goes on.
        """
        while not self.is_done:
            await self._progress()
        if self._must_ask_parent:
            await self._ask_parent()

    async def next_replies(self, limit: int = 1) -> list[replica_pb2.ReplyFrame]:
        """Wait for the next reply of a stream and take up to `limit` that are there; nothing at the end.

        Cancellation:
            Safe; the call goes on.
        """
        replies: list[replica_pb2.ReplyFrame] = []
        while not replies:
            exchange = self._exchange
            while (
                len(replies) < limit and exchange is not None and (reply := exchange.try_next()) is not None
            ):
                replies.append(reply)
                exchange.grant(reply.item.value.ByteSize())
            if not replies and self.is_done:
                await self.settle()
                return []
            if not replies:
                await self._progress()
        return replies

    # --- inside -------------------------------------------------------------------------------------------

    async def _progress(self) -> None:
        waiter: asyncio.Future[None] = self.connection.loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _set_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        encoding = "pickle" if self.connection.allows_pickle else "msgpack"
        of = f"the call of {self.deployment_id}"
        arguments = payloads.checked_size(
            payloads.encode_arguments(args, kwargs, encoding, of=of),
            self.connection.max_payload_bytes,
            f"the arguments of {of} are too large",
        )
        self._open.method.arguments.CopyFrom(arguments)

    def _send(self) -> None:
        if self._is_cancel_requested:
            self.end(REQUESTED, "")
        if self.is_done:
            return
        if self.connection.is_closed:
            self._fail(SlipknotServeException(CLOSED))
            return
        deadline = NEVER if self.owner is None else self.owner.deadline
        exchange = self.connection.dispatcher.open(
            self.deployment_id, self._first, deadline, context=self.owner
        )
        self._exchange = exchange
        exchange.on_ready = self._on_ready
        self._on_ready()

    def _on_ready(self) -> None:
        exchange = self._exchange
        if exchange is not None and exchange.closed and not self.is_done:
            if not self._open.method.stream:
                self._frame = exchange.try_next()
            self._finish()
        else:
            self._wake()

    def _fail(self, error: Exception, reason: CancelReason | None = None) -> None:
        """End a call that has not been sent."""
        if not self.is_done:
            self._early_error, self._early_reason = error, reason
            self._finish()

    def _finish(self) -> None:
        self.is_done = True
        if self._resolving is not None:
            self._resolving.cancel()
        if self._span is not None:
            self._end_span(self._span)
        self._wake()

    def _end_span(self, span: Span) -> None:
        frame = self._frame
        has_failed = (
            frame.HasField("failure") if frame is not None else (self._exchange or self).error is not None
        )
        span.end(
            "ERROR" if has_failed else "OK",
            is_error=has_failed,
            cancel_reason=reason_name(self.cancel_reason),
        )

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    # --- the parent's deadline ----------------------------------------------------------------------------

    @property
    def _has_timed_out(self) -> bool:
        if self._exchange is None:
            return self._early_reason == DEADLINE_EXCEEDED
        return isinstance(self._exchange.error, RequestTimeoutError)

    @property
    def _must_ask_parent(self) -> bool:
        return self.owner is not None and self._has_timed_out and not self._is_parent_asked

    async def _ask_parent(self) -> None:
        """The deadline is the request's own: leave it a moment to be cancelled, and to say so."""
        owner = self.owner
        assert owner is not None
        loop = self.connection.loop
        heard: asyncio.Future[None] = loop.create_future()

        def on_cancel(reason: CancelReason, origin: str) -> None:
            loop.call_soon_threadsafe(_resolve_future, heard)

        if owner.adopt(heard, on_cancel):
            try:
                async with asyncio.timeout(PARENT_FIRST_S):
                    await heard
            except TimeoutError:
                pass
            finally:
                owner.release(heard)
        self._is_parent_asked = True

    # --- responses among the arguments --------------------------------------------------------------------

    def _begin_resolving(
        self, args: list[Any], kwargs: dict[str, Any], upstream: "Mapping[int | str, Call]"
    ) -> None:
        if self.owner is not None and not self.owner.adopt(self, self.end):
            self.end(PARENT_CANCELLED, self.owner.cancel_origin)
            return
        self._resolving = self.connection.loop.create_task(
            self._resolve(args, kwargs, upstream), name=f"arguments of request {self.request_id}"
        )

    async def _resolve(
        self, args: list[Any], kwargs: dict[str, Any], upstream: "Mapping[int | str, Call]"
    ) -> None:
        """Wait for upstream results and pass them on by value; an upstream failure becomes this call's."""
        try:
            async with asyncio.timeout(self._patience_s()):
                for call in upstream.values():
                    await call.settle()
        except TimeoutError:
            self._fail(RequestTimeoutError(f"Request {self.request_id} timed out."), DEADLINE_EXCEEDED)
        finally:
            self._resolving = None
            if self.owner is not None:
                self.owner.release(self)
        if not self.is_done:
            self._fill_in(args, kwargs, upstream)
        self._send()

    def _fill_in(self, args: list[Any], kwargs: dict[str, Any], upstream: "Mapping[int | str, Call]") -> None:
        place: int | str
        try:
            for place, call in upstream.items():
                if call.is_cancelled:
                    raise RequestCancelledError(f"Request {call.request_id} was cancelled.")
                if isinstance(place, int):
                    args[place] = call.value()
                else:
                    kwargs[place] = call.value()
            self._set_arguments(args, kwargs)
        except (ReplicaUnavailableError, DeploymentUnavailableError) as error:
            text = f"argument {place!r} of the call of {self.deployment_id} is missing: {error}"
            self._fail(type(error)(text))
        except Exception as error:  # noqa: BLE001 - whatever the upstream call raised
            self._fail(error)

    def _patience_s(self) -> float | None:
        timeout_s = None if self.owner is None else self.owner.deadline.timeout_s()
        return None if timeout_s is None else timeout_s + PARENT_FIRST_S


def _resolve_future(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
