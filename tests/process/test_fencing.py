"""Members refuse what comes from a controller that led once, whatever it says."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest

from slipknot_core.routing.dispatcher import Dispatcher
from slipknot_core.rpc.server import bind, new_server
from slipknot_core.spec import ReplicaLaunch
from slipknot_proto.v1 import discovery_pb2, discovery_pb2_grpc, registry_pb2, registry_pb2_grpc
from slipknot_replica.node_session import NodeSession

pytestmark = pytest.mark.anyio

WAIT_S = 30.0


class ScriptedController(
    registry_pb2_grpc.RegistryServiceServicer, discovery_pb2_grpc.DiscoveryServiceServicer
):
    """Says what it is told to, to every node and watcher that comes; then holds the stream."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.commands: list[registry_pb2.JoinNodeResponse] = []
        self.snapshots: list[discovery_pb2.Snapshot] = []
        self.hellos: asyncio.Queue[Any] = asyncio.Queue()
        self.left = asyncio.Event()
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        self._server = new_server()
        await bind(self._server, self.address)
        registry_pb2_grpc.add_RegistryServiceServicer_to_server(self, self._server)
        discovery_pb2_grpc.add_DiscoveryServiceServicer_to_server(self, self._server)
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)

    async def JoinNode(self, request_iterator: AsyncIterator[Any], context: Any) -> None:
        request = await anext(aiter(request_iterator))
        self.hellos.put_nowait(request.hello)
        try:
            for command in self.commands:
                await context.write(command)
            async for _ in request_iterator:
                pass
        finally:
            self.left.set()

    async def Watch(self, request: Any, context: Any) -> None:
        self.hellos.put_nowait(request)
        try:
            for snapshot in self.snapshots:
                await context.write(discovery_pb2.WatchResponse(snapshot=snapshot))
            await asyncio.Event().wait()
        finally:
            self.left.set()


class Machine:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.news = asyncio.Event()

    def held(self) -> list[registry_pb2.HeldReplica]:
        return []

    def start_replica(self, launch: ReplicaLaunch) -> None:
        self.told.append(f"start {launch.replica_id}")
        self.news.set()

    def stop_replica(self, replica_id: str, grace_s: float) -> None:
        self.told.append(f"stop {replica_id}")
        self.news.set()

    async def build(self, command: registry_pb2.BuildApplication) -> registry_pb2.BuildResult:
        raise AssertionError

    async def evaluate(self, command: registry_pb2.EvaluatePolicy) -> registry_pb2.PolicyResult:
        raise AssertionError


def welcome(epoch: int) -> registry_pb2.JoinNodeResponse:
    return registry_pb2.JoinNodeResponse(epoch=epoch, welcome=registry_pb2.NodeWelcome(epoch=epoch))


def stop(replica_id: str, epoch: int = 0) -> registry_pb2.JoinNodeResponse:
    command = registry_pb2.StopReplica(replica_id=replica_id, grace_s=0)
    return registry_pb2.JoinNodeResponse(epoch=epoch, stop_replica=command)


@pytest.fixture
async def controllers(tmp_path: Any) -> AsyncIterator[list[ScriptedController]]:
    """Two, not started."""
    both = [ScriptedController(f"unix:{tmp_path}/{name}") for name in "ab"]
    yield both
    for controller in both:
        await controller.stop()


async def test_a_node_refuses_commands_of_a_smaller_epoch(controllers: list[ScriptedController]) -> None:
    """It does what came before, leaves, and tells the next controller the largest epoch that it knows."""
    old, new = controllers
    old.commands = [welcome(4), stop("r1", 4), stop("r2", 3), stop("r3", 4)]
    await old.start()
    machine = Machine()
    session = NodeSession(f"{old.address},{new.address}", "node", machine)
    await session.start()
    try:
        assert (await asyncio.wait_for(old.hellos.get(), WAIT_S)).seen_epoch == 0
        await asyncio.wait_for(old.left.wait(), WAIT_S)
        assert machine.told == ["stop r1"]
        new.commands = [welcome(7), stop("r4", 7), stop("r5")]  # without an epoch: that of the welcome
        await new.start()
        await old.stop()
        assert (await asyncio.wait_for(new.hellos.get(), WAIT_S)).seen_epoch == 4
        while len(machine.told) < 3:
            machine.news.clear()
            await asyncio.wait_for(machine.news.wait(), WAIT_S)
        assert machine.told == ["stop r1", "stop r4", "stop r5"]
        await new.stop()
        old.commands, old.left = [welcome(4), stop("r6", 4)], asyncio.Event()
        old.hellos = asyncio.Queue()
        await old.start()
        assert (await asyncio.wait_for(old.hellos.get(), WAIT_S)).seen_epoch == 7
        await asyncio.wait_for(old.left.wait(), WAIT_S)
        assert machine.told == ["stop r1", "stop r4", "stop r5"]
    finally:
        await session.stop()


async def test_a_router_keeps_the_snapshot_of_the_newest_leader(
    controllers: list[ScriptedController],
) -> None:
    """An outdated controller is left, and its snapshots are not taken, however large their versions are."""
    old, new = controllers
    new.snapshots = [discovery_pb2.Snapshot(epoch=7, version=1)]
    await new.start()
    dispatcher = Dispatcher(f"{new.address},{old.address}", watcher="test")
    await dispatcher.start()
    try:
        await dispatcher.wait_for(lambda snapshot: snapshot.epoch == 7, WAIT_S)
        old.snapshots = [discovery_pb2.Snapshot(epoch=4, version=99)]
        await old.start()
        await new.stop()
        assert (await asyncio.wait_for(old.hellos.get(), WAIT_S)).seen_epoch == 7
        await asyncio.wait_for(old.left.wait(), WAIT_S)
        assert (dispatcher.snapshot.epoch, dispatcher.snapshot.version) == (7, 1)
    finally:
        await dispatcher.stop()
