"""`serve.run(app, _local_testing_mode=True)`: an application in this process, without gRPC, HTTP, controller.

What is real: handles and responses, the replica's own code for calls (cancellation, deadlines, streams,
threads for sync code), pickling of arguments and results. What is not: each deployment has one instance
whatever `num_replicas` says, nothing waits for `max_ongoing_requests`, nothing is restarted, and HTTP clients
do not exist. For all of that there is `slipknot.testing`.

Instead of a stream over gRPC, both ends of an exchange are joined here: each hands its frames to the other in
the next round of the event loop.
"""

import asyncio
import atexit
import contextvars
import logging
import threading
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import grpc.aio

from slipknot_core.deadline import Deadline
from slipknot_core.errors import (
    ApplicationNotFoundError,
    DeploymentUnavailableError,
    ProtocolError,
    RequestTimeoutError,
    SlipknotServeException,
)
from slipknot_core.ids import DeploymentId
from slipknot_core.request_context import RequestContext
from slipknot_core.routing.dispatcher import Dispatcher
from slipknot_core.routing.exchange import Exchange
from slipknot_core.routing.messages import CallFrame, ReplyFrame
from slipknot_core.routing.snapshot import ApplicationRoute, DeploymentRoute, Snapshot
from slipknot_core.routing.stream import Lane, Listener, Stream
from slipknot_core.spec import ReplicaLaunch
from slipknot_proto.v1 import replica_pb2
from slipknot_proto.v1.payload_pb2 import CancelReason
from slipknot_replica.server import ReplicaServer
from slipknot_replica.server_stream import ServerStream
from slipknot_replica.user_code import UserCode

from . import _connection
from ._connection import Connection, connection_var
from ._deployment import Application
from ._graph import LocalDeployment, local_application
from .serve import context as serve_context
from .serve.handle import DeploymentHandle

logger = logging.getLogger("slipknot.serve")

MAX_THREADS = 128
"""Threads for the sync code of one deployment; further calls wait for one."""

MAX_ONGOING = 1_000_000
"""In place of the deployments' `max_ongoing_requests`."""

STOP_TIMEOUT_S = 10.0

_lock = threading.RLock()
_running: "LocalTesting | None" = None


def run(app: Application, name: str) -> DeploymentHandle:
    """Construct all deployments of an application, replacing the one of this name, and return its handle.

    Raises:
        TypeError: `app` is no Application, or an argument of a constructor cannot be pickled.
        Exception: Whatever a constructor raised.
    """
    global _running
    with _lock:
        if _running is None:
            _running = LocalTesting()
            atexit.register(shutdown)
        return _running.run(app, name)


def delete(name: str) -> bool:
    """End an application; False if there is none of this name here."""
    with _lock:
        return _running is not None and _running.delete(name)


def shutdown() -> None:
    """End all applications here; twice is fine."""
    global _running
    with _lock:
        running, _running = _running, None
    if running is not None:
        running.stop()
        atexit.unregister(shutdown)


class LocalTesting:
    """The loop that all local applications run on, in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="slipknot-local", daemon=True)
        self._thread.start()
        self._dispatcher = LocalDispatcher()
        self._connection = Connection.on_loop(self._loop, self._dispatcher)
        _connection.local_testing = self._connection

    def run(self, app: Application, name: str) -> DeploymentHandle:
        """As the function `run`."""
        ingress, deployments = local_application(app, name, _new_handle)
        self.delete(name)
        self._connection.run(self._construct(name, ingress, deployments))
        return _new_handle(ingress, name)

    def delete(self, name: str) -> bool:
        """As the function `delete`."""
        replicas = self._dispatcher.take_application(name)
        self._connection.run(_end(replicas))
        return bool(replicas)

    def stop(self) -> None:
        """End everything."""
        for name in list(self._dispatcher.snapshot.applications):
            self.delete(name)
        _connection.local_testing = None
        self._connection.run(_cancel_stragglers())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_TIMEOUT_S)
        self._loop.close()

    async def _construct(self, name: str, ingress: str, deployments: list[LocalDeployment]) -> None:
        self._dispatcher.add_application(name, ingress, [d.spec.name for d in deployments])
        try:
            for deployment in deployments:
                deployment_id = DeploymentId(name, deployment.spec.name)
                replica = LocalReplica(deployment_id, deployment, self._connection)
                self._dispatcher.replicas[deployment_id] = replica
                await replica.construct()
        except BaseException:
            await _end(self._dispatcher.take_application(name))
            raise


class LocalDispatcher(Dispatcher):
    """Gives each exchange to the one replica of its deployment at once."""

    def __init__(self) -> None:
        super().__init__("local testing mode", watcher="local testing mode")
        self.replicas: dict[DeploymentId, LocalReplica] = {}
        self._version = 0

    @property
    def channel(self) -> grpc.aio.Channel:
        """There is no controller: what needs one says so."""
        return _NoChannel()

    def add_application(self, name: str, ingress: str, deployments: list[str]) -> None:
        """Let it be found by name."""
        routes = {d: DeploymentRoute(DeploymentId(name, d)) for d in deployments}
        route = ApplicationRoute(name, None, ingress, routes)
        self._set_applications({**self.snapshot.applications, name: route})

    def take_application(self, name: str) -> "list[LocalReplica]":
        """Forget it, and return its replicas: those that call others first."""
        self._set_applications({n: route for n, route in self.snapshot.applications.items() if n != name})
        ids = [deployment_id for deployment_id in self.replicas if deployment_id.app_name == name]
        return [self.replicas.pop(deployment_id) for deployment_id in reversed(ids)]

    def open(
        self,
        deployment_id: DeploymentId,
        first: replica_pb2.CallFrame,
        deadline: Deadline,
        *,
        context: RequestContext | None = None,
        repeatable: bool = False,
    ) -> Exchange:
        """As `Dispatcher.open`."""
        open_ = first.open
        open_.app_name, open_.deployment_name = deployment_id
        exchange = Exchange(first, deadline, _NoRouter(), context, spare=self._spare)
        replica = self.replicas.get(deployment_id)
        if replica is None:
            exchange.fail(self._missing(deployment_id))
        elif deadline.has_expired():
            exchange.fail(RequestTimeoutError(f"Request {open_.request_id} timed out."))
        elif context is not None and not context.adopt(exchange, exchange.cancel):
            exchange.cancel_with_parent(context.cancel_origin)
        else:
            exchange.start(replica.new_stream(), replica)
        return exchange

    def _missing(self, deployment_id: DeploymentId) -> SlipknotServeException:
        app_name, name = deployment_id
        application = self.snapshot.applications.get(app_name)
        if application is None:
            return DeploymentUnavailableError(f"Application {app_name!r} does not exist, or was deleted.")
        if name in application.deployments:
            return DeploymentUnavailableError(f"Deployment {name!r} has not been constructed yet.")
        known = ", ".join(sorted(application.deployments))
        return ApplicationNotFoundError(
            f"Application {app_name!r} has no deployment {name!r}; its deployments: {known}."
        )

    def _set_applications(self, applications: dict[str, ApplicationRoute]) -> None:
        self._version += 1
        self.snapshot = Snapshot(1, self._version, applications)


class LocalReplica:
    """The one instance of a deployment: a replica's server that listens nowhere. For callers it is a seat."""

    def __init__(
        self, deployment_id: DeploymentId, deployment: LocalDeployment, connection: Connection
    ) -> None:
        app_name, name = deployment_id
        self.replica_id = f"{app_name}#{name}#local"
        spec = replace(deployment.spec, max_ongoing_requests=MAX_ONGOING)
        self._server = ReplicaServer(ReplicaLaunch(self.replica_id, app_name, spec, "", ""), access_log=False)
        self._user_code = UserCode(
            deployment.code.func_or_class,
            deployment.code.init_args,
            deployment.code.init_kwargs,
            max_ongoing_requests=MAX_THREADS,
            is_ingress=False,
            deployment_name=name,
            app_name=app_name,
        )
        replica_context = serve_context.ReplicaContext(
            app_name=app_name,
            deployment=name,
            replica_id=self.replica_id,
            servable=lambda: self._user_code.servable,
            _models=self._server.models,
        )
        self._context = contextvars.Context()
        self._context.run(serve_context._set_replica_context, replica_context)
        own = Connection.on_loop(connection.loop, connection.dispatcher, app_name=app_name)
        self._context.run(connection_var.set, own)
        self._server.base_context = self._context

    async def construct(self) -> None:
        """Make the instance, and hand it its `user_config`.

        Raises:
            Exception: Whatever the constructor or `reconfigure` raised.
        """
        await self._in_context(self._server.construct(self._user_code))

    async def end(self) -> None:
        """Cancel what runs and end the instance."""
        await self._in_context(self._server.stop())

    def new_stream(self) -> "_LocalStream":
        """A stream of its own for each exchange."""
        return _LocalStream(self._server)

    def free(self, stream: Stream | None) -> None:
        """As `Seat.free`: there is no number of seats."""

    async def _in_context(self, coroutine: Coroutine[Any, Any, None]) -> None:
        await asyncio.get_running_loop().create_task(coroutine, context=self._context.copy())


# --- inside ---------------------------------------------------------------------------------------------


class _LocalStream:
    """Both ends of a stream, without one: as callers know it, and as the wire of the replica's end."""

    lane = Lane.ALONE
    has_unsent_open = False
    was_lost = False

    def __init__(self, server: ReplicaServer) -> None:
        self.listener: Listener | None = None
        self.has_ended = False
        self._loop = asyncio.get_running_loop()
        self._replica_end = ServerStream(server, _LocalWire(self))

    def post(self, frame: CallFrame) -> None:
        assert isinstance(frame, replica_pb2.CallFrame)  # there are no bodies: nothing comes over HTTP
        self._loop.call_soon(self._replica_end.on_frame, frame)

    async def send(self, frame: CallFrame) -> None:
        self.post(frame)

    def abandon(self, reason: CancelReason, origin: str) -> None:
        self.listener = None
        self.post(replica_pb2.CallFrame(cancel=replica_pb2.Cancel(reason=reason, origin=origin)))

    def discard(self) -> None:
        self.listener = None

    def deliver(self, frame: replica_pb2.ReplyFrame) -> None:
        if self.listener is not None:
            self.listener.on_frame(frame)

    def end(self) -> None:
        self.has_ended = True
        listener, self.listener = self.listener, None
        if listener is not None:
            listener.on_end(None)


class _LocalWire:
    """From the replica's end to the caller's, in the next round of the loop."""

    def __init__(self, stream: _LocalStream) -> None:
        self.message_count = 0
        self._stream = stream
        self._loop = asyncio.get_running_loop()

    def post(self, _stream: ServerStream, frame: ReplyFrame) -> None:
        assert isinstance(frame, replica_pb2.ReplyFrame)
        self._loop.call_soon(self._deliver, frame)

    def _deliver(self, frame: replica_pb2.ReplyFrame) -> None:
        self.message_count += 1
        self._stream.deliver(frame)

    def has_room(self, _byte_count: int) -> bool:
        return True

    async def room(self) -> None:
        """There always is."""

    def on_ended(self, _stream: ServerStream) -> None:
        self._loop.call_soon(self._stream.end)

    def fail(self, error: ProtocolError) -> None:
        logger.error("protocol_error %s", error)
        self.on_ended(self._stream._replica_end)


class _NoRouter:
    """Nothing is refused or lost here."""

    def on_refused(self, exchange: Exchange, _seat: Any, _refused: replica_pb2.Refused) -> None:
        exchange.fail(SlipknotServeException("refused in local testing mode"))

    def on_lost(self, _exchange: Exchange, _seat: Any, *, is_certain: bool) -> bool:
        return False

    def on_closed(self, exchange: Exchange) -> None:
        pass


class _NoChannel:
    """Stands where the connection to a controller would be."""

    def __getattr__(self, _kind: str) -> Any:
        return lambda *_args, **_kwargs: _no_controller


def _no_controller(*_args: Any, **_kwargs: Any) -> Any:
    raise SlipknotServeException(
        "local testing mode has no controller; use slipknot.testing for a whole cluster"
    )


def _new_handle(deployment_name: str, app_name: str) -> DeploymentHandle:
    return DeploymentHandle(deployment_name, app_name, _is_local=True)


async def _end(replicas: list[LocalReplica]) -> None:
    for replica in replicas:
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await replica.end()
        except Exception:  # the user's __del__ may raise anything, and must not keep the others alive
            logger.exception("destruct_failed %s", replica.replica_id)


async def _cancel_stragglers() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=2.0)
    await asyncio.get_running_loop().shutdown_asyncgens()
    await asyncio.get_running_loop().shutdown_default_executor()
