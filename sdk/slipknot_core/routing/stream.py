"""A stream to a replica: carries one exchange at a time, one after another. `CallStream` is one that is a
gRPC stream of its own; those of a session are in `session.py`.

A task of the stream's own reads it, for two reasons: cancelling a task that awaits a gRPC read leaks memory
in grpcio, and an idle stream must notice at once that its replica is gone. Writing is a task of its own for
the same reason, and it lives only while there is something to write.
"""

import asyncio
import enum
from collections.abc import Callable
from typing import Any, Protocol

import grpc.aio

from slipknot_proto.v1 import replica_pb2
from slipknot_proto.v1.payload_pb2 import CancelReason

from ..rpc.channel import is_loss
from ..tasks import TaskOwner
from .messages import CallFrame, Frame, call_message, is_open

CANCEL_GRACE_S = 1.0
"""How long a cancelled stream may take to deliver its Cancel frame before the RPC itself is cancelled."""

_CLOSING = frozenset({"refused", "ws_close", "ws_reject", "result", "end", "failure", "cancelled"})


class Listener(Protocol):
    """Whoever uses the stream now."""

    def on_frame(self, frame: replica_pb2.ReplyFrame) -> None:
        """A reply came."""

    def on_end(self, error: grpc.aio.AioRpcError | None) -> None:
        """The stream is over. None: the replica ended it in order, so an unanswered Open was certainly not
        run.
        """


class Lane(enum.Enum):
    """What an exchange travels on."""

    ALONE = "alone"
    """A gRPC stream of its own."""
    SHORT = "short"
    """The session of exchanges that are soon over."""
    LONG = "long"
    """The session of WebSockets: thousands that send at once do not hold up a short request."""


class Stream(Protocol):
    """The calling end of a stream. `listener` is None while it is idle in its pool."""

    listener: Listener | None
    has_ended: bool
    has_unsent_open: bool
    """It ended before the last Open was written: nobody has seen that."""
    was_lost: bool
    """It ended because the replica, or the way to it, is gone."""

    lane: Lane

    def post(self, frame: CallFrame) -> None:
        """Write `frame` soon, after those posted before. A broken stream is reported to the listener."""

    async def send(self, frame: CallFrame) -> None:
        """Write `frame` and wait until gRPC has taken it.

        Cancellation:
            Safe: the frame is written nevertheless.
        """

    def abandon(self, reason: CancelReason, origin: str) -> None:
        """Cancel the exchange that runs on this stream and throw the stream away."""

    def discard(self) -> None:
        """Throw an idle stream away."""


class CallStream:
    """The calling end of one `ReplicaService.Call`. Must be made and used on the loop of its channel."""

    def __init__(
        self,
        call: Any,
        tasks: TaskOwner,
        on_ended: Callable[["CallStream"], None],
        on_message: Callable[[], None] = lambda: None,
    ) -> None:
        self.lane = Lane.ALONE
        self._call = call
        self._tasks = tasks
        self._on_ended = on_ended
        self._pending: list[Frame] = []
        self._writer: asyncio.Task[None] | None = None
        self._was_cancelled = False
        self._closing_seen = asyncio.Event()
        self._on_message = on_message
        self.listener: Listener | None = None
        self.has_ended = False
        self.has_unsent_open = False
        self.was_lost = False
        tasks.spawn(self._read(), "read")

    def post(self, frame: CallFrame) -> None:
        """As `Stream.post`."""
        if self.has_ended:
            return
        self._pending.append(frame)
        if self._writer is None:
            self._writer = self._tasks.spawn(self._write(), "write")

    async def send(self, frame: CallFrame) -> None:
        """As `Stream.send`."""
        self.post(frame)
        if self._writer is not None:
            await asyncio.shield(self._writer)

    def abandon(self, reason: CancelReason, origin: str) -> None:
        """As `Stream.abandon`."""
        self.listener = None
        if not self.has_ended and not self._was_cancelled:
            self._tasks.spawn(self._cancel(reason, origin), "cancel")

    def discard(self) -> None:
        """As `Stream.discard`."""
        self.listener = None
        self._was_cancelled = True
        self._call.cancel()

    async def _cancel(self, reason: CancelReason, origin: str) -> None:
        """Deliver the reason, then cancel the RPC. The reason is best effort, the cancellation is not."""
        frame = replica_pb2.CallFrame(cancel=replica_pb2.Cancel(reason=reason, origin=origin))
        try:
            async with asyncio.timeout(CANCEL_GRACE_S):
                await self.send(frame)
                await self._closing_seen.wait()
        except TimeoutError:
            pass
        finally:
            self.discard()

    async def _write(self) -> None:
        try:
            while self._pending and not self.has_ended:
                if self._call.done():
                    return  # what is pending was never written
                batch, self._pending = self._pending, []
                await self._call.write(call_message(batch))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the reader learns of it too, with the status
        except asyncio.CancelledError:
            if not self._was_cancelled:
                raise
        finally:
            self._writer = None

    async def _read(self) -> None:
        error: grpc.aio.AioRpcError | None = None
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                self._on_message()
                for frame in message.frames:
                    self._deliver(frame)
        except grpc.aio.AioRpcError as caught:
            error = caught
            self.was_lost = is_loss(caught)
        except asyncio.CancelledError:
            if not self._was_cancelled:
                self._call.cancel()
                raise
        finally:
            self.has_ended = True
            self._closing_seen.set()
            self.has_unsent_open = any(map(is_open, self._pending))
            self._pending.clear()
            listener, self.listener = self.listener, None
            self._on_ended(self)
            if listener is not None:
                listener.on_end(error)

    def _deliver(self, frame: replica_pb2.ReplyFrame) -> None:
        if self.listener is not None:
            self.listener.on_frame(frame)
        elif is_closing(frame):
            self._closing_seen.set()


def is_closing(frame: replica_pb2.ReplyFrame, kind: str | None = None) -> bool:
    """This reply, of a kind if that is known already, ends its exchange."""
    kind = kind or frame.WhichOneof("frame")
    if kind == "response_start":
        return frame.response_start.end_of_body
    if kind == "body":
        return frame.body.end_of_body
    if kind == "refused":
        return not frame.refused.waiting
    return kind in _CLOSING
