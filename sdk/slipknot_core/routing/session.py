"""Many streams to one replica on one gRPC stream: what is ready together travels together.

A gRPC message costs far more than what is in it, so small exchanges that share their messages are cheap. Each
stream of a session keeps its own order, its own credit and its own end, so that nobody holds a neighbour up:
the session is read all the time, and what a slow reader has not taken waits in its own exchange.

A cancellation is a Cancel frame here, in order behind what was sent before, and it ends its stream at both
ends. It is as certain as the session: when that breaks, the replica cancels all that ran on it.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from slipknot_proto.v1 import replica_pb2
from slipknot_proto.v1.payload_pb2 import CancelReason

from ..rpc.channel import is_loss
from ..tasks import TaskOwner
from .messages import CallFrame, Frame, is_open, session_message
from .stream import CANCEL_GRACE_S, Lane, Listener

MAX_STREAMS = 16_384
"""Of one session; what comes on top gets a gRPC stream of its own."""

FEW_FRAMES = 8
"""A message with fewer waits one step of the loop for what the loop has read meanwhile: a message costs as
much as the frames of many small exchanges.
"""


def may_gain_company(stream_count: int, frame_count: int) -> bool:
    """A session with so many streams should wait a step before it writes a message of so many frames."""
    return stream_count > 1 and frame_count < FEW_FRAMES


class Session:
    """The calling end of one `ReplicaService.Session`. Must be made and used on the loop of its channel.

    `repr` tells how many streams there are. `on_ended(is_unknown)` is called once when the RPC is over;
    `is_unknown`: this replica does not know sessions.
    """

    def __init__(
        self,
        call: Any,
        tasks: TaskOwner,
        lane: Lane,
        on_ended: Callable[[bool], None],
        on_message: Callable[[], None] = lambda: None,
    ) -> None:
        self._call = call
        self._tasks = tasks
        self.lane = lane
        self._on_ended = on_ended
        self._on_message = on_message
        self._streams: dict[int, SessionStream] = {}
        self._last_id = 0
        self._pending: list[tuple[int, Frame]] = []
        self._writer: asyncio.Task[None] | None = None
        self._has_begun = False
        self._was_closed = False
        self.has_ended = False
        tasks.spawn(self._read(), "read session")

    def __repr__(self) -> str:
        return f"<Session: {len(self._streams)} streams>"

    @property
    def is_full(self) -> bool:
        """It takes no more streams."""
        return len(self._streams) >= MAX_STREAMS

    def new_stream(self, on_ended: Callable[["SessionStream"], None]) -> "SessionStream":
        """Begin a stream; `on_ended` is called when the session ends from the other side."""
        self._last_id += 1
        stream = self._streams[self._last_id] = SessionStream(self, self._last_id, on_ended)
        return stream

    async def close(self) -> None:
        """Let what was posted out, within bounds, and cancel the RPC and with it all that runs on it."""
        self._was_closed = True
        try:
            async with asyncio.timeout(CANCEL_GRACE_S):
                await self.written()
        except TimeoutError:
            pass
        finally:
            self._call.cancel()

    # --- for streams --------------------------------------------------------------------------------

    def post(self, stream_id: int, frame: CallFrame) -> None:
        """Write a frame of a stream soon."""
        if self.has_ended:
            return
        self._pending.append((stream_id, frame))
        self._wake_writer()

    async def written(self) -> None:
        """Wait until gRPC has taken all that was posted so far."""
        if self._writer is not None:
            await asyncio.shield(self._writer)

    def end_stream(self, stream_id: int, reason: CancelReason, origin: str) -> None:
        """Cancel what runs on a stream, and forget it."""
        if self._streams.pop(stream_id, None) is not None:
            cancel = replica_pb2.Cancel(reason=reason, origin=origin)
            self.post(stream_id, replica_pb2.CallFrame(cancel=cancel))

    # --- inside -------------------------------------------------------------------------------------

    def _wake_writer(self) -> None:
        # What is written while the other end refuses the RPC would hide its status.
        if self._has_begun and self._pending and self._writer is None:
            self._writer = self._tasks.spawn(self._write(), "write session")

    async def _write(self) -> None:
        try:
            while self._pending and not self.has_ended:
                if self._call.done():
                    return  # what is pending was never written
                if may_gain_company(len(self._streams), len(self._pending)):
                    await asyncio.sleep(0)
                    if not self._pending or self._call.done():
                        return
                await self._call.write(session_message(self._pending))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the reader learns of it too, with the status
        except asyncio.CancelledError:
            if not self._was_closed:
                raise
        finally:
            self._writer = None

    async def _read(self) -> None:
        error: grpc.aio.AioRpcError | None = None
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                if not self._has_begun:
                    self._has_begun = True
                    self._wake_writer()
                    continue
                self._on_message()
                for stream_id, frame in zip(message.stream_ids, message.frames, strict=True):
                    stream = self._streams.get(stream_id)
                    if stream is not None and stream.listener is not None:
                        stream.listener.on_frame(frame)
        except grpc.aio.AioRpcError as caught:
            error = caught
        except asyncio.CancelledError:
            if not self._was_closed:
                self._call.cancel()
                raise
        finally:
            self._over(error)

    def _over(self, error: grpc.aio.AioRpcError | None) -> None:
        self.has_ended = True
        code = None if error is None else error.code()
        is_unknown = code is grpc.StatusCode.UNIMPLEMENTED
        unsent = {stream_id for stream_id, frame in self._pending if is_open(frame)}
        self._pending.clear()
        self._on_ended(is_unknown)
        streams, self._streams = self._streams, {}
        for stream_id, stream in streams.items():
            stream.has_unsent_open = stream_id in unsent
            stream.was_lost = error is not None and is_loss(error)
            stream.on_ended(None if is_unknown else error)


class SessionStream:
    """A `Stream` of a session."""

    def __init__(self, session: Session, stream_id: int, on_ended: Callable[["SessionStream"], None]) -> None:
        self.lane = session.lane
        self._session = session
        self._id = stream_id
        self._on_ended = on_ended
        self.listener: Listener | None = None
        self.has_ended = False
        self.has_unsent_open = False
        self.was_lost = False

    def __repr__(self) -> str:
        return f"<SessionStream {self._id} {'ended' if self.has_ended else 'open'}>"

    def post(self, frame: CallFrame) -> None:
        """As `Stream.post`."""
        if not self.has_ended:
            self._session.post(self._id, frame)

    async def send(self, frame: CallFrame) -> None:
        """As `Stream.send`."""
        self.post(frame)
        await self._session.written()

    def abandon(self, reason: CancelReason, origin: str) -> None:
        """As `Stream.abandon`."""
        self.listener = None
        self.has_ended = True
        self._session.end_stream(self._id, reason, origin)

    def discard(self) -> None:
        """As `Stream.discard`."""
        self.abandon(CancelReason.CANCEL_REASON_UNSPECIFIED, "")

    def on_ended(self, error: grpc.aio.AioRpcError | None) -> None:
        """The session has ended; None: what was sent was not taken (called by the session)."""
        self.has_ended = True
        listener, self.listener = self.listener, None
        self._on_ended(self)
        if listener is not None:
            listener.on_end(error)
