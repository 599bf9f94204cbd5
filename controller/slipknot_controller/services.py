"""`ControllerService` for people and programs, `DiscoveryService` for everyone who routes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from slipknot_core.errors import PermissionDeniedError
from slipknot_core.ids import DeploymentId
from slipknot_core.rpc.access import caller_role
from slipknot_core.rpc.roles import Role
from slipknot_core.spec import ApplicationSpec
from slipknot_proto.v1 import controller_pb2, controller_pb2_grpc, discovery_pb2, discovery_pb2_grpc

from .coordinator import Coordinator


class ControllerService(controller_pb2_grpc.ControllerServiceServicer):
    """Desired state in, status out. Sets `shut_down` after a `ShutdownCluster`."""

    def __init__(self, coordinator: Coordinator, shut_down: asyncio.Event) -> None:
        self._coordinator = coordinator
        self._applications = coordinator.applications
        self._shut_down = shut_down

    async def DeployApplication(self, request: Any, context: Any) -> Any:
        """As documented in controller.proto."""
        try:
            generation = await self._applications.deploy(ApplicationSpec.from_proto(request.application))
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return controller_pb2.DeployApplicationResponse(generation=generation)

    async def DeleteApplication(self, request: Any, context: Any) -> Any:
        """As documented in controller.proto."""
        return controller_pb2.DeleteApplicationResponse(existed=await self._applications.delete(request.name))

    async def ApplyConfig(self, request: Any, context: Any) -> Any:
        """As documented in controller.proto."""
        try:
            generation = await self._applications.apply_config(request.config_json)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return controller_pb2.ApplyConfigResponse(generation=generation)

    async def GetConfig(self, request: Any, context: Any) -> Any:
        """As documented in controller.proto."""
        return controller_pb2.GetConfigResponse(config_json=self._applications.config_json)

    async def GetStatus(self, request: Any, context: Any) -> Any:
        """As documented in controller.proto."""
        return controller_pb2.GetStatusResponse(status=self._coordinator.status())

    async def WatchStatus(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """As documented in controller.proto."""
        async for status in self._coordinator.statuses.watch():
            yield controller_pb2.WatchStatusResponse(status=status)

    async def ScaleDeployment(self, request: Any, context: Any) -> Any:
        """As documented in controller.proto."""
        deployment_id = DeploymentId(request.app_name, request.deployment_name)
        try:
            await self._applications.scale(deployment_id, request.num_replicas)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return controller_pb2.ScaleDeploymentResponse()

    async def ShutdownCluster(self, request: Any, context: Any) -> Any:
        """As documented in controller.proto."""
        await self._coordinator.delete_everything()
        self._shut_down.set()
        return controller_pb2.ShutdownClusterResponse()


class DiscoveryService(discovery_pb2_grpc.DiscoveryServiceServicer):
    """Snapshots for routers. A proxy that watches is a member for as long as it does."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """As documented in discovery.proto."""
        proxy = request.proxy if request.HasField("proxy") else None
        if proxy is not None and caller_role.get() is not Role.MEMBER:
            # Deployers tell their credentials to the proxies that they are told of.
            raise PermissionDeniedError(f"a proxy needs the role {Role.MEMBER}")
        if proxy is not None:
            self._coordinator.proxy_joined(proxy)
        try:
            async for snapshot in self._coordinator.snapshots.watch():
                yield discovery_pb2.WatchResponse(snapshot=snapshot)
        finally:
            if proxy is not None:
                self._coordinator.proxy_left(proxy)

    async def ReportDemand(self, request: Any, context: Any) -> Any:
        """As documented in discovery.proto."""
        queued = {DeploymentId(q.app_name, q.deployment_name): q.count for q in request.queued if q.count}
        self._coordinator.autoscaler.reported(request.caller, queued)
        return discovery_pb2.ReportDemandResponse()
