"""What carries streams on the serving end: an RPC of its own for each (`Call`), or one RPC for many
(`Session`).

An RPC is read by a task and written by another one that lives only while there is something to write: what
was posted in one step of the loop, or while gRPC took the last message, goes out as one message.
"""

import asyncio
import logging
from typing import Any

import grpc.aio
from google.protobuf.message import DecodeError

from slipknot_core.errors import ProtocolError
from slipknot_core.routing import session
from slipknot_core.routing.messages import Frame, ReplyFrame, call_message, session_message
from slipknot_core.routing.session import may_gain_company
from slipknot_proto.v1 import replica_pb2

from .server_stream import Host, ServerStream

logger = logging.getLogger("slipknot.serve")


MAX_AHEAD_BYTES = 128 * 1024
"""Producers wait while so much is posted and gRPC has not taken it: else replies of all streams pile up, and
a short one waits behind them."""


class _Rpc:
    """What both kinds have in common; `run` is the RPC's handler."""

    _request_name = ""
    """The message that callers send."""

    def __init__(self, host: Host, context: Any) -> None:
        self._host = host
        self._context = context
        self._writer: asyncio.Task[None] | None = None
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ahead_bytes = 0
        self._room_waiters: list[asyncio.Future[None]] = []
        self.message_count = 0
        """As `Wire.message_count`."""

    async def run(self) -> None:
        """Serve the RPC to its end.

        Cancellation:
            The client has cancelled, or is gone: what runs is cancelled too.
        """
        self._host.tasks.spawn(self._read(), "stream-read")
        try:
            await asyncio.wait((self._ended,))
            if self._ended.exception() is not None:
                self._lose()  # at once: a write under way may take its time
            if self._writer is not None:
                await self._writer  # a status in the middle of a write is lost, and the caller would hang
            self._ended.result()
        finally:
            if not self._ended.done():
                self._ended.cancel()
            self._lose()

    def has_room(self, byte_count: int) -> bool:
        """As `Wire.has_room`."""
        self._ahead_bytes += byte_count
        return self._ahead_bytes < MAX_AHEAD_BYTES or self._writer is None

    async def room(self) -> None:
        """As `Wire.room`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._room_waiters.append(waiter)
        await waiter

    async def flush(self, timeout_s: float) -> None:
        """Wait until what was posted has been written, at most `timeout_s`."""
        if self._writer is not None:
            await asyncio.wait((self._writer,), timeout=timeout_s)

    def fail(self, error: ProtocolError) -> None:
        """The caller has broken the protocol: end the RPC."""
        if not self._ended.done():
            self._ended.set_exception(error)

    # --- for subclasses -----------------------------------------------------------------------------

    def _on_request(self, request: Any) -> None:
        """Take a message of the caller's. Raises ProtocolError."""
        raise NotImplementedError

    def _on_half_close(self) -> None:
        """The caller sends nothing more."""
        raise NotImplementedError

    def _lose(self) -> None:
        """The RPC is over: cancel what runs on it. Twice is fine."""
        raise NotImplementedError

    def _next_message(self) -> bytes | None:
        """The next one to write, serialised; or None."""
        raise NotImplementedError

    @property
    def _has_posted(self) -> bool:
        """Something waits to be written."""
        raise NotImplementedError

    @property
    def _may_gain_company(self) -> bool:
        """Others may soon post something, too, and there is room for it in the next message."""
        return False

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _wake_writer(self) -> None:
        if self._writer is None and not self._ended.done():
            self._writer = self._host.tasks.spawn(self._write(), "stream-write")

    # --- inside -------------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            while (request := await self._context.read()) is not grpc.aio.EOF:
                self._on_request(request)
                if self._ended.done():
                    return
            self._on_half_close()
        except ProtocolError as error:
            self.fail(error)
        except DecodeError:
            self.fail(ProtocolError(f"the bytes are no slipknot.v1.{self._request_name}"))
        except (grpc.aio.BaseError, asyncio.InvalidStateError) as error:
            logger.debug("stream_broken %s", error)  # the handler's task is cancelled by gRPC

    async def _write(self) -> None:
        try:
            if self._may_gain_company:
                await asyncio.sleep(0)
            while (message := self._next_message()) is not None:
                self.message_count += 1
                if not self._has_posted:
                    self._make_room()
                await self._context.write(message)
        except Exception as error:  # noqa: BLE001 - gRPC raises private classes when the caller has gone
            logger.debug("stream_broken %s", error)
        finally:
            self._writer = None
            self._make_room()

    def _make_room(self) -> None:
        self._ahead_bytes = 0
        waiters, self._room_waiters = self._room_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class CallWire(_Rpc):
    """An RPC that is one stream."""

    _request_name = "CallRequest"

    def __init__(self, host: Host, context: Any) -> None:
        super().__init__(host, context)
        self._outbox: list[Frame] = []
        self._stream = ServerStream(host, self)

    def post(self, stream: ServerStream, frame: ReplyFrame) -> None:
        """Send a reply soon."""
        self._outbox.append(frame)
        self._wake_writer()

    def on_ended(self, stream: ServerStream) -> None:
        """End the RPC with it."""
        self._end()

    def _on_request(self, request: replica_pb2.CallRequest) -> None:
        for frame in request.frames:
            self._stream.on_frame(frame)
            if self._ended.done():
                return

    def _on_half_close(self) -> None:
        self._stream.on_half_close()

    def _lose(self) -> None:
        self._outbox.clear()
        self._stream.lose()

    @property
    def _has_posted(self) -> bool:
        return bool(self._outbox)

    def _next_message(self) -> bytes | None:
        if not self._outbox:
            return None
        batch, self._outbox = self._outbox, []
        return call_message(batch)


class SessionWire(_Rpc):
    """An RPC that carries many streams. `repr` tells how many.

    Invariant: a stream is in `_streams` from its first frame to its Cancel frame or the RPC's end.
    """

    _request_name = "SessionRequest"

    def __init__(self, host: Host, context: Any) -> None:
        super().__init__(host, context)
        self._streams: dict[int, ServerStream] = {}
        self._ids: dict[ServerStream, int] = {}
        self._largest_id = 0
        self._posted: list[tuple[int, Frame]] = []
        self._is_begun = False

    def __repr__(self) -> str:
        return f"<SessionWire: {len(self._streams)} streams>"

    async def run(self) -> None:
        """As `_Rpc.run`; begins with an empty message: the caller sends nothing before it came."""
        self._wake_writer()
        await super().run()

    def post(self, stream: ServerStream, frame: ReplyFrame) -> None:
        """Send a reply soon."""
        self._posted.append((self._ids[stream], frame))
        self._wake_writer()

    def on_ended(self, stream: ServerStream) -> None:
        """Does not happen: a caller closes its half for all streams, and then the session is over."""

    def _on_request(self, request: replica_pb2.SessionRequest) -> None:
        if len(request.stream_ids) != len(request.frames):
            raise ProtocolError(
                f"a session message with {len(request.frames)} frames for {len(request.stream_ids)} streams"
            )
        for stream_id, frame in zip(request.stream_ids, request.frames, strict=True):
            self._on_frame(stream_id, frame)
            if self._ended.done():
                return

    def _on_frame(self, stream_id: int, frame: replica_pb2.CallFrame) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            if stream_id <= self._largest_id:
                return  # it has ended, and the caller had not heard of it yet
            if len(self._streams) >= session.MAX_STREAMS:
                raise ProtocolError(f"more than {session.MAX_STREAMS} streams in one session")
            self._largest_id = stream_id
            stream = self._streams[stream_id] = ServerStream(self._host, self)
            self._ids[stream] = stream_id
        stream.on_frame(frame)
        if frame.WhichOneof("frame") == "cancel" and stream_id in self._streams:
            stream.lose()
            self._forget(stream)

    def _forget(self, stream: ServerStream) -> None:
        self._streams.pop(self._ids.pop(stream), None)

    def _on_half_close(self) -> None:
        self._end()  # callers cancel their sessions, or vanish; what still runs is cancelled by `run`

    def _lose(self) -> None:
        streams = tuple(self._streams.values())
        self._posted.clear()
        for stream in streams:
            stream.lose()
        self._streams.clear()
        self._ids.clear()

    @property
    def _has_posted(self) -> bool:
        return bool(self._posted)

    @property
    def _may_gain_company(self) -> bool:
        return may_gain_company(len(self._streams), len(self._posted))

    def _next_message(self) -> bytes | None:
        if not self._is_begun:
            self._is_begun = True
            return replica_pb2.SessionResponse().SerializeToString()
        if not self._posted:
            return None
        return session_message(self._posted)
