"""A gRPC server that outlives what kills grpc.aio's.

One HTTP/2 request whose `:path` is not UTF-8 ends grpc.aio's accepting loop (grpcio 1.85), before credentials
are looked at: its port closes, and its callers are told to go away. A new server then takes its place within
milliseconds, with the same handlers at the same address, and the callers come to it. What was under way goes
on where it was.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import grpc.aio

from ..tasks import TaskOwner

logger = logging.getLogger("slipknot.serve")

MAX_REVIVALS = 10_000
"""The fallen ones are kept, since freeing one is not safe, at 5 KiB each; a process with so many of them ends
in order, for whoever started it to start it anew."""

REBIND_TRIES = 500
REBIND_PAUSE_S = 0.02

_starting: "WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]" = WeakKeyDictionary()
"""One server of a loop starts at a time."""


class LastingServer:
    """What is used of `grpc.aio.Server`. `repr` tells how often it was replaced.

    Args:
        make: Makes a server without handlers and ports.
    """

    def __init__(self, make: Callable[[], grpc.aio.Server]) -> None:
        self._make = make
        self._server = make()
        self._setup: list[Callable[[grpc.aio.Server], object]] = []
        self._fallen: list[grpc.aio.Server] = []
        self._is_stopping = False
        self._tasks = TaskOwner("server")

    def __repr__(self) -> str:
        return f"<LastingServer: replaced {len(self._fallen)} times>"

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """As `grpc.aio.Server.add_generic_rpc_handlers`."""
        self._apply(lambda server: server.add_generic_rpc_handlers(handlers))

    def add_registered_method_handlers(self, service_name: str, handlers: Any) -> None:
        """Registers nothing: the generic handlers, which generated code adds as well, take all calls.

        For each registered method grpc.aio waits for its next call at a place in memory that it frees when
        its accepting loop ends; gRPC writes to it nevertheless, and the process dies of that.
        """

    def add_insecure_port(self, address: str) -> int:
        """As `grpc.aio.Server.add_insecure_port`."""
        port: int = self._server.add_insecure_port(address)
        bound = _with_port(address, port)
        self._setup.append(lambda server: server.add_insecure_port(bound))
        return port

    def add_secure_port(self, address: str, credentials: Any) -> int:
        """As `grpc.aio.Server.add_secure_port`."""
        port: int = self._server.add_secure_port(address, credentials)
        bound = _with_port(address, port)
        self._setup.append(lambda server: server.add_secure_port(bound, credentials))
        return port

    async def start(self) -> None:
        """As `grpc.aio.Server.start`."""
        # The accepting loop is a task that has neither a name nor a handle: it is among those that begin now.
        async with _starting.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            before = asyncio.all_tasks()
            await self._server.start()
            begun = asyncio.all_tasks() - before
        for task in begun:
            task.add_done_callback(self._on_task_ended)

    async def stop(self, grace: float | None) -> None:
        """As `grpc.aio.Server.stop`."""
        self._is_stopping = True
        await self._tasks.stop()
        await self._server.stop(grace)

    # --- inside -------------------------------------------------------------------------------------

    def _apply(self, step: Callable[[grpc.aio.Server], object]) -> None:
        step(self._server)
        self._setup.append(step)

    def _on_task_ended(self, task: "asyncio.Task[Any]") -> None:
        if self._is_stopping or task.cancelled() or not isinstance(task.exception(), UnicodeError):
            return
        logger.error("server_replaced grpc ended it because of %r", task.exception())
        self._fallen.append(self._server)
        if len(self._fallen) > MAX_REVIVALS:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        self._tasks.spawn(self._revive(), "revive")

    async def _revive(self) -> None:
        for attempt in range(REBIND_TRIES):
            self._server = self._make()
            try:
                for step in self._setup:
                    step(self._server)
                await self.start()
                return
            except RuntimeError as error:  # the old one has not let go of the address yet
                if attempt == REBIND_TRIES - 1:
                    logger.critical("server_lost %s; this process ends", error)
            await asyncio.sleep(REBIND_PAUSE_S)
        os.kill(os.getpid(), signal.SIGTERM)


def _with_port(address: str, port: int) -> str:
    return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"
