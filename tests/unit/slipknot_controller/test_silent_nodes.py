"""A node goes away: which of its replicas are taken for lost."""

import asyncio
import time

import pytest

from slipknot_controller.desired import Build
from slipknot_controller.engine import NoRoom
from slipknot_controller.leases import Leases, ProveAliveOrder
from slipknot_controller.nodes_engine import LeavingNoted, NodeInfo, NodesEngine
from slipknot_controller.placement import Holding, NodeOffer
from slipknot_core.ids import DeploymentId
from slipknot_core.spec import CodeSource, DeploymentSpec, ImportSource, ReplicaLaunch

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio."""
    return "asyncio"


async def test_replicas_that_neither_answer_nor_are_watched_lose_their_lease() -> None:
    """Who answers keeps it, and so does who cannot answer but whose node is back."""
    leases = Leases()
    silent, answering, blocked = (leases.open(name) for name in ("silent", "answering", "blocked"))
    check = leases.challenge(["silent", "answering", "blocked", "unknown"], lambda name: name == "blocked")
    for lease in (silent, answering, blocked):
        assert await lease.outbox.get() == ProveAliveOrder()
    answering.heard_at_s = time.monotonic() + 1
    check()
    assert await silent.outbox.get() is None  # which ends its stream
    for lease in (answering, blocked):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(lease.outbox.get(), 0.01)
    leases.close()


async def test_a_node_watches_over_the_replicas_it_names_while_it_is_here() -> None:
    """Neither before nor after."""
    engine = NodesEngine()
    holding = Holding("r1", DeploymentId("app", "Model"), "n1")
    session = engine.joined(NodeInfo("n1"), [holding])
    assert engine.is_watched("r1")
    assert not engine.is_watched("r2")
    engine.left(session)
    assert not engine.is_watched("r1")
    engine.joined(NodeInfo("n1"), [holding])
    assert engine.is_watched("r1")
    engine.close()


async def test_a_node_that_leaves_gets_neither_replicas_nor_builds() -> None:
    """Until it has joined anew."""
    engine = NodesEngine()
    session = engine.joined(NodeInfo("n1", offer=NodeOffer("n1")), [])
    engine.leaving(session)
    assert await session.outbox.get() == LeavingNoted()
    launch = ReplicaLaunch("r1", "app", DeploymentSpec("Model", CodeSource()), "", "")
    assert not engine.can_build()
    with pytest.raises(NoRoom, match="no node has joined"):
        engine.ensure(launch)
    with pytest.raises(NoRoom, match="no node has joined"):
        await engine.build("app", Build(ImportSource("m:app")), 1.0)
    engine.joined(NodeInfo("n1", offer=NodeOffer("n1")), [])
    assert (engine.can_build(), engine.ensure(launch)) == (True, "n1")
    engine.close()
