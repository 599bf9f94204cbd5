"""The calling side of one exchange, from the queue to its closing reply.

States: QUEUED (no replica yet) -> SENT (Open written) -> ADMITTED (a reply came) -> CLOSED. A refused exchange goes back
from SENT to QUEUED. `cancel` works in every state and ends the exchange for the caller at once.
"""

import asyncio
import enum
import time
from collections import deque
from collections.abc import Callable

import grpc.aio

from slipknot_proto.v1 import replica_pb2
from slipknot_proto.v1.payload_pb2 import CancelReason

from ..deadline import Deadline
from ..errors import (
    ProtocolError,
    ReplicaUnavailableError,
    RequestCancelledError,
    RequestTimeoutError,
)
from ..request_context import RequestContext
from .stream import CallStream, is_closing

CHUNK_COST_BYTES = 64
"""What a chunk costs of the credit besides its data, so that empty and tiny ones are bounded too."""

REPLY_CREDIT_BYTES = 256 * 1024
"""How much a replica may send ahead of the reader."""

PARENT_FIRST_S = 0.05
"""A call inherits its parent's deadline; its own timer goes off this much later, so that the parent is cancelled first
and the handler sees CancelledError rather than a timeout of the child."""


class State(enum.Enum):
    """Where an exchange stands."""

    QUEUED = "queued"
    SENT = "sent"
    ADMITTED = "admitted"
    CLOSED = "closed"


class Exchange:
    """One request of this process to one replica. Belongs to the loop it was made on."""

    def __init__(
        self,
        open_: replica_pb2.Open,
        deadline: Deadline,
        *,
        context: RequestContext | None = None,
        on_closed: Callable[["Exchange"], None] | None = None,
    ) -> None:
        self.open = open_
        self.deadline = deadline
        self.state = State.QUEUED
        self.closed = False
        self.replica_id = ""
        self.queue_ms = 0.0
        self.cancel_reason: CancelReason | None = None
        self._context = context
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._started_s = time.monotonic()
        self._stream: CallStream | None = None
        self._release: Callable[[CallStream | None], None] | None = None
        self._verdict: asyncio.Future[replica_pb2.Refused | None] | None = None
        self._frames: deque[replica_pb2.ReplyFrame] = deque()
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._body_is_sent = not open_.HasField("http") or open_.http.end_of_body
        self._send_credit = 0
        self._credit_waiter: asyncio.Future[None] | None = None
        self._ungranted = 0
        self._ended_in_order = False
        self._timer = self._arm()

    def __repr__(self) -> str:
        return f"<Exchange {self.open.request_id}: {self.state.value}, {len(self._frames)} replies unread>"

    # --- for the router -------------------------------------------------------------------------------------------

    async def begin(
        self, stream: CallStream, replica_id: str, release: Callable[[CallStream | None], None]
    ) -> replica_pb2.Refused | None:
        """Send Open and wait for the first reply.

        Args:
            stream: Idle, or holding a reserved slot.
            replica_id: For logs and errors.
            release: Called exactly once when the replica's slot is free again, with the stream if it can be reused.

        Returns:
            None if the replica admitted the request, else its refusal (the exchange is QUEUED again).

        Raises:
            NotStartedError: The stream broke, and it is certain that user code did not start.
            ReplicaUnavailableError: The stream broke, and user code may have started.
            RequestCancelledError, RequestTimeoutError: The exchange was ended meanwhile.
        """
        if self.closed:
            release(stream)
            raise self._error or RequestCancelledError(f"Request {self.open.request_id} was cancelled.")
        self.state = State.SENT
        self.queue_ms = (time.monotonic() - self._started_s) * 1e3
        self.replica_id = replica_id
        self._stream, self._release = stream, release
        self._verdict = self._loop.create_future()
        stream.listener = self
        self.open.deadline_budget_us = self.deadline.budget_us()
        await stream.send(replica_pb2.CallFrame(open=self.open))
        if stream.has_ended and not self._verdict.done():
            self.on_end(None)
        refused = await self._verdict
        if refused is not None:
            self.state = State.QUEUED
        return refused

    def take_ticket(self) -> CallStream | None:
        """Give the stream that waits for a slot to the router (after a refusal with waiting=True)."""
        stream, self._stream, self._release = self._stream, None, None
        return stream

    # --- for the caller -------------------------------------------------------------------------------------------

    async def next(self) -> replica_pb2.ReplyFrame:
        """Wait for the next reply.

        Raises:
            ReplicaUnavailableError: The replica was lost.
            RequestCancelledError, RequestTimeoutError: The exchange was ended from this side.

        Cancellation:
            Safe, nothing is lost; the exchange goes on until `cancel`.
        """
        while not self._frames:
            if self._error is not None:
                raise self._error
            if self.closed:
                raise ProtocolError("read past the closing reply of an exchange")
            self._waiter = self._loop.create_future()
            await self._waiter
        return self._frames.popleft()

    def try_next(self) -> replica_pb2.ReplyFrame | None:
        """The next reply if it is there already."""
        return self._frames.popleft() if self._frames else None

    async def send_body(self, data: bytes, end_of_body: bool) -> None:
        """Send more of the request body; waits for the replica's credit."""
        cost = len(data) + CHUNK_COST_BYTES
        while self._send_credit <= 0 and not self.closed:
            self._credit_waiter = self._loop.create_future()
            await self._credit_waiter
        if self.closed or self._stream is None:
            return
        self._send_credit -= cost
        self._body_is_sent = end_of_body
        chunk = replica_pb2.BodyChunk(data=data, end_of_body=end_of_body)
        await self._stream.send(replica_pb2.CallFrame(body=chunk))

    async def send_ws(self, message: replica_pb2.WebSocketMessage) -> None:
        """Send a message of the WebSocket client; waits for the replica's credit."""
        size = len(message.text) + len(message.binary)
        while self._send_credit <= 0 and not self.closed:
            self._credit_waiter = self._loop.create_future()
            await self._credit_waiter
        if not self.closed and self._stream is not None:
            self._send_credit -= size + CHUNK_COST_BYTES
            await self._stream.send(replica_pb2.CallFrame(ws_message=message))

    async def send_ws_close(self, code: int, reason: str) -> None:
        """Tell the handler that the WebSocket client has closed."""
        if not self.closed and self._stream is not None:
            close = replica_pb2.WebSocketClose(code=code, reason=reason)
            await self._stream.send(replica_pb2.CallFrame(ws_close=close))

    def grant(self, byte_count: int) -> None:
        """Let the replica send `byte_count` more bytes; call it for each chunk once the reader has taken it."""
        self._ungranted += byte_count + CHUNK_COST_BYTES
        if self._ungranted * 2 >= REPLY_CREDIT_BYTES and not self.closed and self._stream is not None:
            credit = replica_pb2.Credit(byte_count=self._ungranted)
            self._ungranted = 0
            self._stream.post(replica_pb2.CallFrame(credit=credit))

    def cancel(self, reason: CancelReason, origin: str) -> None:
        """End the exchange for the caller at once and cancel what runs for it. Idempotent; after the closing reply a no-op."""
        if self.closed:
            return
        self.cancel_reason = reason
        self._frames.clear()
        self._fail(_cancellation_error(reason, self.open.request_id), origin=origin)

    # --- what the stream reports ------------------------------------------------------------------------------------

    def on_frame(self, frame: replica_pb2.ReplyFrame) -> None:
        """Take one reply (called by the stream)."""
        kind = frame.WhichOneof("frame")
        if kind == "credit":
            self._send_credit += frame.credit.byte_count
            _wake(self._credit_waiter)
            kind = "accepted"
        if kind == "refused":
            self._on_refused(frame.refused)
            return
        if self.state is State.SENT:
            self.state = State.ADMITTED
            if self._verdict is not None and not self._verdict.done():
                self._verdict.set_result(None)
        if kind == "accepted":
            return
        if kind == "cancelled":
            self.cancel_reason = frame.cancelled.reason
            self._error = _cancellation_error(frame.cancelled.reason, self.open.request_id)
            self._frames.clear()
            self._close(reusable=False)
            return
        self._frames.append(frame)
        if is_closing(frame):
            self._close(reusable=self._body_is_sent)
        _wake(self._waiter)

    def on_end(self, error: grpc.aio.AioRpcError | None) -> None:
        """The stream broke or was ended by the replica (called by the stream)."""
        from ..rpc.channel import never_connected

        if self.closed:
            return
        details = "" if error is None else f": {error.details()}"
        self._stream = None
        if self.state is State.SENT and (error is None or never_connected(error)):
            # Not closed: the router sends the same request to another replica.
            self.state = State.QUEUED
            self._free_slot(None)
            if self._verdict is not None and not self._verdict.done():
                self._verdict.set_exception(NotStartedError(f"replica {self.replica_id} is gone{details}"))
            return
        message = f"replica {self.replica_id} was lost while it ran request {self.open.request_id}{details}"
        self._fail(ReplicaUnavailableError(message))

    # --- inside -----------------------------------------------------------------------------------------------------

    def fail(self, error: Exception) -> None:
        """End a queued exchange with `error` (for the router)."""
        if not self.closed:
            self._fail(error)

    def _on_refused(self, refused: replica_pb2.Refused) -> None:
        if self._verdict is not None and not self._verdict.done():
            self._verdict.set_result(refused)

    def _fail(self, error: Exception, origin: str = "") -> None:
        self._error = error
        if self._stream is not None and self.state in (State.SENT, State.ADMITTED):
            stream, self._stream = self._stream, None
            stream.abandon(self.cancel_reason or CancelReason.CANCEL_REASON_REQUESTED, origin)
        if self._verdict is not None and not self._verdict.done():
            self._verdict.set_exception(error)
        self._close(reusable=False)

    def _close(self, *, reusable: bool) -> None:
        self.state, self.closed = State.CLOSED, True
        if self._timer is not None:
            self._timer.cancel()
        if self._context is not None:
            self._context.release(self)
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.listener = None
            if not reusable:
                stream.discard()
        self._free_slot(stream if reusable else None)
        _wake(self._waiter)
        _wake(self._credit_waiter)
        if self._on_closed is not None:
            self._on_closed(self)

    def _free_slot(self, stream: CallStream | None) -> None:
        release, self._release = self._release, None
        if release is not None:
            release(stream)

    def _arm(self) -> asyncio.TimerHandle | None:
        if self.deadline.is_never:
            return None
        slack_s = PARENT_FIRST_S if self._context is not None and self._context.deadline == self.deadline else 0
        return self._loop.call_later(self.deadline.remaining_s() + slack_s, self._expire)

    def _expire(self) -> None:
        self.cancel(CancelReason.CANCEL_REASON_DEADLINE_EXCEEDED, "caller deadline")


class NotStartedError(Exception):
    """The replica is gone, and user code certainly did not start: the request may be sent elsewhere."""


def _cancellation_error(reason: CancelReason, request_id: str) -> Exception:
    if reason == CancelReason.CANCEL_REASON_DEADLINE_EXCEEDED:
        return RequestTimeoutError(f"Request {request_id} timed out.")
    return RequestCancelledError(f"Request {request_id} was cancelled.")


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
