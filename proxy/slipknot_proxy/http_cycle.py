"""One request on a client's connection: its body as it comes in, its response as it goes out.

The protocol owns the connection and feeds the cycle; the application answers through it. Everything but
`read_body` and `drain` happens at once. After the client has left, writing does nothing.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from mypy_extensions import mypyc_attr

from slipknot_core.deadline import Deadline
from slipknot_core.routing.messages import Buffer

from . import response_head
from .response_head import Framing
from .server_state import SERVER_LINE, ProxyState

FIRST_BODY_BYTES = 256 * 1024
"""How much of a body rides inside Open."""

JOIN_BYTES = 64 * 1024
"""Smaller bodies are written together with what stands before them."""

SMALL_BYTES = 16 * 1024
"""Smaller pieces of a request's body are put together, up to `JOIN_BYTES`."""

CLIENT_CLOSED = 499
"""Status of a request whose client has left."""


class Connection(Protocol):
    """What a cycle needs of its connection."""

    state: ProxyState

    def write(self, data: bytes) -> None:
        """Send soon."""

    def on_asked(self) -> None:
        """The client was told to send the body."""

    def on_taken(self, cycle: "HttpCycle") -> None:
        """A part of the body was taken from the buffer."""

    def on_complete(self, cycle: "HttpCycle") -> None:
        """The response was written."""

    def cut(self, *, reset: bool) -> None:
        """End the connection in the middle of a response."""

    @property
    def is_write_paused(self) -> bool:
        """The client reads too slowly."""

    async def writable(self) -> None:
        """Wait until the client has read, or has left."""


@mypyc_attr(allow_interpreted_subclasses=True)
class HttpCycle:
    """One request and its response. `on_disconnect` is called once, when nobody waits for the response any
    more."""

    def __init__(
        self,
        connection: Connection,
        scope: dict[str, Any],
        headers: dict[bytes, bytes],
        *,
        keep_alive: bool,
        expects_continue: bool,
    ) -> None:
        self.scope = scope
        self.headers = headers
        """Those the proxy looks at."""
        self.request_id = ""
        self.keep_alive = keep_alive
        self.on_disconnect: Callable[[], None] | None = None
        self.disconnected = False
        self.has_begun = False
        """The application has it."""
        self.has_waited = False
        """It need not wait for the rest of its body."""
        self.end_status = CLIENT_CLOSED
        """What the access log says of a request that ended with `disconnect`."""
        self.body_complete = False
        self.received_bytes = 0
        self.buffered_bytes = 0
        self.response_started = False
        self.response_complete = False
        self._connection = connection
        self.expects_continue = expects_continue
        """The client waits for our word before it sends the body."""
        self._body: deque[Buffer] = deque()
        """What came and was not taken; small pieces are put together."""
        self._body_waiter: asyncio.Future[None] | None = None
        self._framing = Framing.NONE
        self._left = 0

    def __repr__(self) -> str:
        state = "complete" if self.response_complete else "started" if self.response_started else "open"
        return f"<HttpCycle {self.scope['method']} {state}>"

    # --- request ------------------------------------------------------------------------------------------

    def take_body(self, limit: int) -> bytes:
        """What is there of the body, at most `limit` bytes."""
        return b"".join(self._take(limit)) if self._body else b""

    @property
    def is_body_taken(self) -> bool:
        """The body is complete and was taken."""
        return self.body_complete and not self._body

    async def read_body(self, limit: int) -> tuple[list[Buffer], bool]:
        """Wait for more of the body; returns it, in pieces, and whether it was the end.

        Raises:
            OSError: The client left before the end.
        """
        if self.expects_continue and not self.response_started and not self.disconnected:
            self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.expects_continue = False
            self._connection.on_asked()
        while not self._body and not self.body_complete:
            if self.disconnected or self.response_complete:
                raise OSError("nobody sends the rest of the request's body")
            self._body_waiter = asyncio.get_running_loop().create_future()
            await self._body_waiter
        return self._take(limit) or [b""], self.is_body_taken

    # --- response -----------------------------------------------------------------------------------------

    def start(self, status: int, headers: Sequence[bytes], body: bytes, *, complete: bool) -> None:
        """Write the head and the first part of the body in one go.

        Raises:
            ValueError: The response cannot be sent; nothing was written.
        """
        if self.disconnected:
            return
        state = self._connection.state
        head = response_head.response_head(
            status,
            headers,
            method=self.scope["method"],
            http_version=self.scope["http_version"],
            keep_alive=self.keep_alive and not state.is_draining and not self.expects_continue,
            request_id=self.request_id.encode("latin-1"),
            date_line=state.date_line,
            server_line=SERVER_LINE,
        )
        self._framing, self._left = head.framing, head.length
        self._check_length(len(body), complete)
        self.response_started = True
        self.keep_alive = head.keep_alive
        self._write(head.data, (body,), complete)

    def write(self, bodies: Sequence[bytes], *, complete: bool) -> None:
        """Write more of the body in one go; each of `bodies` with data in it is a chunk of its own.

        Raises:
            ValueError: It is not the body that the head announced; nothing was written.
        """
        if not self.disconnected:
            self._check_length(sum(map(len, bodies)), complete)
            self._write(b"", bodies, complete)

    def respond(self, status: int, text: bytes, *headers: bytes) -> None:
        """Answer with a text of the proxy's own; `headers` are name, value, name, value …"""
        own = (b"content-type", b"text/plain; charset=utf-8", b"content-length", b"%d" % len(text), *headers)
        self.start(status, own, text, complete=True)

    def fail(self) -> None:
        """Something is wrong on our side: 500, or cut the response that has begun, if it is not complete."""
        if self.response_started:
            self.cut()
        else:
            self.respond(500, b"Internal Server Error")

    @property
    def is_write_paused(self) -> bool:
        """The client reads too slowly: `drain` before writing more."""
        return self._connection.is_write_paused and not self.disconnected

    async def drain(self, deadline: Deadline) -> None:
        """Wait until the client has read, or has left.

        Raises:
            TimeoutError: The deadline passed first.
        """
        async with asyncio.timeout(deadline.timeout_s()):
            await self._connection.writable()

    def cut(self) -> None:
        """End the connection in the middle of the response: the client sees that it is not complete.

        If its head was all of it (HEAD), it is complete for the client, which may have gone on already.
        """
        if self.disconnected or self.response_complete:
            return
        if self.response_started and self._framing is Framing.NONE:
            self._write(b"", (), complete=True)
        else:
            self._connection.cut(reset=self._framing is Framing.CLOSE or self._connection.is_write_paused)

    # --- for the protocol ---------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """More of the body came."""
        last = self._body[-1] if self._body else None
        if type(last) is bytearray and len(last) + len(data) <= JOIN_BYTES:
            last += data
        elif len(data) < SMALL_BYTES:
            self._body.append(bytearray(data))
        else:
            self._body.append(data)
        self.received_bytes += len(data)
        self.buffered_bytes += len(data)
        self._wake()

    def feed_end(self) -> None:
        """The body is complete."""
        self.body_complete = True
        self.expects_continue = False
        self._wake()

    def disconnect(self, status: int = CLIENT_CLOSED) -> None:
        """Nobody waits for the response any more; `status` is for the log."""
        if self.disconnected or self.response_complete:
            return
        self.disconnected = True
        self.end_status = status
        self._wake()
        callback, self.on_disconnect = self.on_disconnect, None
        if callback is not None:
            callback()

    # --- inside -------------------------------------------------------------------------------------------

    def _take(self, limit: int) -> list[Buffer]:
        """Pieces of the body, at most `limit` bytes together."""
        taken: list[Buffer] = []
        while self._body and limit > 0:
            piece = self._body.popleft()
            if len(piece) > limit:
                if taken:
                    self._body.appendleft(piece)
                    break
                self._body.appendleft(memoryview(piece)[limit:])
                piece = memoryview(piece)[:limit]
            taken.append(piece)
            limit -= len(piece)
        if taken:
            self.buffered_bytes -= sum(map(len, taken))
            self._connection.on_taken(self)
        return taken

    def _check_length(self, size: int, complete: bool) -> None:
        if self._framing is not Framing.LENGTH:
            return
        if size > self._left:
            raise ValueError("the handler's body is longer than its content-length")
        if complete and size < self._left:
            raise ValueError("the handler's body is shorter than its content-length")

    def _write(self, head: bytes, bodies: Sequence[bytes], complete: bool) -> None:
        match self._framing:
            case Framing.NONE:
                self._send([head])
            case Framing.LENGTH:
                self._left -= sum(map(len, bodies))
                self._send([head, *bodies])
            case Framing.CLOSE:
                self._send([head, *bodies])
            case Framing.CHUNKED:
                parts = [head]
                for body in bodies:
                    if body:
                        parts += (b"%x\r\n" % len(body), body, b"\r\n")
                if complete:
                    parts.append(b"0\r\n\r\n")
                self._send(parts)
        if complete:
            self.response_complete = True
            self.on_disconnect = None
            self._body.clear()
            self.buffered_bytes = 0
            self._wake()
            self._connection.on_complete(self)

    def _send(self, parts: list[bytes]) -> None:
        size = sum(map(len, parts))
        if size <= JOIN_BYTES:
            if size:
                self._connection.write(b"".join(parts))
            return
        for part in parts:
            if part:
                self._connection.write(part)

    def _wake(self) -> None:
        if self._body_waiter is not None and not self._body_waiter.done():
            self._body_waiter.set_result(None)
