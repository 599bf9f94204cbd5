"""Desired state when the store fails, and what a standby tells of it."""

import pytest

from slipknot_controller.applications import Applications
from slipknot_controller.standby import Standby
from slipknot_controller.store import Fenced, MemoryStore, RevisionConflict, StoreRefused, StoreUnavailable
from slipknot_core.errors import ControllerUnavailableError, NotLeaderError, StateNotStoredError
from slipknot_core.rpc.credentials import NO_CREDENTIALS
from slipknot_core.spec import ApplicationSpec, CodeSource, DeploymentSpec

pytestmark = pytest.mark.anyio


class FailingStore(MemoryStore):
    """Raises `failure` instead of changing something, if there is one."""

    failure: Exception | None = None

    async def compare_and_swap(self, key: str, value: bytes, expected_revision: int) -> int:
        if self.failure is not None:
            raise self.failure
        return await super().compare_and_swap(key, value, expected_revision)


def spec(name: str = "app", version: str = "") -> ApplicationSpec:
    return ApplicationSpec(name, "Model", (DeploymentSpec("Model", CodeSource(b"x"), version=version),), "/")


@pytest.mark.parametrize(
    ("failure", "seen"),
    [
        (StoreUnavailable("no answer"), ControllerUnavailableError),
        (Fenced("another one"), NotLeaderError),
        (RevisionConflict("key", 1, 2), ControllerUnavailableError),
    ],
)
async def test_a_change_that_is_in_doubt_ends_the_term(failure: Exception, seen: type[Exception]) -> None:
    """The client is told to ask again; memory stays what it was; whoever holds the term is told."""
    store, doubts = FailingStore(), list[str]()
    applications = Applications(store, lambda _: None, doubts.append)
    await applications.deploy(spec())
    before = dict(applications.records)
    store.failure = failure
    with pytest.raises(seen):
        await applications.deploy(spec())
    assert applications.records == before and len(doubts) == 1
    await applications.stop()


async def test_a_change_that_the_store_refuses_changes_nothing() -> None:
    """The client is told in words, and what comes next is made as if nothing had been asked for."""
    store, doubts = FailingStore(), list[str]()
    applications = Applications(store, lambda _: None, doubts.append)
    await applications.deploy(spec())
    before = dict(applications.records)
    store.failure = StoreRefused("the disk is full")
    with pytest.raises(StateNotStoredError, match="the disk is full"):
        await applications.deploy(spec())
    assert applications.records == before and doubts == []
    store.failure = None
    await applications.deploy(spec())
    await applications.stop()


async def test_a_deploy_with_the_id_of_the_newest_one_is_not_made_again() -> None:
    """Also after a restart; the same content without an id is a new deploy."""
    store = MemoryStore()
    applications = Applications(store, lambda _: None)
    first = await applications.deploy(spec(), "one")
    assert await applications.deploy(spec(), "one") == first
    again = Applications(store, lambda _: None)
    await again.load()
    assert await again.deploy(spec(), "one") == first
    second = await again.deploy(spec(), "two")
    assert second > first and await again.deploy(spec(), "one") > second
    assert await again.deploy(spec()) < await again.deploy(spec())
    await applications.stop()
    await again.stop()


async def test_a_config_with_the_id_of_the_last_one_is_not_applied_again() -> None:
    store = MemoryStore()
    config = '{"applications": [{"name": "app", "import_path": "module:app"}]}'
    applications = Applications(store, lambda _: None)
    first = await applications.apply_config(config, "one")
    again = Applications(store, lambda _: None)
    await again.load()
    assert await again.apply_config(config, "one") == first
    assert await again.apply_config(config, "two") > first
    await applications.stop()
    await again.stop()


async def test_a_standby_without_a_leader_tells_what_is_stored() -> None:
    """And that nobody leads."""
    store = MemoryStore()
    applications = Applications(store, lambda _: None)
    await applications.deploy(spec())
    await applications.apply_config('{"applications": []}')
    standby = Standby(store, NO_CREDENTIALS, "here:1")
    status = await standby.status("")
    assert [a.name for a in status.applications] == ["app"]
    assert (status.leader_address, status.answered_by) == ("", "here:1")
    assert await standby.config_json() == '{"applications": []}'
    assert [s async for s in standby.statuses("")] == [status]
    await standby.close()
    await applications.stop()
