"""What this process asks of the controller: deploy and wait, delete and wait, status. Coroutines on the
connection's loop.
"""

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from slipknot_core.deadline import Deadline
from slipknot_core.errors import ControllerUnavailableError, NotLeaderError
from slipknot_core.rpc.channel import never_connected, translate_error
from slipknot_core.rpc.credentials import NO_CREDENTIALS
from slipknot_core.spec import ApplicationSpec
from slipknot_proto.v1 import controller_pb2

if TYPE_CHECKING:
    from ._connection import Connection

logger = logging.getLogger("slipknot.serve")

RPC_TIMEOUT_S = 30.0
"""For one call to the controller."""

RETRY_PAUSE_S = 0.05
"""Before a call is made again."""

WATCH_AGAIN_S = 0.2
"""Before a watch that has ended is begun again."""

SHUTDOWN_TIMEOUT_S = 60.0
"""For all applications to drain."""

NEWS_TIMEOUT_S = 10.0
"""For the news of a change to reach this process and the proxies."""

PROXY_POLL_S = 0.005
"""Between two looks at a proxy's routes."""

Status = controller_pb2.ClusterStatus


OnStatus = Callable[[Status], None]
"""Is shown each status while one waits."""


async def deploy_all(
    connection: "Connection",
    specs: Sequence[ApplicationSpec],
    *,
    wait: bool = True,
    on_status: OnStatus | None = None,
) -> None:
    """Deploy applications and wait until all serve.

    Raises:
        SlipknotServeException: The controller refused one.
        RuntimeError: One failed to deploy.
    """
    generations = {}
    for spec in specs:
        # The id lets the controller know this deploy again: it can be asked for twice.
        request = controller_pb2.DeployApplicationRequest(
            application=spec.to_proto(), deploy_id=secrets.token_hex(16)
        )
        response = await call(connection, "DeployApplication", request, again=True)
        generations[spec.name] = response.generation
    if wait:
        await _wait_until_deployed(connection, generations, on_status)


async def apply_config(
    connection: "Connection", config_json: str, *, wait: bool = True, on_status: OnStatus | None = None
) -> None:
    """Make what runs equal to a config and wait until all of it serves; raises as `deploy_all`."""
    request = controller_pb2.ApplyConfigRequest(config_json=config_json, deploy_id=secrets.token_hex(16))
    await call(connection, "ApplyConfig", request, again=True)
    if not wait:
        return
    names = [application.get("name", "default") for application in json.loads(config_json)["applications"]]
    current = {a.name: a.generation for a in (await status(connection)).applications if a.name in names}
    await _wait_until_deployed(connection, current, on_status)


async def shutdown_cluster(connection: "Connection") -> None:
    """Delete all applications and end the cluster's processes."""
    request = controller_pb2.ShutdownClusterRequest()
    try:
        await call(connection, "ShutdownCluster", request, patient=False, timeout_s=SHUTDOWN_TIMEOUT_S)
    except ControllerUnavailableError as error:
        logger.debug("controller_gone %s", error)  # it may be gone before its answer is


async def delete(connection: "Connection", name: str, *, wait: bool = True) -> None:
    """Delete one application and wait until it is gone."""
    request = controller_pb2.DeleteApplicationRequest(name=name)
    response = await call(connection, "DeleteApplication", request, again=True)
    if wait and response.existed:
        await _wait_until_gone(connection, {name})


async def delete_all(connection: "Connection") -> None:
    """Delete every application and wait until all are gone."""
    names = {application.name for application in (await status(connection)).applications}
    for name in names:
        await delete(connection, name, wait=False)
    await _wait_until_gone(connection, names)


async def status(connection: "Connection") -> Status:
    """The cluster's status now."""
    request = controller_pb2.GetStatusRequest()
    response = await call(connection, "GetStatus", request, again=True)
    found: Status = response.status
    return found


async def call(
    connection: "Connection",
    name: str,
    request: Any,
    *,
    again: bool = False,
    patient: bool = True,
    timeout_s: float = RPC_TIMEOUT_S,
) -> Any:
    """One unary call to the leading controller, with our errors and a deadline.

    It follows the leader, also while the leader changes.

    Args:
        connection: To the cluster.
        name: Of the RPC of `ControllerService`.
        request: Its message.
        again: Call again when the controller went away before it answered; for what may be done twice.
        patient: Wait for a controller that is starting.
        timeout_s: For all attempts together.
    """
    link, deadline = connection.dispatcher.link, Deadline.after(timeout_s)
    while True:
        address = link.address
        try:
            return await getattr(connection.controller, name)(request, timeout=deadline.remaining_s())
        except grpc.aio.AioRpcError as error:
            failure = error
        translated = translate_error(failure)
        is_leading = not isinstance(translated, NotLeaderError)
        if is_leading and failure.code() is not grpc.StatusCode.UNAVAILABLE:
            raise translated from None  # the controller's answer: it is not lost
        pause_s = link.lost(address, failure)
        may_call = not is_leading or again or (patient and never_connected(failure))
        if not may_call or deadline.has_expired():
            raise translated from None
        await asyncio.sleep(max(pause_s, RETRY_PAUSE_S))


@asynccontextmanager
async def watch(connection: "Connection") -> AsyncIterator[AsyncIterator[Status]]:
    """The cluster's status now and after each change; survives a restart of the controller."""
    calls: list[Any] = []

    async def statuses() -> AsyncIterator[Status]:
        link = connection.dispatcher.link
        while True:
            address, failure = link.address, None
            watching = connection.controller.WatchStatus(controller_pb2.WatchStatusRequest())
            calls[:] = [watching]
            try:
                async for response in watching:
                    yield response.status
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise translate_error(error) from None
                failure = error
            await asyncio.sleep(max(link.lost(address, failure), WATCH_AGAIN_S))

    iterator = statuses()
    try:
        yield iterator
    finally:
        for watching in calls:
            watching.cancel()
        await iterator.aclose()  # type: ignore[attr-defined]


# --- inside -----------------------------------------------------------------------------------------


async def _wait_until_deployed(
    connection: "Connection", generations: dict[str, int], on_status: OnStatus | None
) -> None:
    async with watch(connection) as statuses:
        async for now in statuses:
            if on_status is not None:
                on_status(now)
            if not generations.keys() <= {application.name for application in now.applications}:
                # Not published yet, or deleted already: what is asked for is never old.
                _check_not_deleted(await status(connection), generations)
            try:
                if all([_is_deployed(now, name, generation) for name, generation in generations.items()]):
                    break
            except RuntimeError:
                await _wait_for_news(connection, now)  # the next request must see that it failed, too
                raise
    await _wait_for_news(connection, now)


def _check_not_deleted(now: Status, names: Iterable[str]) -> None:
    gone = sorted(set(names) - {application.name for application in now.applications})
    if gone:
        raise RuntimeError(f"Deploying application {gone[0]} failed: it was deleted in the meantime")


def _is_deployed(status: Status, name: str, generation: int) -> bool:
    for application in status.applications:
        if application.name == name and application.generation >= generation:
            if application.status == "DELETING":
                raise RuntimeError(f"Deploying application {name} failed: it was deleted in the meantime")
            if application.status == "DEPLOY_FAILED":
                raise RuntimeError(f"Deploying application {name} failed: {application.message}")
            if application.generation > generation:
                raise RuntimeError(
                    f"Deploying application {name} failed: it was deployed again in the meantime"
                )
            return application.status == "RUNNING"
    return False


async def _wait_until_gone(connection: "Connection", names: set[str]) -> None:
    async with watch(connection) as statuses:
        async for now in statuses:
            if not any(application.name in names for application in now.applications):
                break
    await _wait_for_news(connection, now)


async def _wait_for_news(connection: "Connection", status: Status) -> None:
    """Wait until this process and the proxies route as `status` says: the next request must see what was
    done.
    """
    wanted = (status.epoch, status.snapshot_version)
    try:
        await connection.dispatcher.wait_for(lambda s: (s.epoch, s.version) >= wanted, NEWS_TIMEOUT_S)
    except TimeoutError:
        logger.warning("the news of a deployment did not arrive within %.0f s", NEWS_TIMEOUT_S)
    await asyncio.gather(*(_wait_for_proxy(connection, proxy, wanted) for proxy in status.proxies))


async def _wait_for_proxy(
    connection: "Connection", proxy: controller_pb2.ProxyStatus, wanted: tuple[int, int]
) -> None:
    """Ask a proxy until it knows; one that cannot be reached from here is not waited for."""
    gateway_address = proxy.gateway_address
    if not gateway_address:
        return
    from slipknot_core.rpc.channel import new_channel
    from slipknot_proto.v1 import gateway_pb2, gateway_pb2_grpc

    credentials = NO_CREDENTIALS if proxy.gateway_is_open else connection.dispatcher.credentials
    channel = new_channel(gateway_address, credentials)
    try:
        async with asyncio.timeout(NEWS_TIMEOUT_S):
            stub = gateway_pb2_grpc.GatewayServiceStub(channel)
            while True:
                response = await stub.ListApplications(gateway_pb2.ListApplicationsRequest(), timeout=2.0)
                if (response.epoch, response.snapshot_version) >= wanted:
                    return
                await asyncio.sleep(PROXY_POLL_S)
    except (grpc.aio.AioRpcError, TimeoutError) as error:
        logger.debug("proxy %s did not confirm: %r", gateway_address, error)
    finally:
        await channel.close(None)
