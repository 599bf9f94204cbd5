"""A node's lease: the stream to the controller over which it is told what to start, stop and build.

Reconnects for as long as the node lives, and then says which replicas it has: a controller that was away
starts none anew.
"""

import asyncio
import logging
import math
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import grpc
import grpc.aio

from slipknot_core.archive import ArchiveError
from slipknot_core.ids import short_id
from slipknot_core.rpc.channel import token_metadata
from slipknot_core.rpc.controller_link import ControllerLink, EpochGate
from slipknot_core.rpc.credentials import NO_CREDENTIALS, Credentials
from slipknot_core.spec import ReplicaLaunch
from slipknot_core.tasks import TaskOwner
from slipknot_proto.v1 import registry_pb2, registry_pb2_grpc

logger = logging.getLogger("slipknot.serve")

LEAVE_TIMEOUT_S = 1.0
"""For the controller to note that this node leaves; then its replicas end in any case."""

ALIVE_PERIOD_S = 1.0
"""The controller hears of a node at least so often."""

AFTER_DRAIN_S = 8.0
"""For a replica whose node is told to end, after its drain: cleanup of what is cancelled at its end (2 s),
destructors (5 s). WebSockets that are open then still get their close."""

Request = registry_pb2.JoinNodeRequest


@dataclass(frozen=True, slots=True)
class Offer:
    """What a node has for replicas."""

    num_cpus: float = math.inf
    """Infinite: not counted."""
    gpu_ids: tuple[str, ...] = ()
    memory_bytes: int = 0
    """0: not counted."""
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


class Machine(Protocol):
    """What a node can do with replicas."""

    def held(self) -> list[registry_pb2.HeldReplica]:
        """Those that run, and what they hold."""

    def start_replica(self, launch: ReplicaLaunch) -> None:
        """Start one; one that runs already is left alone."""

    def stop_replica(self, replica_id: str, grace_s: float) -> None:
        """Ask one to end, and force it after `grace_s`."""

    async def build(self, command: registry_pb2.BuildApplication) -> registry_pb2.BuildResult:
        """Build an application."""

    async def evaluate(self, command: registry_pb2.EvaluatePolicy) -> registry_pb2.PolicyResult:
        """Call an autoscaling policy."""


class NodeSession:
    """Keeps one node joined. `repr` tells the node."""

    def __init__(
        self,
        controller_address: str,
        node_id: str,
        machine: Machine,
        *,
        credentials: Credentials = NO_CREDENTIALS,
        offer: Offer = Offer(),
        admin_address: str = "",
    ) -> None:
        self.node_id = node_id
        self.welcomed = asyncio.Event()
        self.is_joined = False
        self._link = ControllerLink(controller_address, credentials)
        self._gate = EpochGate()
        self._epoch = 0  # of the welcome on this stream
        self._machine = machine
        self._hello = registry_pb2.NodeHello(
            node_id=node_id,
            hostname=socket.gethostname(),
            pid=os.getpid(),
            num_cpus=offer.num_cpus,
            memory_bytes=offer.memory_bytes,
            labels=offer.labels,
            incarnation=short_id(16),
            gpu_ids=offer.gpu_ids,
            custom_resources=offer.resources,
            admin_address=admin_address,
        )
        self._tasks = TaskOwner(f"node {node_id}")
        self._news: list[Request] = []
        self._wake = asyncio.Event()
        self._is_leaving = False
        self._leaving_noted = asyncio.Event()

    def __repr__(self) -> str:
        return f"<NodeSession {self.node_id}: {len(self._machine.held())} replicas>"

    async def start(self) -> None:
        """Join in the background."""
        self._tasks.spawn(self._keep_joined(), "join")

    async def leave(self) -> None:
        """Have the controller place nothing more here, as far as it can be reached."""
        self._is_leaving = True
        self._put(Request(leaving=registry_pb2.NodeLeaving()))
        with suppress(TimeoutError):
            await asyncio.wait_for(self._leaving_noted.wait(), LEAVE_TIMEOUT_S)

    async def stop(self) -> None:
        """Leave; twice is fine."""
        await self._tasks.stop()
        await self._link.close()

    async def fetch_archive(self, digest: str) -> AsyncIterator[bytes]:
        """An uploaded archive, in parts.

        Raises:
            ArchiveError: The cluster has none of this name.
            OSError: The cluster cannot be reached.
        """
        stub = registry_pb2_grpc.RegistryServiceStub(self._link.channel)
        call = stub.FetchArchive(registry_pb2.FetchArchiveRequest(digest=digest))
        try:
            async for response in call:
                yield response.data
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise ArchiveError(error.details()) from None
            raise OSError(f"the archive {digest} could not be fetched: {error.details()}") from None
        finally:
            call.cancel()

    def replica_exited(self, replica_id: str, exit_code: int, detail: str = "") -> None:
        """Tell the controller that a replica's process has ended."""
        exited = registry_pb2.ReplicaExited(replica_id=replica_id, exit_code=exit_code, detail=detail)
        self._put(Request(replica_exited=exited))

    def _put(self, request: Request) -> None:
        self._news.append(request)
        self._wake.set()

    async def _keep_joined(self) -> None:
        while True:
            address, failure = self._link.address, None
            stub = registry_pb2_grpc.RegistryServiceStub(self._link.channel)
            news: list[Request] = []
            self._news = news  # what has exited meanwhile is missing in the hello
            call = stub.JoinNode(self._requests(news), metadata=token_metadata(self._link.credentials))
            try:
                async for response in call:
                    if not self._is_of_leader(response):
                        break
                    self._link.held(address)
                    self._on_response(response)
            except grpc.aio.AioRpcError as error:
                failure = error
                logger.debug("controller_lost %s", error.code().name)
            finally:
                self.is_joined = False
                call.cancel()
                self._news = []
                self._wake.set()
            await asyncio.sleep(self._link.lost(address, failure))

    async def _requests(self, news: list[Request]) -> AsyncIterator[Request]:
        """The messages of one connection. gRPC goes on reading them after the connection was lost: they must
        not take what is meant for the next one.
        """
        self._hello.seen_epoch = self._gate.seen
        del self._hello.replica_ids[:], self._hello.replicas[:]
        self._hello.replicas.extend(self._machine.held())
        self._hello.replica_ids.extend(replica.replica_id for replica in self._hello.replicas)
        yield Request(hello=self._hello)
        if self._is_leaving:
            yield Request(leaving=registry_pb2.NodeLeaving())
        while news is self._news:
            while news:
                yield news.pop(0)
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(ALIVE_PERIOD_S):
                    await self._wake.wait()
            if not news:
                yield Request(alive=registry_pb2.NodeAlive())

    def _is_of_leader(self, response: registry_pb2.JoinNodeResponse) -> bool:
        """It is not of a controller that led once: nothing of it is done then."""
        if response.HasField("welcome"):
            self._epoch = response.welcome.epoch
        epoch = response.epoch or self._epoch
        if self._gate.admits(epoch):
            return True
        logger.warning("outdated_controller epoch %d, %d was seen", epoch, self._gate.seen)
        return False

    def _on_response(self, response: registry_pb2.JoinNodeResponse) -> None:
        match response.WhichOneof("message"):
            case "welcome":
                self.is_joined = True
                self.welcomed.set()
            case "start_replica":
                self._machine.start_replica(ReplicaLaunch.from_proto(response.start_replica.launch))
            case "stop_replica":
                self._machine.stop_replica(response.stop_replica.replica_id, response.stop_replica.grace_s)
            case "build_application":
                self._tasks.spawn(self._build(response.build_application), "build")
            case "leaving_noted":
                self._leaving_noted.set()
            case "evaluate_policy":
                self._tasks.spawn(self._evaluate(response.evaluate_policy), "evaluate policy")
            case _:
                pass

    async def _evaluate(self, command: registry_pb2.EvaluatePolicy) -> None:
        self._put(Request(policy_result=await self._machine.evaluate(command)))

    async def _build(self, command: registry_pb2.BuildApplication) -> None:
        self._put(Request(build_result=await self._machine.build(command)))


def held_by(launch: ReplicaLaunch) -> registry_pb2.HeldReplica:
    """What a replica that was started so holds of its node."""
    source = launch.deployment.code.import_source
    return registry_pb2.HeldReplica(
        replica_id=launch.replica_id,
        app_name=launch.app_name,
        deployment_name=launch.deployment.name,
        version=launch.deployment.version,
        resources=launch.deployment.resources.to_proto(),
        gpu_ids=launch.gpu_ids,
        archive=source.archive if source else "",
        graceful_shutdown_timeout_s=launch.deployment.graceful_shutdown_timeout_s,
    )


def stop_grace_s(held: registry_pb2.HeldReplica) -> float:
    """How long after SIGTERM a replica is killed, if its node is told to end."""
    return float(held.graceful_shutdown_timeout_s) + AFTER_DRAIN_S


OnExit = Callable[[str, int, str], None]
"""Is told of a replica that has ended: (replica id, exit code, last words)."""
