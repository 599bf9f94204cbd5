"""An HTTP-like request of a gateway client: the same way through the proxy, without a connection."""

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import unquote

from slipknot_core.deadline import Deadline
from slipknot_core.errors import ReplicaUnavailableError
from slipknot_proto.v1 import gateway_pb2

from . import request_headers
from .http_cycle import CLIENT_CLOSED, HttpCycle

MAX_UNREAD_BYTES = 256 * 1024
"""How much of a response may wait for a slow client."""

_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Z-]+")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_LINE_END = re.compile(rb"[\r\n\0]")

Part = tuple[int, Sequence[bytes], bytes]
"""Status and flat headers (0 and nothing after the first part), and a piece of the body."""


class GatewayCycle(HttpCycle):
    """Takes the response as parts instead of writing it to a connection.

    Args:
        request: What the client sent.
        timeout_s: What is left of the RPC's deadline; None: it has none.
    """

    def __init__(self, request: gateway_pb2.SendHttpRequestRequest, timeout_s: float | None) -> None:
        scope = _scope(request)
        headers = request_headers.of_interest(scope["headers"])
        super().__init__(_Nowhere(), scope, headers, keep_alive=True, expects_continue=False)  # type: ignore[arg-type]
        if timeout_s is not None:
            wish_s = request_headers.timeout_s(headers, None)
            headers[request_headers.TIMEOUT] = b"%f" % min(timeout_s, wish_s or timeout_s)
        self.is_cut = False
        self._parts: deque[Part] = deque()
        self._unread_bytes = 0
        self._changed = asyncio.Event()
        body = request.body or request.text.encode()
        if body:
            self.feed(body)
        self.feed_end()

    # --- what the application calls ---------------------------------------------------------------------

    def start(self, status: int, headers: Sequence[bytes], body: bytes, *, complete: bool) -> None:
        """The head and the first part of the body."""
        self.response_started = True
        names = {name.lower() for name in headers[::2]}
        own = () if b"x-request-id" in names else (b"x-request-id", self.request_id.encode("latin-1"))
        self._put((status, (*headers, *own), body), complete)

    def write(self, bodies: Sequence[bytes], *, complete: bool) -> None:
        """More of the body."""
        for number, body in enumerate(bodies, start=1):
            self._put((0, (), body), complete and number == len(bodies))

    def cut(self) -> None:
        """The response ends before it is complete."""
        if not self.response_complete:
            self.is_cut = True
            self._changed.set()

    @property
    def is_write_paused(self) -> bool:
        """The client reads too slowly."""
        return self._unread_bytes > MAX_UNREAD_BYTES and not self.disconnected

    async def drain(self, deadline: Deadline) -> None:
        """Wait until the client has read; raises TimeoutError when the deadline passes first."""
        async with asyncio.timeout(deadline.timeout_s()):
            while self.is_write_paused:
                self._changed.clear()
                await self._changed.wait()

    # --- what the gateway calls -------------------------------------------------------------------------

    async def parts(self) -> AsyncIterator[Part]:
        """The response, part for part.

        Raises:
            ReplicaUnavailableError: It ended before it was complete.
        """
        while True:
            while self._parts:
                part = self._parts.popleft()
                self._unread_bytes -= len(part[2])
                self._changed.set()
                yield part
            if self.response_complete:
                return
            if self.is_cut:
                raise ReplicaUnavailableError("the response ended before it was complete")
            self._changed.clear()
            if not self._parts:
                await self._changed.wait()

    def disconnect(self, status: int = CLIENT_CLOSED) -> None:
        """Nobody reads any more: whoever waits for the reader need not."""
        super().disconnect(status)
        self._changed.set()

    # --- inside -----------------------------------------------------------------------------------------

    def _put(self, part: Part, complete: bool) -> None:
        if self.disconnected:
            return
        self._parts.append(part)
        self._unread_bytes += len(part[2])
        if complete:
            self.response_complete = True
            self.on_disconnect = None
        self._changed.set()


class _Nowhere:
    """There is no connection whose buffer would have to hear of anything."""

    def on_taken(self, cycle: HttpCycle) -> None:
        """Nothing to do."""


def _scope(request: gateway_pb2.SendHttpRequestRequest) -> dict[str, Any]:
    method = request.method.upper() or "GET"
    if not _METHOD.fullmatch(method):
        raise ValueError(f"the method {request.method!r} is not valid")
    path, _, query = request.path.partition("?")
    path = path if path.startswith("/") else f"/{path}"
    headers = [_header(header) for header in request.headers]
    body_bytes = len(request.body or request.text.encode())
    if body_bytes and not any(name == b"content-length" for name, _ in headers):
        headers.append((b"content-length", b"%d" % body_bytes))
    if not any(name == b"host" for name, _ in headers):
        headers.append((b"host", b"gateway"))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": headers,
        "client": None,
        "server": None,
        "extensions": {},
    }


def _header(header: gateway_pb2.HttpHeader) -> tuple[bytes, bytes]:
    name, value = header.name.lower().encode("latin-1"), header.value.encode("latin-1")
    if not _NAME.fullmatch(name) or _LINE_END.search(value):
        raise ValueError(f"the header {header.name!r} is not valid")
    return name, value
