"""This process's connection to its cluster: one event loop with gRPC, a dispatcher, and the controller's API.

A driver gets a background thread with a loop; replicas and test clusters bring their own. A context
variable comes first, because a test cluster has many replicas in one process; elsewhere it is unset.
"""

import asyncio
import atexit
import contextvars
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError as FutureCancelledError
from concurrent.futures import Future
from typing import Any, TypeVar

from slipknot_core.errors import ControllerUnavailableError, SlipknotServeException
from slipknot_core.routing.dispatcher import Dispatcher
from slipknot_core.routing.snapshot import Snapshot
from slipknot_core.rpc.credentials import Credentials
from slipknot_core.settings import cluster_settings, rpc_settings
from slipknot_proto.v1 import controller_pb2_grpc

T = TypeVar("T")

CONNECT_TIMEOUT_S = 10.0
"""For the first snapshot of a cluster."""

CLOSE_TIMEOUT_S = 2.0
"""For those who wait to hear that their connection was closed."""

NO_CLUSTER = "there is no cluster: call serve.run or serve.start first, or set SLIPKNOT_ADDRESS"
CLOSED = "the connection to the cluster is closed; call serve.run or serve.start for a new one"

connection_var: "contextvars.ContextVar[Connection | None]" = contextvars.ContextVar(
    "slipknot_connection", default=None
)
"""The connection of the replica that this code runs in, in processes with several."""

_lock = threading.RLock()
_process_connection: "Connection | None" = None

local_testing: "Connection | None" = None
"""That of the applications in local testing mode; their handles use it, whatever cluster there is."""


class Connection:
    """A loop and what runs on it. Its methods may be called from any thread; `repr` tells the controller.

    Args:
        loop: The one loop with gRPC of this process.
        dispatcher: Started on that loop.
        app_name: The application of the replica this belongs to; empty in drivers.
        allow_pickle: Write and read pickle, if the cluster allows it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        dispatcher: Dispatcher,
        app_name: str = "",
        *,
        allow_pickle: bool = True,
    ) -> None:
        self._allow_pickle = allow_pickle
        self.max_payload_bytes = rpc_settings().max_message_bytes
        """Largest arguments of a call."""
        self.loop = loop
        self.dispatcher = dispatcher
        self.app_name = app_name
        self._is_closed = False
        self._posting = threading.Lock()
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<Connection to {self.dispatcher.controller_address}{' (closed)' if self.is_closed else ''}>"

    @classmethod
    def on_loop(
        cls,
        loop: asyncio.AbstractEventLoop,
        dispatcher: Dispatcher,
        *,
        app_name: str = "",
        allow_pickle: bool = True,
    ) -> "Connection":
        """Make one for a dispatcher that was started on `loop`, and is stopped by whoever started it."""
        return cls(loop, dispatcher, app_name, allow_pickle=allow_pickle)

    @property
    def allows_pickle(self) -> bool:
        """Arguments travel pickled, and results; otherwise as MessagePack."""
        return self._allow_pickle and not self.dispatcher.snapshot.refuse_pickle

    @property
    def is_own(self) -> bool:
        """This process made it for itself; otherwise whoever started its loop says when it ends."""
        return self._thread is not None

    @property
    def is_on_loop(self) -> bool:
        """The calling code runs on the connection's loop."""
        return asyncio._get_running_loop() is self.loop

    @property
    def is_closed(self) -> bool:
        """It takes no calls any more."""
        return self._is_closed or self.loop.is_closed()

    @property
    def controller(self) -> controller_pb2_grpc.ControllerServiceStub:
        """The API of the controller that is spoken to now; `_control.call` follows the leader."""
        return controller_pb2_grpc.ControllerServiceStub(self.dispatcher.link.channel)

    def snapshot(self) -> Snapshot:
        """The last routing snapshot."""
        return self.dispatcher.snapshot

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """Start a coroutine on the loop; cancelling the future cancels it.

        Raises:
            SlipknotServeException: The connection is closed.
        """
        with self._posting:  # what comes before `close` is on the loop before what closes it
            if self.is_closed:
                coroutine.close()
                raise SlipknotServeException(CLOSED)
            return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Run a coroutine on the connection's loop and wait for its result, from another thread.

        Raises:
            RuntimeError: Called on the loop itself, which would wait for itself.
            TimeoutError: It took longer; it is cancelled.
            SlipknotServeException: The connection is closed, or was closed in the meantime.
        """
        if self.is_on_loop:
            coroutine.close()
            raise RuntimeError(
                "this call waits, and the asyncio event loop it is made in is the one it waits for; "
                "use asyncio.to_thread"
            )
        future = self.submit(coroutine)
        try:
            return future.result(timeout_s)
        except FutureCancelledError:
            raise SlipknotServeException(CLOSED) from None
        finally:
            future.cancel()  # for a timeout or Ctrl-C; afterwards without effect

    async def run_from_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the connection's loop and await its result on another one.

        Raises:
            SlipknotServeException: The connection is closed, or was closed in the meantime.

        Cancellation:
            Cancels the coroutine.
        """
        future = self.submit(coroutine)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self.is_closed and task is not None and task.cancelling() == 0:
                raise SlipknotServeException(CLOSED) from None
            raise

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Call on the loop: now if this is it, soon otherwise.

        Raises:
            SlipknotServeException: The connection is closed.
        """
        if self.is_on_loop:
            callback(*args)
        else:
            self.post(callback, *args)

    def post(self, callback: Callable[..., object], *args: Any) -> None:
        """Call on the loop, but not within this call; may be called from a finaliser.

        Raises:
            SlipknotServeException: The connection is closed.
        """
        if self.is_closed:
            raise SlipknotServeException(CLOSED)
        try:
            self.loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # closed a moment ago
            raise SlipknotServeException(CLOSED) from None

    def close(self) -> None:
        """End it, if it has a thread of its own; whoever waits is told so. Twice is fine."""
        if self._thread is None or self._is_closed:
            return
        with self._posting:
            self._is_closed = True
            closing = asyncio.run_coroutine_threadsafe(self._close(), self.loop)
        closing.result(CONNECT_TIMEOUT_S)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(CONNECT_TIMEOUT_S)

    async def _close(self) -> None:
        await self.dispatcher.stop()
        # All exchanges have failed by now: those who wait for them hear it; then stragglers are cancelled.
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if tasks:
            _, tasks = await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S)


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
        raise SlipknotServeException(NO_CLUSTER)
    return connection


def connect(address: str, credentials: Credentials | None = None) -> Connection:
    """Connect this process to a cluster, instead of the one before.

    Args:
        address: Controller, "host:port" or "unix:/path"; several separated by commas.
        credentials: What this process proves itself with; those of the environment if None.

    Raises:
        ControllerUnavailableError: Nobody answers there.
    """
    global _process_connection
    with _lock:
        disconnect()
        credentials = cluster_settings().credentials if credentials is None else credentials
        _process_connection = _open(address, credentials)
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
    connection = install(None)
    if connection is not None:
        connection.close()


def installed() -> Connection | None:
    """The process's own connection, whatever replica the calling code runs in."""
    return _process_connection


def install(connection: Connection | None) -> Connection | None:
    """Make `connection` the process's own and return the one before; neither is closed."""
    global _process_connection
    with _lock:
        before, _process_connection = _process_connection, connection
        return before


# --- inside ---------------------------------------------------------------------------------------------


def _open(address: str, credentials: Credentials) -> Connection:
    import uvloop

    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=_run_loop, args=(loop,), name="slipknot", daemon=True)
    thread.start()
    dispatcher = Dispatcher(address, watcher=f"driver:{os.getpid()}", credentials=credentials)
    try:
        connection = asyncio.run_coroutine_threadsafe(_start(loop, dispatcher), loop).result()
    except BaseException:
        asyncio.run_coroutine_threadsafe(dispatcher.stop(), loop).result(CONNECT_TIMEOUT_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(CONNECT_TIMEOUT_S)
        raise
    connection._thread = thread
    return connection


async def _start(loop: asyncio.AbstractEventLoop, dispatcher: Dispatcher) -> Connection:
    await dispatcher.start()
    refused = asyncio.ensure_future(dispatcher.refused.wait())
    arrived = asyncio.ensure_future(
        dispatcher.wait_for(lambda snapshot: snapshot.epoch > 0, CONNECT_TIMEOUT_S)
    )
    try:
        await asyncio.wait((refused, arrived), return_when=asyncio.FIRST_COMPLETED)
        if not arrived.done() and dispatcher.failure is not None:
            raise dispatcher.failure
        await arrived
    except TimeoutError:
        raise ControllerUnavailableError(
            f"no controller answers at {dispatcher.controller_address!r}; start one with `slipknot start`, "
            f"or check the address and the credentials{_last_words(dispatcher)}"
        ) from None
    finally:
        refused.cancel()
        arrived.cancel()
    return Connection(loop, dispatcher, allow_pickle=cluster_settings().allow_pickle)


def _last_words(dispatcher: Dispatcher) -> str:
    return f" (the last attempt: {dispatcher.failure})" if dispatcher.failure is not None else ""


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _forget_after_fork() -> None:
    """A forked child has none of the parent's threads; with its connection it would wait for ever."""
    global _lock, _process_connection
    _lock, _process_connection = threading.RLock(), None


# gRPC's threads must be gone before the interpreter is.
atexit.register(disconnect)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
