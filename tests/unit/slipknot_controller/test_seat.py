"""When a controller may be asked to lead."""

import asyncio
import builtins

import pytest

from slipknot_controller.coordinator import Coordinator
from slipknot_controller.leadership import Term
from slipknot_controller.seat import Seat
from slipknot_controller.store import Entry, MemoryStore, StoreUnavailable
from slipknot_core.errors import NotLeaderError

pytestmark = pytest.mark.anyio

WAIT_S = 30.0


class SlowStore(MemoryStore):
    """Lists nothing before it may."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked = asyncio.Event()
        self.may_list = asyncio.Event()
        self.failure: Exception | None = None

    async def list(self, prefix: str) -> builtins.list[Entry]:
        self.is_asked.set()
        await self.may_list.wait()
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        return await super().list(prefix)


class Election:
    """Is always won; counts the terms."""

    is_certain = False
    leader_address = "somewhere:1"

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.terms: list[Term] = []

    async def campaign(self) -> Term:
        self.terms.append(Term(len(self.terms) + 1, self.store))
        return self.terms[-1]

    async def close(self) -> None:
        pass


def make(term: Term) -> Coordinator:
    return Coordinator(term.store, "here:1", term=term)


async def until_it_leads(seat: Seat) -> Coordinator:
    async with asyncio.timeout(WAIT_S):
        while seat.coordinator is None:
            await asyncio.sleep(0.005)
    return seat.leading()


async def test_a_controller_leads_once_it_has_read_what_is_stored() -> None:
    """Before that it would send away members that it does not know yet."""
    store = SlowStore()
    seat = Seat(Election(store), make)
    await seat.start()
    await asyncio.wait_for(store.is_asked.wait(), WAIT_S)
    with pytest.raises(NotLeaderError) as refusal:
        seat.leading()
    assert refusal.value.leader_address == "somewhere:1"
    store.may_list.set()
    assert (await until_it_leads(seat)).epoch == 1
    await seat.stop()
    assert seat.coordinator is None


async def test_a_term_that_is_lost_is_followed_by_another_with_a_coordinator_of_its_own() -> None:
    """It stops to lead at once, not when it has been tidied up."""
    store = SlowStore()
    store.may_list.set()
    election = Election(store)
    seat = Seat(election, make)
    await seat.start()
    first = await until_it_leads(seat)
    election.terms[0].lose("the test wants it")
    assert seat.coordinator is None and not first.is_leading()
    second = await until_it_leads(seat)
    assert second is not first and second.epoch > first.epoch
    await seat.stop()


async def test_a_term_that_cannot_begin_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """And tried again a little later."""
    monkeypatch.setattr("slipknot_controller.seat.RETRY_PAUSE_S", 0.0)
    store = SlowStore()
    store.may_list.set()
    store.failure = StoreUnavailable("not now")
    election = Election(store)
    seat = Seat(election, make)
    await seat.start()
    assert (await until_it_leads(seat)).epoch == 2
    assert not election.terms[0].is_held()
    await seat.stop()
