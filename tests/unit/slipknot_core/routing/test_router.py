"""The router's waiting: what it forgets, nobody else remembers."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from slipknot_core.deadline import NEVER
from slipknot_core.ids import DeploymentId
from slipknot_core.routing import router as router_module
from slipknot_core.routing.credit import SpareCredit
from slipknot_core.routing.exchange import Exchange, State
from slipknot_core.routing.router import BUSY_BACKOFF_S, Router
from slipknot_core.routing.snapshot import DeploymentRoute, ReplicaRoute
from slipknot_proto.v1 import replica_pb2

pytestmark = pytest.mark.anyio

ID = DeploymentId("app", "Model")
BUSY = replica_pb2.Refused(reason=replica_pb2.Refused.REASON_BUSY)


def clock(*times_s: float) -> Callable[[], float]:
    """One that tells these times, and the last one for ever."""
    left = list(times_s)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


async def test_a_pause_that_ends_while_the_router_looks_is_not_forgotten(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """The request waited until something else happened to the deployment."""
    router = Router(ID)
    router.update(DeploymentRoute(ID, replicas=(ReplicaRoute("r", f"unix:{tmp_path}/r", "node", 5),)))
    exchange = Exchange(replica_pb2.CallFrame(open={}), NEVER, router, spare=SpareCredit())
    router.submit(exchange)
    ends_s = 1000.0 + BUSY_BACKOFF_S
    now = clock(1000.0, ends_s - 1e-6, ends_s + 1e-6)
    monkeypatch.setattr(router_module, "time", SimpleNamespace(monotonic=now))
    exchange.on_frame(replica_pb2.ReplyFrame(refused=BUSY))
    assert (exchange.state, exchange.attempts) == (State.QUEUED, 1)
    async with asyncio.timeout(5):
        while exchange.attempts < 2:
            await asyncio.sleep(0)
    await router.close()
