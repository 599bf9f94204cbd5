"""The end of a proxy, in phases, so that no client and no load balancer in front meets a reset:

1. lame duck: everything goes on, but `/-/healthz` says 503 and each response closes its connection;
2. no new connections, but for those that the kernel has taken in already; the idle ones are closed; requests
   under way finish, within `drain_timeout_s`;
3. what still runs is cancelled with DRAIN_TIMEOUT: streams are cut, WebSockets are closed with 1001.

An idle connection is closed in halves: our end is said first, and what the client had on its way is read, not
answered with a reset. A request that has arrived already is answered instead.
"""

import asyncio
import contextlib
import logging
import socket

from slipknot_proto.v1.payload_pb2 import CancelReason

from .app import ProxyApp
from .config import ProxyConfig
from .http_protocol import HttpProtocol
from .last_connections import accept_last
from .server_state import ProxyState

logger = logging.getLogger("slipknot.serve")

CANCEL_S = 1.0
"""How long requests may take to answer after they were cancelled."""

MIN_LINGER_S = 0.1
MAX_LINGER_S = 1.0
"""How long clients may take to close their half of an idle connection: as long as the lame duck, between
these bounds."""

POLL_S = 0.01


class Drain:
    """Ends the HTTP side of one proxy. `hurry` cuts short whatever it waits for."""

    def __init__(self, config: ProxyConfig, state: ProxyState, app: ProxyApp) -> None:
        self._config, self._state, self._app = config, state, app
        self._hurry = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Drain: {self._app.ongoing} ongoing, {len(self._state.connections)} connections>"

    def hurry(self) -> None:
        """Cancel what is still waited for."""
        self._hurry.set()

    async def lame_duck(self) -> None:
        """Say that the proxy is about to end, and go on serving for a while."""
        self._state.is_draining = self._app.is_draining = True
        logger.info("proxy_draining ongoing=%d", self._app.ongoing)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.lame_duck_s):
                await self._hurry.wait()

    async def finish(self, server: asyncio.Server, listener: socket.socket | None) -> None:
        """Take no new connections and bring what is under way to its end.

        Args:
            server: Serves them.
            listener: Its socket, if nobody else listens on it too.
        """
        state, loop = self._state, asyncio.get_running_loop()
        deadline_s = loop.time() + self._config.drain_timeout_s
        if listener is not None:
            await accept_last(listener)
        server.close()
        for connection in tuple(state.connections):
            if isinstance(connection, HttpProtocol):
                connection.shutdown()
        await self._until_answered(deadline_s)
        linger_s = min(max(self._config.lame_duck_s, MIN_LINGER_S), MAX_LINGER_S)
        await self._until_closed(min(deadline_s, loop.time() + linger_s))
        await self._until_answered(deadline_s)  # requests that were on their way
        if self._is_busy:
            logger.warning("proxy_drain_timed_out cancelled=%d", self._app.ongoing)
            self._app.cancel_all(CancelReason.CANCEL_REASON_DRAIN_TIMEOUT)
            self._hurry.clear()
            await self._until_answered(loop.time() + CANCEL_S)
        for connection in tuple(state.connections):
            connection.transport.abort()
        await self._until_answered(loop.time() + CANCEL_S)
        for task in tuple(state.tasks):
            task.cancel()

    # --- inside -------------------------------------------------------------------------------------------

    @property
    def _is_busy(self) -> bool:
        """A request is under way, or a WebSocket."""
        return bool(self._app.ongoing or self._state.tasks)

    async def _until_answered(self, deadline_s: float) -> None:
        """Wait until no request is under way, hurried or not."""
        if not self._is_busy:
            return
        waits = [asyncio.ensure_future(self._answered()), asyncio.ensure_future(self._hurry.wait())]
        try:
            timeout_s = max(0.0, deadline_s - asyncio.get_running_loop().time())
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _answered(self) -> None:
        while self._is_busy:
            await self._app.idle()
            if self._state.tasks:
                await asyncio.wait(tuple(self._state.tasks))

    async def _until_closed(self, deadline_s: float) -> None:
        while self._state.connections and not self._hurry.is_set():
            if asyncio.get_running_loop().time() >= deadline_s:
                return
            await asyncio.sleep(POLL_S)
