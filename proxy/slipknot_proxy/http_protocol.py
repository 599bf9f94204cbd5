"""A client's HTTP/1 connection: uvicorn's httptools protocol with what a proxy needs besides.

What is different from uvicorn:
- a client that leaves is noticed in every phase, and every open request of the connection is told: we read
  ahead of the handler up to a bound, and beyond it the kernel tells us about the hang-up (see `hangup`);
- heads and bodies have bounds: 431 and 413; a refusal waits for the responses before it;
- a request body that nobody wants any more is read and thrown away, so that the response is not lost in a
  reset;
- one timer a connection for idle clients, slow heads and slow bodies, not one a request;
- what others could read differently is refused: several hosts, transfer codings besides chunked; trailers are
  no headers.

As in uvicorn, a client that closes only its sending half counts as gone.
"""

import asyncio
import socket
import struct
from collections import deque
from typing import Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from . import refusals, request_headers
from .hangup import has_unread
from .http_cycle import HttpCycle
from .refusals import Refusal
from .rest_of_body import RestOfBody
from .server_state import ProxyState

MAX_UNWRITTEN_BYTES = 4 * 1024
"""Beyond it, what the kernel does not take of a response counts as not read by the client."""

MAX_PIPELINED = 32
"""Requests of a connection that may wait behind a running one; then we stop reading."""

MAX_DISCARD_BYTES = 64 * 1024 * 1024
"""How much of an unwanted request body is thrown away before the connection is cut."""

UNREAD_S = 1.0
"""Within this, what the kernel has for us is read."""

MAX_WS_HEADERS = 128
MAX_WS_HEADER_BYTES = 8 * 1024
"""Bounds of the WebSocket library for a handshake: number of headers, and length of one with its name."""

_RESET = struct.pack("ii", 1, 0)


class HttpProtocol(HttpToolsProtocol):
    """One client connection.

    Invariants: `_cycles` holds the requests whose responses are not complete, oldest first, and only the
    oldest has begun; `_incoming` is the request whose body is being received, whether or not its response is
    complete.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.state = cast(ProxyState, server_state)
        self._config = self.state.proxy_config
        self._cycles: deque[HttpCycle] = deque()
        self._incoming: HttpCycle | None = None
        self._named: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._fed_bytes = 0
        self._is_between_data = False
        self._in_head = False
        self._refusal: Refusal | None = None
        self._is_lingering = False
        self._discarded_bytes = 0
        self._fd = -1
        self._timer: asyncio.TimerHandle | None = None
        self._rest = RestOfBody(self.loop, self._begin_first)
        self._idle_at_s = 0.0

    def __repr__(self) -> str:
        return f"<HttpProtocol {self.client}: {len(self._cycles)} open requests>"

    # --- the transport ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came."""
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        self._fd = -1 if connection is None else connection.fileno()
        transport.set_write_buffer_limits(high=MAX_UNWRITTEN_BYTES)
        if len(self.connections) > self._config.max_connections:
            self._write_refusal(refusals.TOO_MANY_CONNECTIONS)
            transport.close()
            return
        self._wait_for_data(self._config.head_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, or we have closed."""
        self._stop_watching()
        self._rest.stop()
        if self._timer is not None:
            self._timer.cancel()
        self.connections.discard(self)
        self.flow.resume_writing()
        # Both refer to us: without them a connection that has ended is freed at once.
        self.parser = self._rest = cast(Any, None)
        self._incoming = None
        cycles, self._cycles = self._cycles, deque()
        for cycle in cycles:
            cycle.disconnect()

    def eof_received(self) -> None:
        """The client sends nothing more, which counts as gone; what is written already is still delivered."""
        if self._cycles:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        left = memoryview(data)
        while left:
            left = self._feed(left)

    def _feed(self, data: memoryview) -> memoryview:
        """Give bytes to the parser; returns those that it has not taken."""
        nothing = data[len(data) :]
        if self._is_lingering or self._refusal is not None or self.parser is None:
            self._discard(len(data))
            return nothing
        head = self._named
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._begin_first()
            if not self._should_upgrade():
                return self._ignore_upgrade(data[upgrade.args[0] :])
            self.handle_websocket_upgrade()
        except httptools.HttpParserError:
            self._refuse()
        else:
            self._begin_first()
            self._after_feeding(head, len(data))
        return nothing

    def _after_feeding(self, head: dict[bytes, bytes], size: int) -> None:
        if self._in_head and self._named is head:
            # The same head as before. A header that goes on and on is reported by the parser only at its end.
            self._fed_bytes += size
        elif self._incoming is not None:
            # No data of the body since then: sizes, extensions or trailers of chunks, which may go on, too.
            self._fed_bytes = self._fed_bytes + size if self._is_between_data else 0
            self._is_between_data = True
        if self._fed_bytes > self._config.max_header_bytes:
            self._refusal = refusals.HEAD_TOO_LARGE
            self._refuse()
            return
        self._balance_reading()

    def shutdown(self) -> None:
        """Close once the open requests are answered; one that has arrived already counts as open."""
        if not self._cycles and self._incoming is None and not self._is_lingering:
            self._close_idle()

    # --- the parser ---------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        self.url = b""
        self.headers = []
        self._named = {}
        self._head_bytes = self._fed_bytes = self._discarded_bytes = 0
        self._in_head = True
        self._incoming = None
        self._wait_for_data(self._config.head_timeout_s)

    def on_url(self, url: bytes) -> None:
        """A part of the request target."""
        self.url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; or one of a trailer, which is dropped: it must not look like a part of the head."""
        if not self._in_head:
            self._count_head(len(name) + len(value) + 4)
            return
        name = name.lower()
        if name == b"host" and name in self._named:
            self._refuse_from_parser(refusals.MALFORMED)
        self.headers.append((name, value))
        if name in request_headers.OF_INTEREST:
            self._named.setdefault(name, value)
        self._count_head(len(name) + len(value) + 4)

    def on_headers_complete(self) -> None:
        """The head is complete: start the request, unless it is refused or becomes a WebSocket."""
        self._in_head = False
        self._idle_at_s = 0.0
        if self._named.get(b"transfer-encoding", b"chunked").strip().lower() != b"chunked":
            self._refuse_from_parser(refusals.UNKNOWN_CODING)
        version = self.parser.get_http_version()
        scope = self._scope(version)
        self.scope = cast(Any, scope)
        if self.parser.should_upgrade() and scope["method"] != "CONNECT":
            return  # a WebSocket, or a request that `_ignore_upgrade` begins anew
        max_body_bytes = self._config.max_body_bytes
        if max_body_bytes is not None and int(self._named.get(b"content-length", b"0")) > max_body_bytes:
            self._refuse_from_parser(refusals.BODY_TOO_LARGE)
        cycle = HttpCycle(
            self,
            scope,
            self._named,
            # After CONNECT the parser takes no second request.
            keep_alive=version == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade(),
            expects_continue=version == "1.1" and self._named.get(b"expect", b"").lower() == b"100-continue",
        )
        self._incoming = cycle
        self._cycles.append(cycle)
        self._wait_for_body()

    def on_body(self, body: bytes) -> None:
        """A part of a request's body."""
        self._is_between_data = False
        cycle = self._incoming
        if cycle is None:
            return
        if cycle.response_complete or cycle.disconnected:
            self._wait_for_data(self._config.keep_alive_timeout_s)
            self._discard(len(body))
            return
        cycle.feed(body)
        self._wait_for_body()
        max_body_bytes = self._config.max_body_bytes
        if max_body_bytes is not None and cycle.received_bytes > max_body_bytes:
            self._refuse_from_parser(refusals.BODY_TOO_LARGE)

    def on_message_complete(self) -> None:
        """A request is complete."""
        cycle, self._incoming = self._incoming, None
        if cycle is None:
            return
        cycle.feed_end()
        self._idle_at_s = 0.0
        if cycle.response_complete:
            self._next()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over to the WebSocket protocol."""
        sizes = [len(name) + len(value) + 4 for name, value in self.headers]
        if self._cycles:
            self._refusal = refusals.PIPELINED_HANDSHAKE
        elif (
            len(sizes) > MAX_WS_HEADERS
            or max(sizes, default=0) > MAX_WS_HEADER_BYTES
            or len(self.url) > MAX_WS_HEADER_BYTES
        ):
            self._refusal = refusals.HEAD_TOO_LARGE
        if self._refusal is not None:
            self._refuse()
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().handle_websocket_upgrade()

    def _ignore_upgrade(self, rest: memoryview) -> memoryview:
        """Take a request as if it had not offered another protocol: the parser would lose its body."""
        scope = self.scope
        if scope["method"] == "CONNECT":
            return rest[len(rest) :]
        lines = [b"%s: %s\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        start = f"{scope['method']} ".encode() + self.url + f" HTTP/{scope['http_version']}\r\n".encode()
        self.parser = httptools.HttpRequestParser(self)
        self._feed(memoryview(b"".join((start, *lines, b"\r\n"))))
        return rest

    # --- for cycles (the `Connection` protocol) -----------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send soon."""
        self.transport.write(data)

    def on_asked(self) -> None:
        """The client was told to send the body: from now on we wait for it."""
        self._wait_for_body()

    def on_taken(self, cycle: HttpCycle) -> None:
        """A part of the body was taken from the buffer."""
        self._balance_reading()

    def on_complete(self, cycle: HttpCycle) -> None:
        """A response was written: the next request's turn, or the end."""
        self.state.total_requests += 1
        if self._cycles and self._cycles[0] is cycle:
            self._cycles.popleft()
        if not cycle.keep_alive:
            is_all_read = self._incoming is None and not has_unread(self._fd)
            self._incoming = None
            self._cycles.clear()  # nothing behind a last response is answered
            self.transport.close() if is_all_read else self._linger()
        elif cycle.body_complete:
            self._next()
        else:
            self._wait_for_data(self._config.keep_alive_timeout_s)
        self._balance_reading()

    def cut(self, *, reset: bool) -> None:
        """End the connection in the middle of a response; `reset`: at once, with an error for the client."""
        if not reset:
            self.transport.close()
            return
        connection = self.transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    @property
    def is_write_paused(self) -> bool:
        """The client reads too slowly."""
        return self.flow.write_paused

    async def writable(self) -> None:
        """Wait until the client has read, or has left."""
        await self.flow.drain()

    # --- inside -------------------------------------------------------------------------------------------

    def _scope(self, version: str) -> dict[str, Any]:
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": version,
            "method": self.parser.get_method().decode("ascii"),
            "scheme": self.scheme,
            "server": self.server,
            "client": self.client,
            "headers": self.headers,
        }
        if not (self.parser.should_upgrade() and self._should_upgrade()):
            raw_path, scope["query_string"] = _split_target(self.url)
            scope["raw_path"] = raw_path
            path = raw_path.decode("ascii")
            scope["path"] = unquote(path) if "%" in path else path
        return scope

    def _begin_first(self) -> None:
        """Begin the oldest request, with what has come of its body; nothing if it has begun already."""
        if self._cycles and not self._cycles[0].has_begun and not self._rest.is_awaited(self._cycles[0]):
            self._rest.stop()
            self.state.begin(self._cycles[0])

    def _next(self) -> None:
        """Nothing of the last request is left: run the next one, refuse, or wait for one."""
        if self.transport.is_closing():
            return
        if self._cycles:
            # Not at once: many that are answered at once would be nested.
            self.loop.call_soon(self._begin_first)
        elif self._refusal is not None:
            self._refuse()
        elif self.state.is_draining:
            self.transport.close()
        else:
            self._wait_for_data(self._config.keep_alive_timeout_s)

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._config.max_header_bytes:
            self._refuse_from_parser(refusals.HEAD_TOO_LARGE)

    def _refuse_from_parser(self, refusal: Refusal) -> None:
        """Stop the parser; `data_received` goes on with `_refuse`."""
        self._refusal = refusal
        raise ValueError(refusal[1])

    def _refuse(self) -> None:
        """What comes in cannot be a request: say so after the responses that are still due, then close."""
        self._refusal = refusal = self._refusal or refusals.MALFORMED
        broken, self._incoming = self._incoming, None
        if broken is not None:
            broken.disconnect(refusal[0])
            if broken.response_started:
                self.transport.abort()
                return
            self._cycles.remove(broken)
        if self._cycles:
            self._begin_first()
            return
        self._write_refusal(refusal)
        self._linger()

    def _write_refusal(self, refusal: Refusal) -> None:
        request_id = request_headers.request_id(self._named)
        self.transport.write(refusals.response(refusal, request_id, self.state.date_line))

    def _linger(self) -> None:
        """Close, but read on for a while: a reset would take the response away from a client that still
        sends."""
        self._is_lingering = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._wait_for_data(self._config.keep_alive_timeout_s)
        self._balance_reading()

    def _discard(self, size: int) -> None:
        self._discarded_bytes += size
        if self._discarded_bytes > MAX_DISCARD_BYTES:
            self.transport.abort()

    def _balance_reading(self) -> None:
        """Read ahead up to the bound; while nothing is read, let the kernel watch for the client's end."""
        if self.transport.is_closing():
            return
        buffered = sum(cycle.buffered_bytes for cycle in self._cycles)
        bound = self._config.max_read_ahead_bytes
        if self.flow.read_paused:
            if buffered * 2 <= bound and len(self._cycles) <= MAX_PIPELINED:
                self.flow.resume_reading()
                self.state.hangups.unwatch(self._fd)
        elif buffered > bound or len(self._cycles) > MAX_PIPELINED:
            self.flow.pause_reading()
            if self._fd >= 0:
                self.state.hangups.watch(self._fd, self._hung_up)

    def _stop_watching(self) -> None:
        if self.flow.read_paused and self._fd >= 0:
            self.state.hangups.unwatch(self._fd)

    def _hung_up(self) -> None:
        self.transport.abort()

    def _wait_for_body(self) -> None:
        if self._config.body_timeout_s is not None:
            self._wait_for_data(self._config.body_timeout_s)

    def _wait_for_data(self, timeout_s: float) -> None:
        self._idle_at_s = self.loop.time() + timeout_s
        if self._timer is None or self._timer.when() > self._idle_at_s:
            self._arm(self._idle_at_s)

    def _arm(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(at_s, self._check_idle)

    def _check_idle(self) -> None:
        """The timer went off: close if the client is late; if the time was moved on meanwhile, wait on."""
        self._timer = None
        if self._idle_at_s == 0.0 or (self._cycles and self._incoming is None):
            return  # a request runs; whoever ends it sets the timer again
        if self._idle_at_s > self.loop.time():
            self._arm(self._idle_at_s)
        elif self._cycles:
            self._check_body()
        elif not self.transport.is_closing():
            self._close_idle()

    def _check_body(self) -> None:
        """Nothing of a body came for a while: refuse, unless it is us who do not read, or have not asked for
        it yet, or have begun to answer: whoever talks and listens at once may pause."""
        cycle = self._incoming
        if cycle is None or cycle.response_started:
            return
        if self.flow.read_paused or cycle.expects_continue:
            self._wait_for_body()
        else:
            self._refusal = refusals.BODY_TOO_SLOW
            self._refuse()

    def _close_idle(self) -> None:
        """Close while nothing is under way, and without a reset for a request that meets us on its way.

        If it has arrived, but was not read yet, it is answered. If it comes later, it finds our half closed:
        the client knows that it was not taken.
        """
        if self._is_lingering or self._in_head or not self.transport.can_write_eof():
            self.transport.close()
        elif has_unread(self._fd):
            self._wait_for_data(UNREAD_S)
        else:
            self._linger()


def _split_target(target: bytes) -> tuple[bytes, bytes]:
    """Path and query of a request target."""
    if target == b"*":
        return target, b""
    url = httptools.parse_url(target)
    return url.path or b"/", url.query or b""
