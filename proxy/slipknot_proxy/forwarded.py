"""Whom a trusted peer names as the client of a request: uvicorn's rules."""

from collections.abc import Mapping
from typing import Any, cast

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

NAMES = frozenset({b"x-forwarded-for", b"x-forwarded-proto"})

MAX_PORT = 65_535


class ForwardedHeaders:
    """Reads `X-Forwarded-For` and `X-Forwarded-Proto`.

    Args:
        allow_ips: Peers that are believed; "*": all, empty: none.
    """

    def __init__(self, allow_ips: str) -> None:
        self._middleware = ProxyHeadersMiddleware(_no_application, allow_ips) if allow_ips else None

    def apply(self, scope: dict[str, Any], headers: Mapping[bytes, bytes]) -> None:
        """Put client and scheme into `scope`; `headers` has those of `NAMES` that there are."""
        if self._middleware is None or NAMES.isdisjoint(headers):
            return
        call: Any = self._middleware(cast(Any, scope), cast(Any, None), cast(Any, None))
        try:
            call.send(None)
        except StopIteration:
            pass  # it awaits nothing but its application, and that is none


def client_address(scope: Mapping[str, Any]) -> tuple[str, int]:
    """Host and port of the client; 0 for what a forwarded header calls a port and is none, as for a missing
    one: uvicorn takes any number."""
    host, port = scope["client"] or ("", 0)
    return host, port if 0 <= port <= MAX_PORT else 0


async def _no_application(scope: Any, receive: Any, send: Any) -> None:
    """The middleware has written into the scope: that is all that is wanted of it."""
