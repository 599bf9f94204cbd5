"""What the proxy itself reads of a request's headers. Pure."""

import re
from collections.abc import Iterable, Mapping

from slipknot_core.ids import MAX_REQUEST_ID_LENGTH, new_request_id

from . import forwarded

REQUEST_ID = b"x-request-id"
TIMEOUT = b"x-request-timeout-seconds"
KEEP_ON_DISCONNECT = b"x-request-disconnect-disabled"
SESSION_ID = b"x-session-id"
TRACEPARENT = b"traceparent"
TRACESTATE = b"tracestate"
MODEL_ID_SPELLINGS = frozenset(
    f"serve{a}multiplexed{b}model{c}id".encode() for a in "-_" for b in "-_" for c in "-_"
)
"""Intermediaries drop or rewrite underscores, so both signs mean the same."""

_UNSAFE = re.compile(r"[^\x20-\x7e]")

MAX_TIMEOUT_S = 1e9
"""A longer timeout is none."""

OF_INTEREST = MODEL_ID_SPELLINGS | {
    *forwarded.NAMES,
    REQUEST_ID,
    TIMEOUT,
    KEEP_ON_DISCONNECT,
    SESSION_ID,
    TRACEPARENT,
    TRACESTATE,
    b"content-length",
    b"expect",
    b"host",
    b"transfer-encoding",
}
"""The headers that the proxy looks at; of each the first one counts."""


def of_interest(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Pick them."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in OF_INTEREST:
            found.setdefault(name, value)
    return found


def request_id(headers: Mapping[bytes, bytes]) -> str:
    """The client's request id as it is, but bounded and without what does not belong into a header; or a new
    one."""
    value = headers.get(REQUEST_ID)
    if value is None:
        return new_request_id()
    return _UNSAFE.sub("", value.decode("latin-1")).strip()[:MAX_REQUEST_ID_LENGTH] or new_request_id()


def timeout_s(headers: Mapping[bytes, bytes], default_s: float | None) -> float | None:
    """The request's timeout: the client's wish if it is a number (0 or less: none), else `default_s`."""
    value = headers.get(TIMEOUT)
    if value is None:
        return default_s
    try:
        wish_s = float(value)
    except ValueError:
        return default_s
    if wish_s != wish_s:
        return default_s
    return wish_s if 0 < wish_s < MAX_TIMEOUT_S else None


def keeps_on_disconnect(headers: Mapping[bytes, bytes]) -> bool:
    """The request goes on when its client leaves."""
    return headers.get(KEEP_ON_DISCONNECT) == b"?1"


def model_id(headers: Mapping[bytes, bytes]) -> str:
    """Id of the multiplexed model, in whichever spelling; empty if none."""
    if MODEL_ID_SPELLINGS.isdisjoint(headers):
        return ""
    return next(value for name, value in headers.items() if name in MODEL_ID_SPELLINGS).decode("latin-1")


def text(headers: Mapping[bytes, bytes], name: bytes) -> str:
    """A header as text; empty if it is missing."""
    value = headers.get(name)
    return "" if value is None else value.decode("latin-1")
