"""`slipknot controller-health`: a look at controllers that joins nothing, for health checks."""

import asyncio

import grpc.aio
import typer

from slipknot_core.errors import SlipknotServeException
from slipknot_core.rpc.channel import new_channel, translate_error
from slipknot_core.rpc.controller_link import split_addresses
from slipknot_core.settings import cluster_settings
from slipknot_proto.v1 import controller_pb2, controller_pb2_grpc

from .cluster import NO_CLUSTER, find_controller

TIMEOUT_S = 3.0
"""For an answer."""


def show_controller_health(address: str | None) -> int:
    """Print a line for each controller; 0 if all that are named serve, and somebody leads."""
    found = find_controller(address)
    if not found:
        raise SlipknotServeException(NO_CLUSTER)
    words = asyncio.run(_ask_all(split_addresses(found)))
    for line, _ in words:
        typer.echo(line)
    return 0 if all(is_healthy for _, is_healthy in words) else 1


async def _ask_all(addresses: tuple[str, ...]) -> list[tuple[str, bool]]:
    return list(await asyncio.gather(*map(_ask, addresses)))


async def _ask(address: str) -> tuple[str, bool]:
    channel = new_channel(address, cluster_settings().credentials)
    try:
        stub = controller_pb2_grpc.ControllerServiceStub(channel)
        leader = await stub.GetLeader(controller_pb2.GetLeaderRequest(), timeout=TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        return f"{address}: {translate_error(error)}", False
    finally:
        await channel.close(None)
    if leader.is_leader:
        return f"{address}: leader (epoch {leader.epoch})", True
    if leader.leader_address:
        return f"{address}: standby, the leader is at {leader.leader_address}", True
    return f"{address}: standby, no controller leads", False
