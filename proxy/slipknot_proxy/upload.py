"""Sends the part of a request's body that did not ride inside Open, as the replica grants credit."""

from slipknot_core.routing.exchange import Exchange
from slipknot_core.tasks import TaskOwner

from .http_cycle import HttpCycle

MAX_FRAME_BYTES = 512 * 1024
"""Largest part of a body in one frame."""


class Upload:
    """One body under way."""

    def __init__(self, cycle: HttpCycle, exchange: Exchange, tasks: TaskOwner) -> None:
        self._cycle = cycle
        self._exchange = exchange
        self._task = tasks.spawn(self._run(), f"upload {cycle.request_id}")

    def stop(self) -> None:
        """Send nothing more; twice is fine."""
        self._task.cancel()

    async def _run(self) -> None:
        is_end = False
        while not is_end and not self._exchange.closed:
            try:
                chunks, is_end = await self._cycle.read_body(MAX_FRAME_BYTES)
            except OSError:
                return  # the client left; whoever watches the connection has cancelled the exchange
            await self._exchange.send_body(chunks, is_end)
