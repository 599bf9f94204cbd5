"""What a replica tells the controller before it ends is heard, however late the controller reads."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from slipknot_core.routing.dispatcher import Dispatcher
from slipknot_core.rpc.server import bind, new_server
from slipknot_core.spec import CodeSource, DeploymentSpec, ReplicaLaunch
from slipknot_proto.v1 import registry_pb2, registry_pb2_grpc
from slipknot_replica.registration import Registration
from slipknot_replica.server import ReplicaServer

pytestmark = pytest.mark.anyio

WAIT_S = 30.0


class LateReader(registry_pb2_grpc.RegistryServiceServicer):
    """A controller that welcomes replicas and reads what they report only when it may."""

    def __init__(self) -> None:
        self.welcomed = asyncio.Event()
        self.may_read = asyncio.Event()
        self.failures: list[str] = []
        self.over = asyncio.Event()

    async def JoinReplica(self, request_iterator: AsyncIterator[Any], context: Any) -> None:
        """Note the reason of each failure."""
        try:
            await anext(aiter(request_iterator))
            welcome = registry_pb2.ReplicaWelcome(epoch=1, accepted=True)
            await context.write(registry_pb2.JoinReplicaResponse(epoch=1, welcome=welcome))
            self.welcomed.set()
            await self.may_read.wait()
            async for request in request_iterator:
                if request.state.message:
                    self.failures.append(request.state.message)
        finally:
            self.over.set()


async def test_a_failure_told_last_is_heard(tmp_path: Any) -> None:
    """The replica leaves by ending its half of the stream: a cancellation would overtake what it said."""
    controller, server = LateReader(), new_server()
    address = f"unix:{tmp_path}/controller"
    await bind(server, address)
    registry_pb2_grpc.add_RegistryServiceServicer_to_server(controller, server)
    await server.start()
    dispatcher = Dispatcher(address, watcher="test")
    spec = DeploymentSpec("Model", CodeSource(), version="v1")
    replica = ReplicaServer(ReplicaLaunch("app#Model#1", "app", spec, address, "node"))
    registration = Registration(replica, lambda timeout_s: None, dispatcher.link, dispatcher.gate)
    try:
        await registration.start()
        await asyncio.wait_for(controller.welcomed.wait(), WAIT_S)
        registration.tell_failure(ValueError("no luck today"))
        leaving = asyncio.ensure_future(registration.stop(flush_s=WAIT_S))
        await asyncio.wait((leaving,), timeout=0.2)  # who does not wait to be heard would be gone by then
        controller.may_read.set()
        await asyncio.wait_for(leaving, WAIT_S)
        await asyncio.wait_for(controller.over.wait(), WAIT_S)
    finally:
        await dispatcher.stop()
        await server.stop(None)
    (failure,) = controller.failures
    assert "no luck today" in failure
