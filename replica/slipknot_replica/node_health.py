"""The node agent's grpc.health.v1, for health checks of its container or unit: SERVING once it has joined a
cluster, and then for as long as it lives; a controller that goes away does not make a node ill.
"""

import asyncio

from slipknot_core.rpc.credentials import Credentials
from slipknot_core.rpc.lasting_server import LastingServer
from slipknot_core.rpc.server import bind, new_server


class NodeHealth:
    """Answers at one address. Belongs to the loop `start` is called on."""

    def __init__(self, address: str, credentials: Credentials) -> None:
        self._address = address
        self._credentials = credentials
        self._server: LastingServer | None = None
        self._turning: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<NodeHealth at {self._address or 'no address'}>"

    async def start(self, joined: asyncio.Event) -> None:
        """Answer NOT_SERVING until `joined` is set; without an address, do nothing.

        Raises:
            OSError: The address is taken or not ours.
            ValueError: It needs credentials.
        """
        if not self._address:
            return
        from grpc_health.v1 import health, health_pb2, health_pb2_grpc

        servicer = health.aio.HealthServicer()
        await servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        self._server = new_server(self._credentials)
        await bind(self._server, self._address, self._credentials)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, self._server)
        await self._server.start()

        async def turn() -> None:
            await joined.wait()
            await servicer.set("", health_pb2.HealthCheckResponse.SERVING)

        self._turning = asyncio.create_task(turn(), name="node health")

    async def stop(self) -> None:
        """Answer no more; twice and before `start` is fine."""
        if self._turning is not None:
            self._turning.cancel()
        if self._server is not None:
            await self._server.stop(0)
