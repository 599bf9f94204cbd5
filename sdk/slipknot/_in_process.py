"""All roles of a cluster on one event loop. With `_local.py` the only module that may name all of them."""

import asyncio
import contextvars
import logging
import os
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from slipknot_controller.main import Controller, ControllerConfig
from slipknot_core.failures import format_traceback
from slipknot_core.ids import short_id
from slipknot_core.routing.dispatcher import Dispatcher
from slipknot_core.rpc.channel import new_channel
from slipknot_core.runtime_dir import RuntimeDir
from slipknot_core.spec import ImportSource, ReplicaLaunch
from slipknot_core.tasks import TaskOwner
from slipknot_proto.v1 import registry_pb2, registry_pb2_grpc
from slipknot_proxy.main import Proxy, ProxyConfig
from slipknot_replica.lifecycle import ReplicaLifecycle
from slipknot_replica.loading import load_user_code

from ._cluster_options import ClusterOptions
from ._connection import Connection

logger = logging.getLogger("slipknot.serve")


class Roles:
    """Controller, node, proxy and this process's connection. Belongs to the loop `start` is called on."""

    def __init__(self, options: ClusterOptions, runtime_dir: RuntimeDir) -> None:
        self._options = options
        self._runtime_dir = runtime_dir
        self._controller = Controller(ControllerConfig(address=runtime_dir.address("controller.sock"), store_kind="memory"))
        self._node: InProcessNode | None = None
        self._proxy: Proxy | None = None
        self._dispatcher: Dispatcher | None = None
        self._connection: Connection | None = None

    async def start(self) -> None:
        """Start everything and wait until it can be used."""
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
        for role in (self._proxy, self._node, self._dispatcher, self._controller):
            if role is not None:
                await role.stop()

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
        """"host:port" of the proxy."""
        assert self._proxy is not None
        return self._proxy.http_address

    @property
    def gateway_address(self) -> str:
        """"host:port" of the gateway."""
        assert self._proxy is not None
        return self._proxy.gateway_address

    def replica_servers(self) -> list[Any]:
        """The servers of the replicas that run."""
        return [] if self._node is None else self._node.replica_servers()


class InProcessNode:
    """A node agent whose replicas are tasks instead of processes. It speaks the same RegistryService."""

    def __init__(self, controller_address: str, socket_dir: str) -> None:
        self.node_id = f"test-{short_id()}"
        self._controller_address = controller_address
        self._socket_dir = socket_dir
        self._tasks = TaskOwner(f"node {self.node_id}")
        self._replica_tasks = TaskOwner(f"replicas of {self.node_id}")
        self._replicas: dict[str, ReplicaLifecycle] = {}
        self._outbox: asyncio.Queue[registry_pb2.JoinNodeRequest] = asyncio.Queue(maxsize=1024)
        self._welcomed = asyncio.Event()
        self._channel: grpc.aio.Channel | None = None

    async def start(self) -> None:
        """Join the controller."""
        self._channel = new_channel(self._controller_address)
        self._tasks.spawn(self._serve(self._channel), "serve")
        async with asyncio.timeout(10):
            await self._welcomed.wait()

    async def stop(self) -> None:
        """Stop all replicas, then leave."""
        for lifecycle in self._replicas.values():
            lifecycle.request_stop(0.5)
        while self._replicas:
            await asyncio.sleep(0.005)
        await self._tasks.stop()
        await self._replica_tasks.stop()
        if self._channel is not None:
            await self._channel.close(None)

    def replica_servers(self) -> list[Any]:
        """The servers of the replicas that run."""
        return [lifecycle.server for lifecycle in self._replicas.values() if lifecycle.server is not None]

    async def _serve(self, channel: grpc.aio.Channel) -> None:
        stub = registry_pb2_grpc.RegistryServiceStub(channel)
        while True:
            call = stub.JoinNode(self._requests())
            try:
                async for response in call:
                    self._on_response(response)
            except grpc.aio.AioRpcError as error:
                logger.debug("controller_lost %s", error.code().name)
            finally:
                call.cancel()
            await asyncio.sleep(0.05)

    async def _requests(self) -> AsyncIterator[registry_pb2.JoinNodeRequest]:
        hello = registry_pb2.NodeHello(
            node_id=self.node_id, hostname="localhost", pid=os.getpid(), replica_ids=list(self._replicas)
        )
        yield registry_pb2.JoinNodeRequest(hello=hello)
        while True:
            yield await self._outbox.get()

    def _on_response(self, response: registry_pb2.JoinNodeResponse) -> None:
        match response.WhichOneof("message"):
            case "welcome":
                self._welcomed.set()
            case "start_replica":
                self._start_replica(ReplicaLaunch.from_proto(response.start_replica.launch))
            case "stop_replica":
                lifecycle = self._replicas.get(response.stop_replica.replica_id)
                if lifecycle is not None:
                    lifecycle.request_stop(response.stop_replica.grace_s)
            case "build_application":
                self._tasks.spawn(self._build(response.build_application), "build")
            case _:
                pass

    def _start_replica(self, launch: ReplicaLaunch) -> None:
        from dataclasses import replace

        if launch.replica_id in self._replicas:
            return
        launch = replace(launch, socket_dir=self._socket_dir)
        lifecycle = ReplicaLifecycle(launch, lambda: load_user_code(launch))
        self._replicas[launch.replica_id] = lifecycle
        # A context of its own: what one replica sets there must not be seen by the next.
        contextvars.copy_context().run(self._replica_tasks.spawn, self._run(launch.replica_id, lifecycle), "replica")

    async def _run(self, replica_id: str, lifecycle: ReplicaLifecycle) -> None:
        exit_code = 1
        try:
            exit_code = 0 if await lifecycle.run() else 1
        finally:
            del self._replicas[replica_id]
            exited = registry_pb2.ReplicaExited(replica_id=replica_id, exit_code=exit_code)
            self._outbox.put_nowait(registry_pb2.JoinNodeRequest(replica_exited=exited))

    async def _build(self, command: registry_pb2.BuildApplication) -> None:
        import json

        from ._graph import build_from_import_path

        result = registry_pb2.BuildResult(build_id=command.build_id)
        try:
            spec = await asyncio.to_thread(
                build_from_import_path,
                ImportSource.from_proto(command.source),
                name=command.name,
                route_prefix=command.route_prefix if command.has_route_prefix else None,
                overrides=json.loads(command.overrides_json or "[]"),
            )
            result.application.CopyFrom(spec.to_proto())
        except Exception as error:  # importing the user's code may raise anything; the controller shows it
            result.error = format_traceback(error)
        self._outbox.put_nowait(registry_pb2.JoinNodeRequest(build_result=result))
