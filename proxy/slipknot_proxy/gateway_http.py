"""HTTP-like requests that come over gRPC: the client's side of a request, without a connection."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, cast
from urllib.parse import quote, unquote_to_bytes

from slipknot_core.deadline import Deadline
from slipknot_proto.v1 import gateway_pb2

from . import request_headers
from .http_cycle import HttpCycle

READ_AHEAD_BYTES = 256 * 1024
"""How much of a response may wait for a slow client."""

_RAW_PATH_CHARS = "".join(map(chr, range(0x21, 0x7F)))
_TOKEN_CHARS = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_OF_THE_CONNECTION = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"te", b"upgrade"})
_TYPES_OF_LENGTH = frozenset({b"content-length", b"expect"})

Headers = list[tuple[bytes, bytes]]
Message = gateway_pb2.StreamHttpRequestResponse


class GatewayCycle(HttpCycle):
    """One request of a gateway client. The application answers as to any cycle; `next` gives the answer.

    Args:
        request: Checked as it is read; ValueError says what is wrong.
        peer: Who calls, as gRPC tells it.
        left_s: What is left until the RPC's deadline; None: it has none.
    """

    def __init__(
        self, request: gateway_pb2.SendHttpRequestRequest, *, peer: str, left_s: float | None
    ) -> None:
        scope = _scope(request, peer)
        body = request.body or request.text.encode()
        if body:
            scope["headers"].append((b"content-length", b"%d" % len(body)))
        headers = request_headers.of_interest(scope["headers"])
        if left_s is not None:
            wish_s = request_headers.timeout_s(headers, None)
            left_s = left_s if wish_s is None else min(wish_s, left_s)
            headers[request_headers.TIMEOUT] = b"%.6f" % max(left_s, 1e-6)
        super().__init__(cast(Any, _NoConnection()), scope, headers, keep_alive=False, expects_continue=False)
        self.is_cut = False
        """The response ended before it was complete."""
        self._messages: deque[Message] = deque()
        self._waiting_bytes = 0
        self._changed = asyncio.Event()
        self.feed(body)
        self.feed_end()

    async def next(self) -> Message | None:
        """Wait for the next part of the response; None at its end, or where it was cut."""
        while not self._messages:
            if self.response_complete or self.is_cut or self.disconnected:
                return None
            self._changed.clear()
            await self._changed.wait()
        message = self._messages.popleft()
        self._waiting_bytes -= len(message.body)
        self._changed.set()
        return message

    # --- what the application calls -----------------------------------------------------------------------

    def start(self, status: int, headers: Sequence[bytes], body: bytes, *, complete: bool) -> None:
        """Answer with the head and the first part of the body."""
        if self.disconnected:
            return
        message = Message(status=status)
        for name, value in zip(headers[::2], headers[1::2], strict=True):
            if name.lower() not in _OF_THE_CONNECTION and name.lower() != request_headers.REQUEST_ID:
                message.headers.add(name=name.decode("latin-1"), value=value.decode("latin-1"))
        message.headers.add(name=request_headers.REQUEST_ID.decode(), value=self.request_id)
        self.response_started = True
        self._put(message, body, complete)

    def write(self, body: bytes, *, complete: bool) -> None:
        """Answer with more of the body."""
        if not self.disconnected:
            self._put(Message(), body, complete)

    @property
    def is_write_paused(self) -> bool:
        """The client reads too slowly."""
        return self._waiting_bytes > READ_AHEAD_BYTES and not self.disconnected

    async def drain(self, deadline: Deadline) -> None:
        """Wait until the client has read, or has left; raises TimeoutError after the deadline."""
        async with asyncio.timeout(deadline.timeout_s()):
            while self.is_write_paused:
                self._changed.clear()
                await self._changed.wait()

    def cut(self) -> None:
        """End the response although it is not complete."""
        if not self.disconnected and not self.response_complete:
            self.is_cut = True
            self._changed.set()

    def disconnect(self, status: int = 499) -> None:
        """The RPC was cancelled."""
        super().disconnect(status)
        self._changed.set()

    # --- inside -------------------------------------------------------------------------------------------

    def _put(self, message: Message, body: bytes, complete: bool) -> None:
        if self.scope["method"] != "HEAD":
            message.body = body
        if message.body or message.status:
            self._messages.append(message)
            self._waiting_bytes += len(message.body)
        if complete:
            self.response_complete = True
            self.on_disconnect = None
        self._changed.set()


class _NoConnection:
    """A gateway client's body is here as a whole; nobody needs to hear that it was taken."""

    def on_taken(self, cycle: HttpCycle) -> None:
        """Nothing to do."""


def _scope(request: gateway_pb2.SendHttpRequestRequest, peer: str) -> dict[str, Any]:
    method = request.method or "GET"
    if not set(method) <= _TOKEN_CHARS:
        raise ValueError(f"method {method!r} is not an HTTP method")
    path, _, query = (request.path or "/").partition("?")
    if not path.startswith("/"):
        raise ValueError(f"path {path!r} does not begin with '/'")
    raw_path = quote(path, safe=_RAW_PATH_CHARS).encode()
    host, _, port = peer.removeprefix("ipv4:").removeprefix("ipv6:").rpartition(":")
    return {
        "type": "http",
        "method": method.upper(),
        "http_version": "1.1",
        "scheme": "http",
        "path": unquote_to_bytes(raw_path).decode("utf-8", "replace"),
        "raw_path": raw_path,
        "query_string": quote(query, safe=_RAW_PATH_CHARS).encode(),
        "headers": _headers(request),
        "client": (host.strip("[]"), int(port)) if host and port.isdigit() else None,
        "server": None,
        "extensions": {},
    }


def _headers(request: gateway_pb2.SendHttpRequestRequest) -> Headers:
    headers: Headers = []
    for header in request.headers:
        if not header.name or not set(header.name) <= _TOKEN_CHARS:
            raise ValueError(f"{header.name!r} is not the name of a header")
        try:
            value = header.value.strip(" \t").encode("latin-1")
        except UnicodeEncodeError:
            raise ValueError(f"the value of header {header.name!r} is not Latin-1 text") from None
        if any(sign in value for sign in b"\r\n\0"):
            raise ValueError(f"the value of header {header.name!r} is more than one line")
        name = header.name.lower().encode()
        if name not in _OF_THE_CONNECTION and name not in _TYPES_OF_LENGTH:
            headers.append((name, value))
    if not any(name == b"host" for name, _ in headers):
        headers.insert(0, (b"host", b"gateway"))
    return headers
