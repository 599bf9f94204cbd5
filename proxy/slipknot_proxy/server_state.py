"""What all connections of one proxy share."""

import asyncio
import contextvars
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

from uvicorn.server import ServerState

from .config import ProxyConfig
from .hangup import HangupWatcher

SERVER_LINE = b"server: uvicorn\r\n"


class ProxyState(ServerState):
    """uvicorn's state with what our protocols need besides. Belongs to the loop it was made on.

    Args:
        config: The proxy's options.
        context: The context that each request's task gets a copy of, so that no request sees what another has
        set.
    """

    def __init__(self, config: ProxyConfig, context: contextvars.Context) -> None:
        super().__init__()
        self.proxy_config = config
        self.is_draining = False
        self.date_line = b""
        self._context = context
        self._loop = asyncio.get_running_loop()
        self.hangups = HangupWatcher(self._loop)
        self._timer: asyncio.TimerHandle | None = None
        self._tick()

    def spawn(self, start: Callable[[], Any], name: str) -> None:
        """Run a request in a task with a context of its own; the task is counted until it ends."""
        task = self._loop.create_task(start(), name=name, context=self._context.copy())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

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
