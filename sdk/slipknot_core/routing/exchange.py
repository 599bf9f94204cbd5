"""The calling side of one exchange, from the queue to its closing reply.

States: QUEUED (no replica yet) -> SENT (Open written) -> ADMITTED (a reply came) -> CLOSED. A refused
exchange goes back from SENT to QUEUED. `cancel` works in every state and ends the exchange for the caller at
once.
"""

import asyncio
import enum
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import grpc.aio
from mypy_extensions import mypyc_attr

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
from ..rpc.channel import never_connected
from .credit import REPLY_CREDIT_BYTES, SpareCredit, Window
from .messages import BodyFrame, Buffer
from .stream import Lane, Stream, is_closing

CHUNK_COST_BYTES = 64
"""What a chunk costs of the credit besides its data, so that empty and tiny ones are bounded too."""

MESSAGE_COST_BYTES = 512
"""The same for a WebSocket message, which is kept as an object of its own."""

SMALL_MESSAGE_BYTES = 4 * 1024
"""WebSocket messages up to this size are not waited for, one by one, to be on their way."""

MAX_SHARED_FRAMES = 32
"""Replies beyond it that wait for a slow reader are kept as bytes: as objects they would keep the whole
messages that they came in, with what others have long read; and many small objects are large."""

LARGE_BYTES = 64 * 1024
"""Arguments and bodies above it travel alone."""

PARENT_FIRST_S = 0.05
"""A call inherits its parent's deadline; its own timer goes off this much later, so that the parent is
cancelled first
and the handler sees CancelledError rather than a timeout of the child."""


@mypyc_attr(native_class=False)
class _Packed(bytes):
    """A serialised reply."""

    __slots__ = ()


class State(enum.Enum):
    """Where an exchange stands."""

    QUEUED = "queued"
    SENT = "sent"
    ADMITTED = "admitted"
    CLOSED = "closed"


class Seat(Protocol):
    """A place at a replica that a sent exchange takes."""

    @property
    def replica_id(self) -> str:
        """Whose place it is."""

    def free(self, stream: Stream | None) -> None:
        """The place is free again; `stream` can carry the next exchange, or None."""


class Owner(Protocol):
    """Who finds a replica for an exchange: the router."""

    def on_refused(self, exchange: "Exchange", seat: Seat, refused: replica_pb2.Refused) -> None:
        """The replica did not admit the exchange, which is QUEUED again; stream and seat are still taken."""

    def on_lost(self, exchange: "Exchange", seat: Seat, *, is_certain: bool) -> bool:
        """The replica is gone before it said anything about the exchange, which is QUEUED again, its seat
        free.

        Args:
            exchange: The one that was sent.
            seat: Where to.
            is_certain: User code certainly did not start; else it may have.

        Returns:
            False if it must not be sent elsewhere; it then fails.
        """

    def on_closed(self, exchange: "Exchange") -> None:
        """The exchange is over."""


class Exchange:
    """One request of this process to one replica. Belongs to the loop it was made on.

    Args:
        first: Carries the Open. Whoever makes one inside the other saves a copy.
        deadline: When to give up.
        owner: Finds a replica.
        context: The request that this exchange belongs to.
        spare: For readers that are fast.
        repeatable: It may be sent elsewhere even if it may have begun.
    """

    def __init__(
        self,
        first: replica_pb2.CallFrame,
        deadline: Deadline,
        owner: Owner,
        context: RequestContext | None = None,
        *,
        spare: SpareCredit,
        repeatable: bool = False,
    ) -> None:
        self._first = first
        self.open = first.open
        self.repeatable = repeatable
        self.attempts = 0
        """How often it was sent."""
        self.deadline = deadline
        self.state = State.QUEUED
        self.closed = False
        self.replica_id = ""
        self.queue_ms = 0.0
        self.cancel_reason: CancelReason | None = None
        self.on_ready: Callable[[], None] | None = None
        """Called whenever `try_next` has a reply or `error` is set; for callers that do not wait in `next`.
        """
        self._context = context
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self.arrived_s = time.monotonic()
        self._stream: Stream | None = None
        self._seat: Seat | None = None
        self._frames: deque[replica_pb2.ReplyFrame | bytes] = deque()  # bytes: a chunk, not the last
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        request = self.open.WhichOneof("request")
        self._body_is_sent = request != "http" or self.open.http.end_of_body
        self.lane = self._lane(request)
        """What it should travel on."""
        self._send_credit = 0
        self._credit_waiter: asyncio.Future[None] | None = None
        self._spare = spare
        self._window: Window | None = None  # until something is granted: most replies are one
        self._timer = self._arm()

    def __repr__(self) -> str:
        return f"<Exchange {self.open.request_id}: {self.state.value}, {len(self._frames)} replies unread>"

    # --- for the router -----------------------------------------------------------------------------

    def start(self, stream: Stream, seat: Seat) -> None:
        """Send Open on an idle stream (or one that holds a reserved slot)."""
        self.state = State.SENT
        self.attempts += 1
        self.queue_ms = (time.monotonic() - self.arrived_s) * 1e3
        self.replica_id = seat.replica_id
        self._stream, self._seat = stream, seat
        self.open.deadline_budget_us = self.deadline.budget_us()
        self.open.reply_credit_bytes = REPLY_CREDIT_BYTES
        stream.listener = self
        stream.post(self._first)

    def take_stream(self) -> Stream | None:
        """Give the stream of a refused exchange to the router."""
        stream, self._stream = self._stream, None
        self._seat = None
        return stream

    def fail(self, error: Exception) -> None:
        """End a queued exchange with `error`."""
        if not self.closed:
            self._fail(error)

    # --- for the caller -----------------------------------------------------------------------------

    async def next(self) -> replica_pb2.ReplyFrame:
        """Wait for the next reply.

        Raises:
            ReplicaUnavailableError: The replica was lost.
            RequestCancelledError, RequestTimeoutError: The exchange was ended from this side.

        Cancellation:
            Safe, nothing is lost; the exchange goes on until `cancel`.
        """
        if not self._frames:
            await self.wait()
        return _as_frame(self._frames.popleft())

    async def wait(self) -> None:
        """Wait until there is a reply; raises as `next`.

        Cancellation:
            Safe, as `next`.
        """
        while not self._frames:
            if self._error is not None:
                raise self._error
            if self.closed:
                raise ProtocolError("read past the closing reply of an exchange")
            self._waiter = self._loop.create_future()
            await self._waiter

    @property
    def is_ready(self) -> bool:
        """There is a reply, or `error`."""
        return bool(self._frames) or self._error is not None

    @property
    def error(self) -> Exception | None:
        """What ended the exchange, if it was not a closing reply."""
        return self._error

    def try_next(self) -> replica_pb2.ReplyFrame | None:
        """The next reply if it is there already."""
        return _as_frame(self._frames.popleft()) if self._frames else None

    def take_body(self, limit: int) -> tuple[list[bytes], replica_pb2.ReplyFrame | None]:
        """The chunks of a response that are there, until they have `limit` bytes.

        Returns:
            Them, and the reply behind them if it is there: the last chunk, or what comes in its place.
        """
        chunks: list[bytes] = []
        frames, size = self._frames, 0
        while frames and size < limit:
            frame = frames.popleft()
            if type(frame) is not bytes:
                return chunks, _as_frame(frame)
            chunks.append(frame)
            size += len(frame)
        return chunks, None

    async def send_body(self, chunks: list[Buffer], end_of_body: bool) -> None:
        """Send more of the request body, at least one chunk; waits for the replica's credit."""
        cost = sum(map(len, chunks)) + len(chunks) * CHUNK_COST_BYTES
        while self._send_credit <= 0 and not self.closed:
            self._credit_waiter = self._loop.create_future()
            await self._credit_waiter
        if self.closed or self._stream is None:
            return
        self._send_credit -= cost
        self._body_is_sent = end_of_body
        await self._stream.send(BodyFrame(is_reply=False, chunks=chunks, end_of_body=end_of_body))

    async def send_ws(self, message: replica_pb2.WebSocketMessage) -> None:
        """Send a message of the WebSocket client, or a piece of one; waits for the replica's credit."""
        size = len(message.text) + len(message.binary)
        while self._send_credit <= 0 and not self.closed:
            self._credit_waiter = self._loop.create_future()
            await self._credit_waiter
        if self.closed or self._stream is None:
            return
        self._send_credit -= size + MESSAGE_COST_BYTES
        frame = replica_pb2.CallFrame(ws_message=message)
        if size <= SMALL_MESSAGE_BYTES:
            self._stream.post(frame)  # waiting for gRPC costs more than what the credit lets pile up
        else:
            await self._stream.send(frame)

    async def send_ws_close(self, code: int, reason: str) -> None:
        """Tell the handler that the WebSocket client has closed."""
        if not self.closed and self._stream is not None:
            close = replica_pb2.WebSocketClose(code=code, reason=reason)
            await self._stream.send(replica_pb2.CallFrame(ws_close=close))

    def grant(self, byte_count: int, chunk_count: int = 1, cost_bytes: int = CHUNK_COST_BYTES) -> None:
        """Let the replica send `byte_count` more bytes; call it once the reader has taken these chunks."""
        if not self.closed and self._stream is not None:
            now_s = time.monotonic()
            self._window = self._window or Window(self._spare, now_s)
            granted = self._window.take(byte_count + chunk_count * cost_bytes, now_s)
            if granted:
                self._stream.post(replica_pb2.CallFrame(credit=replica_pb2.Credit(byte_count=granted)))

    def cancel(self, reason: CancelReason, origin: str) -> None:
        """End the exchange for the caller at once and cancel what runs for it. Idempotent; after the closing
        reply a no-op.
        """
        if self.closed:
            return
        self.cancel_reason = reason
        self._frames.clear()
        self._fail(_cancellation_error(reason, self.open.request_id), origin=origin)

    def cancel_with_parent(self, origin: str) -> None:
        """End an exchange whose request was cancelled before it could begin."""
        self.cancel(CancelReason.CANCEL_REASON_PARENT_CANCELLED, origin)

    # --- what the stream reports --------------------------------------------------------------------

    def on_frame(self, frame: replica_pb2.ReplyFrame) -> None:
        """Take one reply (called by the stream)."""
        kind = frame.WhichOneof("frame")
        if kind == "refused" and self._seat is not None:
            self.state = State.QUEUED
            self._owner.on_refused(self, self._seat, frame.refused)
            return
        self.state = State.ADMITTED
        if kind == "accepted":
            return
        if kind == "credit":
            self._send_credit += frame.credit.byte_count
            _wake(self._credit_waiter)
            return
        if kind == "cancelled":
            self.cancel_reason = frame.cancelled.reason
            self._error = _cancellation_error(frame.cancelled.reason, self.open.request_id)
            self._frames.clear()
            self._close(reusable=False)
            return
        if kind == "body":
            body = frame.body
            if not body.end_of_body:
                self._frames.append(body.data)
                self._frames.extend(body.more)
                self._ready()
                return
            if body.more:
                self._frames += (body.data, *body.more)
                frame = replica_pb2.ReplyFrame(body={"end_of_body": True})
        if len(self._frames) >= MAX_SHARED_FRAMES:
            self._frames.append(_Packed(frame.SerializeToString()))
        else:
            self._frames.append(frame)
        if is_closing(frame, kind):
            self._close(reusable=self._body_is_sent)
        else:
            self._ready()

    def on_end(self, error: grpc.aio.AioRpcError | None) -> None:
        """The stream broke, or the replica ended it in order (called by the stream)."""
        if self.closed:
            return
        stream, self._stream = self._stream, None
        if self.state is State.SENT and stream is not None and self._seat is not None:
            seat, self._seat = self._seat, None
            self.state = State.QUEUED
            seat.free(None)
            is_certain = error is None or never_connected(error) or stream.has_unsent_open
            if self._owner.on_lost(self, seat, is_certain=is_certain):
                return
        details = "" if error is None else f": {error.details()}"
        self._fail(
            ReplicaUnavailableError(
                f"replica {self.replica_id} was lost while it ran request {self.open.request_id}{details}"
            )
        )

    # --- inside -------------------------------------------------------------------------------------

    def _lane(self, request: str | None) -> Lane:
        match request:
            case "http":
                is_small = self._body_is_sent and len(self.open.http.body) <= LARGE_BYTES
                return Lane.SHORT if is_small else Lane.ALONE
            case "method":
                return Lane.SHORT if self.open.method.ByteSize() <= LARGE_BYTES else Lane.ALONE
            case _:
                return Lane.LONG

    def _fail(self, error: Exception, origin: str = "") -> None:
        self._error = error
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.abandon(self.cancel_reason or CancelReason.CANCEL_REASON_REQUESTED, origin)
        self._close(reusable=False)

    def _close(self, *, reusable: bool) -> None:
        self.state, self.closed = State.CLOSED, True
        if self._timer is not None:
            self._timer.cancel()
        if self._window is not None:
            self._window.close()
        if self._context is not None:
            self._context.release(self)
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.listener = None
            if not reusable:
                stream.discard()
        _wake(self._credit_waiter)
        self._owner.on_closed(self)
        seat, self._seat = self._seat, None
        if seat is not None:
            seat.free(stream if reusable else None)
        self._ready()

    def _ready(self) -> None:
        _wake(self._waiter)
        if self.on_ready is not None:
            self.on_ready()

    def _arm(self) -> asyncio.TimerHandle | None:
        if self.deadline.is_never:
            return None
        slack_s = (
            PARENT_FIRST_S if self._context is not None and self._context.deadline == self.deadline else 0
        )
        return self._loop.call_later(self.deadline.remaining_s() + slack_s, self._expire)

    def _expire(self) -> None:
        self.cancel(CancelReason.CANCEL_REASON_DEADLINE_EXCEEDED, "caller deadline")


def _cancellation_error(reason: CancelReason, request_id: str) -> Exception:
    if reason == CancelReason.CANCEL_REASON_DEADLINE_EXCEEDED:
        return RequestTimeoutError(f"Request {request_id} timed out.")
    return RequestCancelledError(f"Request {request_id} was cancelled.")


def _as_frame(reply: replica_pb2.ReplyFrame | bytes) -> replica_pb2.ReplyFrame:
    if isinstance(reply, _Packed):
        return replica_pb2.ReplyFrame.FromString(reply)
    if isinstance(reply, bytes):
        return replica_pb2.ReplyFrame(body=replica_pb2.BodyChunk(data=reply))
    return reply


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
