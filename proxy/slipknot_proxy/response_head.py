"""The head of an HTTP/1 response and how its body is framed. Pure.

The rules: HTTP/1.0 gets no chunked body and no second request; HEAD, 204 and 304 have no body; a header is
never sent twice because both sides set it; what belongs to a single connection (hop-by-hop headers) is ours,
not the handler's.
"""

import enum
import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

from uvicorn.protocols.http.httptools_impl import STATUS_LINE


class Framing(enum.Enum):
    """How the client finds the end of the body."""

    NONE = "none"
    """There is no body."""
    LENGTH = "length"
    """After `content-length` bytes."""
    CHUNKED = "chunked"
    """At the last chunk."""
    CLOSE = "close"
    """When the connection is closed."""


class ResponseHead(NamedTuple):
    """What to write, and what follows from it."""

    data: bytes
    framing: Framing
    length: int
    """Bytes of the body that must follow; meaningful for `LENGTH` only."""
    keep_alive: bool


_OURS = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"transfer-encoding",
        b"upgrade",
        b"te",
        b"x-request-id",
    }
)
"""Not passed on. The request id is ours too: exactly one, that of the request."""

_ONCE = frozenset({b"connection", b"content-length", b"date", b"server"})
"""Of these the first one counts."""

MAX_KNOWN_LINES = 1024
MAX_KNOWN_VALUE_BYTES = 64
"""Header lines of handlers repeat: so many short ones are not checked and put together each time."""

_NO_BODY = frozenset({204, 304})
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def response_head(
    status: int,
    headers: Sequence[bytes],
    *,
    method: str,
    http_version: str,
    keep_alive: bool,
    request_id: bytes,
    date_line: bytes,
    server_line: bytes,
) -> ResponseHead:
    """Write the head.

    Args:
        status: 200 to 599.
        headers: Name, value, name, value …; names in lower case.
        method: Of the request.
        http_version: Of the request.
        keep_alive: The connection may carry another request.
        request_id: Value of x-request-id.
        date_line: `date: …` with its line end; left out if the handler set one.
        server_line: The same for `server`.

    Raises:
        ValueError: A header or the status cannot be sent; the message names it.
    """
    if not 200 <= status <= 599:
        raise ValueError(f"the handler answered with status {status}; only 200 to 599 can end a request")
    parts: list[bytes] = [STATUS_LINE[status]]
    once = _copy_headers(headers, parts)
    length = _content_length(once.get(b"content-length"))
    framing = _framing(status, method, http_version, length)
    keep_alive = keep_alive and http_version == "1.1" and b"close" not in once.get(b"connection", b"").lower()
    parts += (
        b"transfer-encoding: chunked\r\n" if framing is Framing.CHUNKED else b"",
        b"" if keep_alive else b"connection: close\r\n",
        b"" if b"date" in once else date_line,
        b"" if b"server" in once else server_line,
        b"x-request-id: ",
        request_id,
        b"\r\n\r\n",
    )
    return ResponseHead(b"".join(parts), framing, length or 0, keep_alive)


def _copy_headers(headers: Sequence[bytes], parts: list[bytes]) -> dict[bytes, bytes]:
    """Append what is passed on to `parts`; returns the headers that may occur only once, passed on or not."""
    once: dict[bytes, bytes] = {}
    for name, value in zip(headers[::2], headers[1::2], strict=True):
        if name in _ONCE:
            if name in once:
                continue
            once[name] = value
        if name not in _OURS:
            parts.append(
                _known_line(name, value) if len(value) <= MAX_KNOWN_VALUE_BYTES else _line(name, value)
            )
    return once


def _framing(status: int, method: str, http_version: str, length: int | None) -> Framing:
    if method == "HEAD" or status in _NO_BODY:
        return Framing.NONE
    if length is not None:
        return Framing.LENGTH
    return Framing.CHUNKED if http_version == "1.1" else Framing.CLOSE


def _line(name: bytes, value: bytes) -> bytes:
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"the handler set a header whose name cannot be sent: {name[:80]!r}")
    if _BAD_VALUE.search(value) is not None:
        raise ValueError(
            f"the handler set the header {name.decode('ascii')!r} to a value that cannot be sent"
        )
    return name + b": " + value + b"\r\n"


_known_line = functools.lru_cache(MAX_KNOWN_LINES)(_line)


def _content_length(value: bytes | None) -> int | None:
    if value is None:
        return None
    if not value.isdigit():
        raise ValueError(f"the handler set content-length to {value[:80]!r}, which is no length")
    return int(value)
