"""All roles of a cluster on one event loop. With `_local.py` the only module that may name all of them."""

import asyncio
import logging
import os
from dataclasses import replace
from typing import Any

from slipknot_controller.main import Controller, ControllerConfig
from slipknot_core import tracing
from slipknot_core.ids import short_id
from slipknot_core.metrics import Reading
from slipknot_core.routing.dispatcher import Dispatcher
from slipknot_core.runtime_dir import RuntimeDir
from slipknot_core.spec import ReplicaLaunch
from slipknot_core.tasks import TaskOwner
from slipknot_proto.v1 import registry_pb2
from slipknot_proxy.main import Proxy, ProxyConfig
from slipknot_replica.builder import build
from slipknot_replica.lifecycle import ReplicaLifecycle
from slipknot_replica.loading import load_user_code
from slipknot_replica.node_session import NodeSession, held_by
from slipknot_replica.policy import evaluate

from ._cluster_options import ClusterOptions
from ._connection import Connection
from .serve.metrics import user_readings

logger = logging.getLogger("slipknot.serve")

JOIN_TIMEOUT_S = 10.0
STOP_GRACE_S = 0.5


class Roles:
    """Controller, node, proxy and this process's connection. Belongs to the loop `start` is called on."""

    def __init__(self, options: ClusterOptions, runtime_dir: RuntimeDir) -> None:
        self._options = options
        self._runtime_dir = runtime_dir
        self._controller = Controller(ControllerConfig(address=runtime_dir.address("controller.sock")))
        self._node: InProcessNode | None = None
        self._proxy: Proxy | None = None
        self._dispatcher: Dispatcher | None = None
        self._connection: Connection | None = None

    async def start(self) -> None:
        """Start everything and wait until it can be used."""
        tracing.configure(self._options.tracing_settings or tracing.TracingSettings())
        await self._controller.start()
        address = self._controller.address
        self._node = InProcessNode(address, str(self._runtime_dir.subdirectory("replicas")))
        await self._node.start()
        self._dispatcher = Dispatcher(address, watcher=f"test:{os.getpid()}", node_id=self._node.node_id)
        await self._dispatcher.start()
        self._connection = Connection.on_loop(asyncio.get_running_loop(), self._dispatcher)
        self._proxy = Proxy(
            ProxyConfig.from_options(
                self._options.http,
                controller_address=address,
                node_id=self._node.node_id,
                gateway_port=0,
                logging_json=self._options.logging_json,
            )
        )
        await self._proxy.start()

    async def stop(self) -> None:
        """Drain and end everything; twice is fine."""
        # The controller before the node: it would want the replicas back.
        for role in (self._proxy, self._controller, self._node, self._dispatcher):
            if role is not None:
                await role.stop()
        tracing.stop()

    @property
    def has_connection(self) -> bool:
        """`start` got so far."""
        return self._connection is not None

    @property
    def connection(self) -> Connection:
        """For handles of this process."""
        assert self._connection is not None
        return self._connection

    @property
    def controller_address(self) -> str:
        """gRPC address of the controller."""
        return self._controller.address

    @property
    def http_address(self) -> str:
        """ "host:port" of the proxy."""
        assert self._proxy is not None
        return self._proxy.http_address

    @property
    def gateway_address(self) -> str:
        """ "host:port" of the gateway."""
        assert self._proxy is not None
        return self._proxy.gateway_address

    async def readings(self) -> list[Reading]:
        """What the admin ports of all roles would show."""
        assert self._node is not None and self._proxy is not None
        members = (self._controller, self._proxy, self._node)
        return [reading for member in members for reading in await member.readings()]

    def replica_servers(self) -> list[Any]:
        """The servers of the replicas that run."""
        return [] if self._node is None else self._node.replica_servers()


class InProcessNode:
    """A node whose replicas are tasks instead of processes; it joins the controller like any other."""

    def __init__(self, controller_address: str, socket_dir: str) -> None:
        self.node_id = f"test-{short_id()}"
        self._socket_dir = socket_dir
        self._session = NodeSession(controller_address, self.node_id, self)
        self._tasks = TaskOwner(f"replicas of {self.node_id}")
        self._replicas: dict[str, ReplicaLifecycle] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Join the controller."""
        await self._session.start()
        async with asyncio.timeout(JOIN_TIMEOUT_S):
            await self._session.welcomed.wait()

    async def stop(self) -> None:
        """Leave, so that nothing is started any more, then stop all replicas; twice is fine."""
        await self._session.stop()
        for lifecycle in self._replicas.values():
            lifecycle.request_stop(STOP_GRACE_S)
        if self._running:
            await asyncio.wait(self._running.values())
        await self._tasks.stop()

    def replica_servers(self) -> list[Any]:
        """The servers of the replicas that run."""
        return [lifecycle.server for lifecycle in self._replicas.values() if lifecycle.server is not None]

    async def readings(self) -> list[Reading]:
        """What the replicas show, and once what the user's code has counted: they share the process."""
        replicas = [await r.readings(with_user_metrics=False) for r in tuple(self._replicas.values())]
        return [*(reading for readings in replicas for reading in readings), *user_readings()]

    # --- the `Machine` protocol ---------------------------------------------------------------------

    def held(self) -> list[registry_pb2.HeldReplica]:
        """Those that run, and what they hold."""
        return [held_by(lifecycle.launch) for lifecycle in self._replicas.values()]

    def start_replica(self, launch: ReplicaLaunch) -> None:
        """Start one as a task, with a context of its own: what it sets there must not be seen by the next."""
        if launch.replica_id in self._replicas:
            return
        launch = replace(launch, socket_dir=self._socket_dir)
        lifecycle = ReplicaLifecycle(launch, lambda: load_user_code(launch))
        self._replicas[launch.replica_id] = lifecycle
        self._running[launch.replica_id] = self._tasks.spawn(
            self._run(launch.replica_id, lifecycle), "replica"
        )

    def stop_replica(self, replica_id: str, grace_s: float) -> None:
        """Ask one to end; nothing can force it."""
        lifecycle = self._replicas.get(replica_id)
        if lifecycle is not None:
            lifecycle.request_stop(grace_s)

    async def build(self, command: registry_pb2.BuildApplication) -> registry_pb2.BuildResult:
        """Build an application in a thread."""
        return await asyncio.to_thread(build, command)

    async def evaluate(self, command: registry_pb2.EvaluatePolicy) -> registry_pb2.PolicyResult:
        """Call an autoscaling policy in a thread."""
        return await asyncio.to_thread(evaluate, command)

    async def _run(self, replica_id: str, lifecycle: ReplicaLifecycle) -> None:
        exit_code = 1
        try:
            exit_code = 0 if await lifecycle.run() else 1
        finally:
            del self._replicas[replica_id], self._running[replica_id]
            self._session.replica_exited(replica_id, exit_code)
