"""Who leads, on real etcd servers: one at a time, found soon, and fenced off afterwards."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise

import pytest

from slipknot_controller.leadership import LEASE_TTL_S, MARGIN_S, EtcdElection, Term
from slipknot_controller.store import EtcdClient, EtcdOptions, EtcdStore, Fenced
from slipknot_controller.store.etcd_client import LEASE_REVOKE
from slipknot_controller.store.interface import ABSENT, raise_counter
from slipknot_proto.etcd.v1 import etcd_pb2
from tests.support.etcd import EtcdCluster, new_prefix, start_etcd

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]

SOON_S = 20.0
"""Far beyond what is promised: this machine may be busy."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[EtcdCluster]:
    """Three members."""
    with start_etcd(3) as cluster:
        yield cluster


class Candidate:
    """A controller as far as elections see it."""

    def __init__(self, cluster: EtcdCluster, prefix: str, name: str) -> None:
        self.client = EtcdClient(EtcdOptions(cluster.endpoints))
        self.store = EtcdStore(self.client, prefix)
        self.election = EtcdElection(self.client, self.store, prefix, name)

    async def leads(self) -> Term:
        """Its term, when it has one."""
        return await asyncio.wait_for(self.election.campaign(), SOON_S)

    async def die(self) -> None:
        """Stop renewing and say nothing."""
        await self.election._tasks.stop()

    async def close(self) -> None:
        await self.election.close()
        await self.store.close()
        await self.client.close()


@pytest.fixture
async def candidates(cluster: EtcdCluster) -> AsyncIterator[list[Candidate]]:
    """Two of one cluster."""
    prefix = new_prefix()
    both = [Candidate(cluster, prefix, name) for name in ("a:1", "b:1")]
    yield both
    for candidate in both:
        await candidate.close()


async def test_one_leads_and_the_other_when_it_resigns(candidates: list[Candidate]) -> None:
    """The second waits, knows the first, and follows it at once; the mark of its term is larger."""
    a, b = candidates
    first = await a.leads()
    waiting = asyncio.create_task(b.leads())
    while b.election.leader_address != "a:1":
        await asyncio.sleep(0.01)
    assert not waiting.done() and first.is_held()
    resigned_s = time.monotonic()
    await a.election.close()
    second = await waiting
    print(f"after a resignation: {(time.monotonic() - resigned_s) * 1000:.0f} ms")  # noqa: T201
    assert second.revision > first.revision
    assert (b.election.leader_address, first.is_held(), second.is_held()) == ("b:1", False, True)


async def test_a_leader_that_dies_has_stopped_acting_before_its_successor_begins(
    candidates: list[Candidate],
) -> None:
    """Between the two terms there is a gap, not an overlap; changes of the former one are refused."""
    a, b = candidates
    first = await a.leads()
    revision = await first.store.compare_and_swap("k", b"first", ABSENT)
    waiting = asyncio.create_task(b.leads())
    await asyncio.sleep(0.2)
    died_s = time.monotonic()
    await a.die()
    await asyncio.wait_for(first.lost.wait(), SOON_S)
    lost_s = time.monotonic()
    assert not waiting.done()
    second = await waiting
    print(f"after a death: {time.monotonic() - died_s:.2f} s, gap {time.monotonic() - lost_s:.2f} s")  # noqa: T201
    with pytest.raises(Fenced):
        await first.store.compare_and_swap("k", b"too late", revision)
    assert await second.store.compare_and_swap("k", b"second", revision) > revision
    epochs = [await raise_counter(second.store, "epoch", at_least=second.revision - 1)]
    with pytest.raises(Fenced):
        await raise_counter(first.store, "epoch", at_least=first.revision - 1)
    assert epochs == [second.revision]


async def test_a_leader_whose_lease_or_key_is_taken_away_stops(candidates: list[Candidate]) -> None:
    """It hears of it by the watch, and can win again."""
    a, _ = candidates
    term = await a.leads()
    revoke = etcd_pb2.LeaseRevokeRequest(ID=a.election._lease_id)
    await a.client.call(LEASE_REVOKE, revoke)
    await asyncio.wait_for(term.lost.wait(), SOON_S)
    again = await a.leads()
    assert again.revision > term.revision and again.is_held()


@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_at_most_one_leads_whatever_happens_to_etcd(
    cluster: EtcdCluster, candidates: list[Candidate], fault: str
) -> None:
    """The leader of etcd is lost and comes back: somebody leads, and terms never overlap."""
    terms: list[tuple[float, float]] = []

    async def reign(candidate: Candidate) -> None:
        while True:
            term = await candidate.election.campaign()
            began_s = time.monotonic()
            try:
                await term.lost.wait()
            finally:
                terms.append((began_s, time.monotonic()))

    reigns = [asyncio.create_task(reign(candidate)) for candidate in candidates]
    try:
        await _somebody_leads(candidates)
        (cluster.kill if fault == "kill" else cluster.freeze)(cluster.leader())
        await asyncio.sleep(LEASE_TTL_S)
        await _somebody_leads(candidates)
    finally:
        cluster.heal()
    await _somebody_leads(candidates)
    for task in reigns:
        task.cancel()
    await asyncio.gather(*reigns, return_exceptions=True)
    terms.sort()
    print(f"{fault} of etcd's leader: {len(terms)} terms")  # noqa: T201
    assert terms and all(before[1] <= after[0] for before, after in pairwise(terms))


async def _somebody_leads(candidates: list[Candidate]) -> None:
    async with asyncio.timeout(SOON_S):
        while not any(c.election._term is not None and c.election._term.is_held() for c in candidates):
            await asyncio.sleep(0.02)


async def test_a_term_ends_on_the_clock_whatever_else_happens() -> None:
    """Whoever asks after the lease may have lapsed is told no, even if no timer has run since."""
    now_s = 100.0
    term = Term(1, None, expires_s=now_s + 1.0, clock=lambda: now_s)  # type: ignore[arg-type]
    assert term.is_held() and term.left_s() == 1.0
    term.extend(now_s + LEASE_TTL_S - MARGIN_S)
    now_s = 101.7
    assert term.is_held()
    now_s = 101.75
    assert not term.is_held() and term.lost.is_set()
    term.extend(now_s + 100)
    assert not term.is_held()
