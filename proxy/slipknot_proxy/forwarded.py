"""Whom a trusted peer names as the client of a request: uvicorn's rules."""

from collections.abc import Mapping
from typing import Any, cast

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

NAMES = frozenset({b"x-forwarded-for", b"x-forwarded-proto"})


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


async def _no_application(scope: Any, receive: Any, send: Any) -> None:
    """The middleware has written into the scope: that is all that is wanted of it."""
