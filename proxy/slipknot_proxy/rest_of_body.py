"""A request with a small body waits a moment for the rest of it: with all of it it is one message to a
replica, and one that can be sent to another.
"""

import asyncio
from collections.abc import Callable

from .http_cycle import FIRST_BODY_BYTES, HttpCycle

REST_OF_BODY_S = 0.005
"""A request begins without the rest of its body after this."""


class RestOfBody:
    """The wait of one connection. `on_time` is called when it took too long."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_time: Callable[[], None]) -> None:
        self._loop = loop
        self._on_time = on_time
        self._timer: asyncio.TimerHandle | None = None

    def is_awaited(self, cycle: HttpCycle) -> bool:
        """This request should not begin yet: either more of its body comes, or `on_time`."""
        if cycle.body_complete or cycle.expects_continue or cycle.has_waited:
            return False
        if not 0 < int(cycle.headers.get(b"content-length", b"0")) <= FIRST_BODY_BYTES:
            return False
        if self._timer is None:
            self._timer = self._loop.call_later(REST_OF_BODY_S, self._late, cycle)
        return True

    def stop(self) -> None:
        """Nothing is awaited; twice is fine."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self, cycle: HttpCycle) -> None:
        self._timer = None
        cycle.has_waited = True
        self._on_time()
