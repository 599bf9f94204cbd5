"""What all connections of one proxy share."""

import asyncio
import contextvars
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING

from uvicorn.server import ServerState

from .config import ProxyConfig
from .forwarded import ForwardedHeaders
from .hangup import HangupWatcher

if TYPE_CHECKING:
    from .http_cycle import HttpCycle

SERVER_LINE = b"server: uvicorn\r\n"


class ProxyState(ServerState):
    """uvicorn's state with what our protocols need besides. Belongs to the loop it was made on.

    Args:
        config: The proxy's options.
        context: The context that each request gets a copy of, so that no request sees what another has set.
        serve: Answers a request; called in its context.
    """

    def __init__(
        self, config: ProxyConfig, context: contextvars.Context, serve: "Callable[[HttpCycle], None]"
    ) -> None:
        super().__init__()
        self.proxy_config = config
        self.is_draining = False
        self.date_line = b""
        self._context = context
        self._serve = serve
        self._forwarded = ForwardedHeaders(config.forwarded_allow_ips)
        self._loop = asyncio.get_running_loop()
        self.hangups = HangupWatcher(self._loop)
        self._timer: asyncio.TimerHandle | None = None
        self._tick()

    def begin(self, cycle: "HttpCycle") -> None:
        """Have a request answered."""
        cycle.has_begun = True
        self._forwarded.apply(cycle.scope, cycle.headers)
        self._context.copy().run(self._serve, cycle)

    def close(self) -> None:
        """End the clock and the watching; twice is fine."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.hangups.close()

    def _tick(self) -> None:
        date = formatdate(usegmt=True).encode()
        self.date_line = b"date: " + date + b"\r\n"
        self.default_headers = [(b"date", date), (b"server", b"uvicorn")]
        self._timer = self._loop.call_later(1.0, self._tick)
