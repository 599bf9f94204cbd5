"""A request of a gateway client, without its gRPC."""

import asyncio

import pytest

from slipknot_core.deadline import Deadline
from slipknot_proto.v1 import gateway_pb2
from slipknot_proxy.gateway_cycle import MAX_UNREAD_BYTES, GatewayCycle

WAIT_S = 10.0


@pytest.mark.anyio
async def test_leaving_ends_the_wait_for_the_reader() -> None:
    """Nobody reads any more: a response that waits for that would be under way for ever."""
    cycle = GatewayCycle(gateway_pb2.SendHttpRequestRequest(), None)
    cycle.start(200, (), b"x" * (MAX_UNREAD_BYTES + 1), complete=False)
    assert cycle.is_write_paused
    waiting = asyncio.create_task(cycle.drain(Deadline.after(None)))
    await asyncio.sleep(0)
    assert not waiting.done()
    cycle.disconnect()
    async with asyncio.timeout(WAIT_S):
        await waiting
