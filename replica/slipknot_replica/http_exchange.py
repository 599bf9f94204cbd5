"""An HTTP request on the replica: the ASGI scope, `receive` and `send` that the user's application sees."""

import asyncio
from collections import deque
from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any

from slipknot_core.errors import ProtocolError
from slipknot_core.request_context import RequestContext
from slipknot_core.routing.exchange import CHUNK_COST_BYTES
from slipknot_core.routing.messages import BodyFrame, Buffer, ReplyFrame
from slipknot_proto.v1 import replica_pb2

from .exchange import Replica, ServerExchange, wake
from .server_stream import ServerStream
from .user_code import matched_route

BODY_CREDIT_BYTES = 1024 * 1024
"""How much of a request body the caller may send ahead of the handler."""

MIN_PIECE_BYTES = 64 * 1024
MAX_PIECE_BYTES = 512 * 1024
"""Larger chunks of a response travel in pieces: as large as the credit, within these bounds."""

WHOLE_BYTES = 128 * 1024
"""What is no larger travels in one piece, if there is any credit."""

JOIN_BYTES = 8 * 1024
"""Chunks of a response that are ready together share a frame up to about this size."""

Message = MutableMapping[str, Any]


class HttpExchange(ServerExchange):
    """One HTTP request."""

    error_status = "500"

    def __init__(self, replica: Replica, open_: replica_pb2.Open, stream: ServerStream) -> None:
        super().__init__(replica, open_, stream)
        http = open_.http
        self._scope = _scope(http, self.request)
        self._body: deque[bytes] = deque([http.body] if http.body or http.end_of_body else ())
        self._body_end = http.end_of_body
        self._body_delivered = False
        self._body_waiter: asyncio.Future[None] | None = None
        self._uncredited = 0
        self._start: replica_pb2.ResponseStart | None = None
        self._joined: BodyFrame | None = None
        """The frame of the last chunk that was posted."""
        self._joined_bytes = JOIN_BYTES
        self._joined_at = 0
        self._response_is_complete = False
        self._is_head = http.method == "HEAD"

    @property
    def body_is_complete(self) -> bool:
        """The whole request body has arrived."""
        return self._body_end

    def start(self) -> None:
        """Run user code, and let the caller send the rest of the body."""
        super().start()
        if not self._body_end:
            self._reply(replica_pb2.ReplyFrame(credit=replica_pb2.Credit(byte_count=BODY_CREDIT_BYTES)))

    def on_frame(self, kind: str, frame: replica_pb2.CallFrame) -> None:
        """Take a frame of the caller."""
        if kind != "body":
            super().on_frame(kind, frame)
            return
        if self._body_end:
            raise ProtocolError("frame 'body' after the end of the body")
        self._body_end = frame.body.end_of_body
        self._body.append(frame.body.data)
        self._body.extend(frame.body.more)
        wake(self._body_waiter)

    # --- ASGI ---------------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """The next part of the body; after it, wait for the client to go away."""
        while not self._body and not self._is_disconnected:
            self._body_waiter = self._loop.create_future()
            await self._body_waiter
        if not self._body or self.request.is_cancelled:
            return {"type": "http.disconnect"}
        data = self._body.popleft()
        self._grant(len(data))
        return {"type": "http.request", "body": data, "more_body": bool(self._body) or not self._body_end}

    async def send(self, message: Message) -> None:
        """Take a part of the response.

        Raises:
            OSError: The request was cancelled: nobody takes the response any more.
            RuntimeError: The application broke the ASGI protocol.
        """
        if self.request.is_cancelled:
            raise self._hung_up("the request was cancelled")
        kind = message["type"]
        if kind == "http.response.start":
            self._begin_response(message)
        elif kind == "http.response.body":
            await self._continue_response(message.get("body", b""), bool(message.get("more_body", False)))
        else:
            raise RuntimeError(f"ASGI message {kind!r} is not supported")

    # --- inside -------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        await self._user_code.handle_http(self._scope, self.receive, self.send)
        if not self._response_is_complete and not self.request.is_cancelled:
            raise RuntimeError("the application returned without completing its response")

    def _label(self) -> tuple[str, str]:
        return self._open.http.method, matched_route(self._scope) or self.request.route

    def _on_cancelled(self) -> None:
        self._start = None
        wake(self._body_waiter)

    def _on_error(self, error: BaseException) -> None:
        self._flush_start()
        super()._on_error(error)

    @property
    def _is_disconnected(self) -> bool:
        return self.request.is_cancelled or self._response_is_complete

    def _grant(self, byte_count: int) -> None:
        if self._body_end:
            return
        self._uncredited += byte_count + CHUNK_COST_BYTES
        if self._uncredited * 2 >= BODY_CREDIT_BYTES:
            self._reply(replica_pb2.ReplyFrame(credit=replica_pb2.Credit(byte_count=self._uncredited)))
            self._uncredited = 0

    def _begin_response(self, message: Message) -> None:
        if self._status:
            raise RuntimeError("'http.response.start' was sent twice")
        self._status = str(message["status"])
        self._start = replica_pb2.ResponseStart(
            status=message["status"],
            headers=flat_headers(message.get("headers", ())),
            route=matched_route(self._scope),
        )
        # A body that comes in the same step rides along; one that takes longer does not hold the start back.
        self._loop.call_soon(self._flush_start)

    async def _continue_response(self, body: bytes, more_body: bool) -> None:
        if not self._status:
            raise RuntimeError("'http.response.body' was sent before 'http.response.start'")
        if self._response_is_complete:
            raise RuntimeError("'http.response.body' was sent after the end of the response")
        if self._is_head:
            body = b""
        size, at = len(body), 0
        while size - at > WHOLE_BYTES and (end := at + self._piece_bytes()) < size:
            await self._send_piece(body, at, end, end_of_body=False)
            at = end
        await self._send_piece(body, at, size, end_of_body=not more_body)

    def _piece_bytes(self) -> int:
        return min(max(self._credit, MIN_PIECE_BYTES), MAX_PIECE_BYTES)

    async def _send_piece(self, body: bytes, at: int, end: int, *, end_of_body: bool) -> None:
        if at == end and not end_of_body:
            self._flush_start()
            return
        await self._spend(end - at)
        data = _piece(body, at, end)  # not before: a stalled client must not hold a copy
        start, self._start = self._start, None
        if start is None and not end_of_body:
            self._post_chunk(data)
            await self._breathe()
            return
        frame: ReplyFrame
        if start is None:
            frame = BodyFrame(is_reply=True, chunks=[data], end_of_body=True)
        else:
            start.body, start.end_of_body = bytes(data), end_of_body
            frame = replica_pb2.ReplyFrame(response_start=start)
        if end_of_body:
            self._response_is_complete = True
            self._close(frame)
            wake(self._body_waiter)
        else:
            self._reply(frame)
            await self._breathe()

    def _post_chunk(self, data: Buffer) -> None:
        """Send a chunk that is not the last, in the frame of the one before it if that has not left yet."""
        self._joined_bytes += len(data) + CHUNK_COST_BYTES
        joined = self._joined
        if (
            joined is not None
            and self._joined_bytes < JOIN_BYTES
            and self._joined_at == self._stream.message_count
        ):
            joined.add(data)
            return
        self._joined = frame = BodyFrame(is_reply=True, chunks=[data])
        self._joined_bytes = len(data)
        self._joined_at = self._stream.message_count
        self._reply(frame)

    def _flush_start(self) -> None:
        start, self._start = self._start, None
        if start is not None:
            self._reply(replica_pb2.ReplyFrame(response_start=start))


def _piece(body: bytes, at: int, end: int) -> Buffer:
    """A part of `body`, or all of it, that does not change if the application changes `body`."""
    if end - at == len(body):
        return bytes(body)
    # A copy of a small part is cheaper than what a view of it keeps.
    is_view = type(body) is bytes and end - at >= MIN_PIECE_BYTES
    return memoryview(body)[at:end] if is_view else bytes(memoryview(body)[at:end])


def flat_headers(headers: Iterable[Sequence[bytes]]) -> list[bytes]:
    """Name, value, name, value …, with lower-case names."""
    return [part for name, value in headers for part in (name.lower(), value)]


def paired_headers(flat: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """Back into pairs."""
    return list(zip(flat[::2], flat[1::2], strict=True))


def seen_headers(flat: Sequence[bytes], request: RequestContext) -> list[tuple[bytes, bytes]]:
    """The headers for user code: a trace goes on below the replica's span, whoever looks for it there."""
    headers = paired_headers(flat)
    if request.span is None:
        return headers
    trace = ((b"traceparent", request.traceparent), (b"tracestate", request.tracestate))
    headers = [pair for pair in headers if pair[0] not in (b"traceparent", b"tracestate")]
    return headers + [(name, value.encode("latin-1")) for name, value in trace if value]


def address(host: str, port: int) -> tuple[str, int] | None:
    """An ASGI address."""
    return (host, port) if host else None


def _scope(http: replica_pb2.HttpRequest, request: RequestContext) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": http.http_version,
        "method": http.method,
        "scheme": http.scheme,
        "path": http.path,
        "raw_path": http.raw_path,
        "query_string": http.query_string,
        "root_path": http.root_path,
        "headers": seen_headers(http.headers, request),
        "client": address(http.client_host, http.client_port),
        "server": address(http.server_host, http.server_port),
        "extensions": {},
    }
