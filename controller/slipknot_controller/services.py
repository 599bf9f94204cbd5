"""`ControllerService` for people and programs, `DiscoveryService` for everyone who routes."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from slipknot_core.archive import ArchiveError
from slipknot_core.errors import PermissionDeniedError, StateNotStoredError
from slipknot_core.ids import DeploymentId
from slipknot_core.rpc.access import caller_role
from slipknot_core.rpc.roles import Role
from slipknot_core.spec import ApplicationSpec
from slipknot_proto.v1 import controller_pb2, controller_pb2_grpc, discovery_pb2, discovery_pb2_grpc

from .applications import Applications
from .archives import used_archives
from .coordinator import Coordinator
from .seat import Seat
from .standby import Standby
from .store import StoreRefused

MAX_DEPLOY_ID_LENGTH = 64


class ControllerService(controller_pb2_grpc.ControllerServiceServicer):
    """Desired state in, status out. Sets `shut_down` after a `ShutdownCluster`."""

    def __init__(self, seat: Seat, standby: Standby, shut_down: asyncio.Event) -> None:
        self._seat = seat
        self._standby = standby
        self._shut_down = shut_down

    @property
    def _coordinator(self) -> Coordinator:
        return self._seat.leading()

    @property
    def _applications(self) -> Applications:
        return self._seat.leading().applications

    async def DeployApplication(self, request: Any, context: Any) -> Any:
        """As documented in controller.proto."""
        try:
            generation = await self._applications.deploy(
                ApplicationSpec.from_proto(request.application), _deploy_id(request)
            )
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return controller_pb2.DeployApplicationResponse(generation=generation)

    async def DeleteApplication(self, request: Any, context: Any) -> Any:
        """As documented in controller.proto."""
        return controller_pb2.DeleteApplicationResponse(existed=await self._applications.delete(request.name))

    async def ApplyConfig(self, request: Any, context: Any) -> Any:
        """As documented in controller.proto."""
        try:
            generation = await self._applications.apply_config(request.config_json, _deploy_id(request))
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return controller_pb2.ApplyConfigResponse(generation=generation)

    async def GetConfig(self, request: Any, context: Any) -> Any:
        """As documented in controller.proto."""
        coordinator = self._seat.coordinator
        if coordinator is None:
            return controller_pb2.GetConfigResponse(config_json=await self._standby.config_json())
        return controller_pb2.GetConfigResponse(config_json=coordinator.applications.config_json)

    async def GetLeader(self, request: Any, context: Any) -> Any:
        """As documented in controller.proto."""
        coordinator = self._seat.coordinator
        return controller_pb2.GetLeaderResponse(
            is_leader=coordinator is not None,
            leader_address=self._seat.leader_address,
            epoch=coordinator.epoch if coordinator is not None else 0,
        )

    async def FindArchive(self, request: Any, context: Any) -> Any:
        """As documented in controller.proto."""
        with _store_refusals():
            exists = await self._coordinator.archives.renew(request.digest)
        return controller_pb2.FindArchiveResponse(exists=exists)

    async def UploadArchive(self, request_iterator: AsyncIterator[Any], context: Any) -> Any:
        """As documented in controller.proto."""
        archives = self._coordinator.archives
        first = await anext(aiter(request_iterator), controller_pb2.UploadArchiveRequest())

        async def chunks() -> AsyncIterator[bytes]:
            yield first.data
            async for request in request_iterator:
                yield request.data

        try:
            with _store_refusals():
                await archives.put(first.digest, chunks())
                await archives.collect(used_archives(self._applications.records.values()))
        except ArchiveError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return controller_pb2.UploadArchiveResponse()

    async def GetStatus(self, request: Any, context: Any) -> Any:
        """As documented in controller.proto."""
        coordinator = self._seat.coordinator
        if coordinator is None:
            status = await self._standby.status(self._seat.leader_address)
            return controller_pb2.GetStatusResponse(status=status)
        return controller_pb2.GetStatusResponse(status=coordinator.publisher.status())

    async def WatchStatus(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """As documented in controller.proto."""
        coordinator = self._seat.coordinator
        statuses = (
            self._standby.statuses(self._seat.leader_address)
            if coordinator is None
            else coordinator.publisher.statuses.watch()
        )
        async for status in statuses:
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

    def __init__(self, seat: Seat) -> None:
        self._seat = seat

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """As documented in discovery.proto."""
        coordinator = self._seat.leading()
        await coordinator.hear_epoch(request.seen_epoch)
        proxy = request.proxy if request.HasField("proxy") else None
        if proxy is not None and caller_role.get() is not Role.MEMBER:
            # Deployers tell their credentials to the proxies that they are told of.
            raise PermissionDeniedError(f"a proxy needs the role {Role.MEMBER}")
        if proxy is not None:
            coordinator.publisher.proxy_joined(proxy)
        try:
            async for snapshot in coordinator.publisher.snapshots.watch():
                yield discovery_pb2.WatchResponse(snapshot=snapshot)
        finally:
            if proxy is not None:
                coordinator.publisher.proxy_left(proxy)

    async def ReportDemand(self, request: Any, context: Any) -> Any:
        """As documented in discovery.proto."""
        queued = {DeploymentId(q.app_name, q.deployment_name): q.count for q in request.queued if q.count}
        self._seat.leading().autoscaler.reported(request.caller, queued)
        return discovery_pb2.ReportDemandResponse()


@contextmanager
def _store_refusals() -> Iterator[None]:
    try:
        yield
    except StoreRefused as error:
        raise StateNotStoredError(f"the upload could not be stored: {error}") from None


def _deploy_id(request: Any) -> str:
    if len(request.deploy_id) > MAX_DEPLOY_ID_LENGTH:
        raise ValueError(f"deploy_id has more than {MAX_DEPLOY_ID_LENGTH} characters")
    return str(request.deploy_id)
