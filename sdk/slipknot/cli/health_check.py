"""`slipknot health`: ask one process of a cluster whether it serves, by grpc.health.v1."""

import asyncio

import grpc.aio
import typer

from slipknot_core.rpc.channel import new_channel
from slipknot_core.settings import cluster_settings

CHECK = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"
"""The answer as it travels; reading it by hand spares a check every few seconds the messages' library."""


def check_health(address: str, timeout_s: float) -> int:
    """0 if it serves, else 1 with the reason on standard error."""
    reason = asyncio.run(_why_not(address, timeout_s))
    if reason:
        typer.echo(f"{address} does not serve: {reason}", err=True)
        return 1
    typer.echo(f"{address} serves.")
    return 0


async def _why_not(address: str, timeout_s: float) -> str:
    """Empty if it serves."""
    async with new_channel(address, cluster_settings().credentials) as channel:
        check = channel.unary_unary(CHECK, request_serializer=bytes, response_deserializer=bytes)
        try:
            answer = await check(b"", timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
    return "" if answer == SERVING else "its health says so"
