"""This process's connection to its cluster: one event loop with gRPC, a dispatcher, and the controller's API.

A driver gets a background thread with a loop; replicas and test clusters bring the loop they run on. A context variable
comes first, because in a test cluster several replicas live in one process; elsewhere it is unset.
"""

import asyncio
import contextvars
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from slipknot_core.errors import ControllerUnavailableError, SlipknotServeException
from slipknot_core.routing.dispatcher import Dispatcher
from slipknot_core.routing.snapshot import Snapshot
from slipknot_core.settings import cluster_settings
from slipknot_proto.v1 import controller_pb2_grpc

logger = logging.getLogger("slipknot.serve")

T = TypeVar("T")

CONNECT_TIMEOUT_S = 10.0
"""For the first snapshot of a cluster."""

connection_var: "contextvars.ContextVar[Connection | None]" = contextvars.ContextVar(
    "slipknot_connection", default=None
)
"""The connection of the replica that this code runs in, in processes with several."""

_lock = threading.RLock()
_process_connection: "Connection | None" = None


class Connection:
    """A loop and what runs on it. Its methods may be called from any thread; `repr` tells the controller.

    Args:
        loop: The one loop with gRPC of this process.
        dispatcher: Started on that loop.
        app_name: The application of the replica this belongs to; empty in drivers.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, dispatcher: Dispatcher, app_name: str = "") -> None:
        self.loop = loop
        self.dispatcher = dispatcher
        self.app_name = app_name
        self.controller = controller_pb2_grpc.ControllerServiceStub(dispatcher.channel)
        self.is_closed = False
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<Connection to {self.dispatcher.controller_address}>"

    @classmethod
    def on_loop(
        cls, loop: asyncio.AbstractEventLoop, dispatcher: Dispatcher, *, app_name: str = ""
    ) -> "Connection":
        """Make one for a dispatcher that was started on `loop`; call it there."""
        return cls(loop, dispatcher, app_name)

    @property
    def is_on_loop(self) -> bool:
        """The calling code runs on the connection's loop."""
        return asyncio._get_running_loop() is self.loop

    def snapshot(self) -> Snapshot:
        """The last routing snapshot."""
        return self.dispatcher.snapshot

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Run a coroutine on the connection's loop and wait for its result, from another thread.

        Raises:
            RuntimeError: Called on the loop itself, which would wait for itself.
            TimeoutError: It took longer; it is cancelled.
        """
        if self.is_on_loop:
            coroutine.close()
            raise RuntimeError("this call blocks, and its event loop is the one it waits for; use asyncio.to_thread")
        if self.is_closed:
            coroutine.close()
            raise SlipknotServeException("the connection to the cluster is closed; call serve.run or serve.start")
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result(timeout_s)
        except BaseException:
            future.cancel()
            raise

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Call on the loop: now if this is it, soon otherwise. A closed connection takes no calls any more."""
        if self.is_on_loop:
            callback(*args)
        elif not self.is_closed:
            self.loop.call_soon_threadsafe(callback, *args)

    def close(self) -> None:
        """End it, if it has a thread of its own; calls under way fail. Twice is fine."""
        if self._thread is None or self.is_closed:
            return
        asyncio.run_coroutine_threadsafe(self.dispatcher.stop(), self.loop).result(CONNECT_TIMEOUT_S)
        self.is_closed = True
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(CONNECT_TIMEOUT_S)


def current_or_none() -> Connection | None:
    """The connection for the calling code, or None."""
    return connection_var.get() or _process_connection


def current() -> Connection:
    """The connection for the calling code; connects to `SLIPKNOT_ADDRESS` if that is set.

    Raises:
        SlipknotServeException: There is none.
    """
    connection = connection_var.get() or _process_connection or connect_from_environment()
    if connection is None:
        raise SlipknotServeException("there is no cluster: call serve.run or serve.start first, or set SLIPKNOT_ADDRESS")
    return connection


def connect(address: str, token: str | None = None) -> Connection:
    """Connect this process to a cluster, instead of the one before.

    Args:
        address: Controller, "host:port" or "unix:/path".
        token: The cluster's shared secret; `SLIPKNOT_CLUSTER_TOKEN` if None.

    Raises:
        ControllerUnavailableError: Nobody answers there.
    """
    global _process_connection
    with _lock:
        disconnect()
        token = cluster_settings().token if token is None else token
        _process_connection = _open(address, token)
        return _process_connection


def connect_from_environment() -> Connection | None:
    """Connect to `SLIPKNOT_ADDRESS`; None if it is not set."""
    with _lock:
        if _process_connection is not None:
            return _process_connection
        address = cluster_settings().address
        return connect(address) if address else None


def disconnect() -> None:
    """Close this process's connection; without one a no-op."""
    global _process_connection
    with _lock:
        connection, _process_connection = _process_connection, None
        if connection is not None:
            connection.close()


def install(connection: Connection | None) -> Connection | None:
    """Make `connection` the process's own and return the one before; neither is closed."""
    global _process_connection
    with _lock:
        before, _process_connection = _process_connection, connection
        return before


# --- inside ---------------------------------------------------------------------------------------------------------


def _open(address: str, token: str) -> Connection:
    import uvloop

    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=_run_loop, args=(loop,), name="slipknot", daemon=True)
    thread.start()
    dispatcher = Dispatcher(address, watcher=f"driver:{os.getpid()}", token=token)
    try:
        asyncio.run_coroutine_threadsafe(_start(dispatcher), loop).result(CONNECT_TIMEOUT_S + 1)
        connection = asyncio.run_coroutine_threadsafe(_wrap(loop, dispatcher), loop).result(CONNECT_TIMEOUT_S)
    except TimeoutError:
        asyncio.run_coroutine_threadsafe(dispatcher.stop(), loop).result(CONNECT_TIMEOUT_S)
        loop.call_soon_threadsafe(loop.stop)
        raise ControllerUnavailableError(
            f"no controller answers at {address!r}; start one with `slipknot start`, or check the address"
        ) from None
    connection._thread = thread
    return connection


async def _start(dispatcher: Dispatcher) -> None:
    await dispatcher.start()
    await dispatcher.wait_for(lambda snapshot: snapshot.epoch > 0, CONNECT_TIMEOUT_S)


async def _wrap(loop: asyncio.AbstractEventLoop, dispatcher: Dispatcher) -> Connection:
    return Connection(loop, dispatcher)


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        asyncio.set_event_loop(None)
        loop.close()
