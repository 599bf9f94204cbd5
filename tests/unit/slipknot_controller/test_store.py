"""The contract of `StateStore`, run against every store."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from slipknot_controller.store import (
    EtcdClient,
    EtcdOptions,
    EtcdStore,
    MemoryStore,
    RevisionConflict,
    SqliteStore,
    StateStore,
    StoreClosed,
    StoreRefused,
    WatchOverflow,
)
from slipknot_controller.store.interface import ABSENT, WATCH_QUEUE_LENGTH, raise_counter
from tests.support.etcd import EtcdCluster, new_prefix, start_etcd

# The first test of an etcd store starts its cluster.
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio."""
    return "asyncio"


@pytest.fixture(scope="module")
def one_member() -> Iterator[EtcdCluster]:
    """etcd with one member."""
    with start_etcd(1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def three_members() -> Iterator[EtcdCluster]:
    """etcd with three members."""
    with start_etcd(3) as cluster:
        yield cluster


@pytest.fixture(params=["memory", "sqlite", "etcd-1", "etcd-3"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StateStore]:
    """An empty store of each kind."""
    store: StateStore
    match request.param:
        case "memory":
            store = MemoryStore()
        case "sqlite":
            store = await SqliteStore.open(tmp_path / "state.db")
        case "etcd-1":
            store = etcd_store(request.getfixturevalue("one_member"))
        case _:
            store = etcd_store(request.getfixturevalue("three_members"))
    yield store
    await store.close()


def etcd_store(cluster: EtcdCluster) -> EtcdStore:
    """An empty store in a cluster."""
    options = EtcdOptions(cluster.endpoints, call_timeout_s=20.0)
    return EtcdStore(EtcdClient(options), new_prefix(), owns_client=True)


async def test_get_returns_what_was_set(store: StateStore) -> None:
    """A key that was set is read back with the revision of the change."""
    revision = await store.compare_and_swap("a", b"1", ABSENT)
    entry = await store.get("a")
    assert entry is not None
    assert (entry.key, entry.value, entry.revision) == ("a", b"1", revision)
    assert await store.get("b") is None


async def test_compare_and_swap_refuses_a_stale_revision(store: StateStore) -> None:
    """Of two writers that read the same revision the second one fails and changes nothing."""
    first = await store.compare_and_swap("a", b"1", ABSENT)
    second = await store.compare_and_swap("a", b"2", first)
    with pytest.raises(RevisionConflict) as conflict:
        await store.compare_and_swap("a", b"3", first)
    assert (conflict.value.expected, conflict.value.actual) == (first, second)
    with pytest.raises(RevisionConflict):
        await store.compare_and_swap("a", b"3", ABSENT)
    entry = await store.get("a")
    assert entry is not None and entry.value == b"2"


async def test_compare_and_swap_refuses_to_revive_a_deleted_key(store: StateStore) -> None:
    """A revision of a deleted key fits nothing any more."""
    revision = await store.compare_and_swap("a", b"1", ABSENT)
    assert await store.delete("a")
    with pytest.raises(RevisionConflict):
        await store.compare_and_swap("a", b"2", revision)


async def test_revisions_grow_over_all_keys(store: StateStore) -> None:
    """One revision counts the changes of the whole store, deletions too."""
    first = await store.compare_and_swap("a", b"", ABSENT)
    second = await store.compare_and_swap("b", b"", ABSENT)
    await store.delete("a")
    third = await store.compare_and_swap("a", b"", ABSENT)
    assert first < second < third and third >= second + 2


async def test_list_returns_a_prefix_in_order(store: StateStore) -> None:
    """Only keys that begin with the prefix are listed, ordered, with LIKE wildcards taken literally."""
    for key in ("apps/b", "apps/a", "apps%x", "other"):
        await store.compare_and_swap(key, key.encode(), ABSENT)
    assert [entry.key for entry in await store.list("apps/")] == ["apps/a", "apps/b"]
    assert [entry.key for entry in await store.list("apps%")] == ["apps%x"]
    assert len(await store.list("")) == 4


async def test_delete_tells_whether_there_was_anything(store: StateStore) -> None:
    """Deleting a missing key is no error; an expected revision is checked."""
    revision = await store.compare_and_swap("a", b"1", ABSENT)
    with pytest.raises(RevisionConflict):
        await store.delete("a", revision + 1)
    assert await store.delete("a", revision)
    assert not await store.delete("a")


async def test_watch_reports_changes_in_order(store: StateStore) -> None:
    """A watcher sees each set and each deletion below its prefix, and nothing else."""
    async with store.watch("apps/") as changes:
        await store.compare_and_swap("other", b"", ABSENT)
        revision = await store.compare_and_swap("apps/a", b"1", ABSENT)
        await store.compare_and_swap("apps/a", b"2", revision)
        await store.delete("apps/a")
        seen = [await asyncio.wait_for(anext(changes), 5) for _ in range(3)]
    assert [(change.key, change.value) for change in seen] == [
        ("apps/a", b"1"),
        ("apps/a", b"2"),
        ("apps/a", None),
    ]
    assert seen[0].revision == revision < seen[1].revision < seen[2].revision


async def test_watch_tells_a_slow_watcher_to_start_again(store: StateStore) -> None:
    """A watcher that is too far behind gets an error instead of a gap; one that keeps up sees everything."""
    count = WATCH_QUEUE_LENGTH + 1
    async with store.watch("") as slow, store.watch("") as fast:
        for start in range(0, count, 64):
            keys = [f"key-{number}" for number in range(start, min(start + 64, count))]
            await asyncio.gather(*(store.compare_and_swap(key, b"", ABSENT) for key in keys))
            seen = {(await asyncio.wait_for(anext(fast), 20)).key for _ in keys}
            assert seen == set(keys)
        with pytest.raises(WatchOverflow):
            await asyncio.wait_for(anext(slow), 20)


async def test_watch_begins_when_the_context_is_entered(store: StateStore) -> None:
    """What was changed before is not reported, whether there was a watcher already or not."""
    revision = await store.compare_and_swap("a", b"before", ABSENT)
    async with store.watch("") as first:
        revision = await store.compare_and_swap("a", b"1", revision)
        async with store.watch("") as second:
            await store.compare_and_swap("a", b"2", revision)
            assert [(await asyncio.wait_for(anext(first), 5)).value for _ in range(2)] == [b"1", b"2"]
            assert (await asyncio.wait_for(anext(second), 5)).value == b"2"


async def test_watch_ends_when_the_store_is_closed(store: StateStore) -> None:
    """Closing ends watchers and refuses further use; closing twice is fine."""
    async with store.watch("") as changes:
        await store.close()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(anext(changes), 5)
    await store.close()
    with pytest.raises(StoreClosed):
        await store.get("a")


async def test_concurrent_counters_never_repeat(store: StateStore) -> None:
    """Every caller of `raise_counter` gets a number of its own, above the floor it named."""
    numbers = await asyncio.gather(*(raise_counter(store, "epoch") for _ in range(8)))
    assert sorted(numbers) == list(range(1, 9))
    assert await raise_counter(store, "epoch", at_least=100) == 101


async def test_sqlite_keeps_its_content_over_a_restart(tmp_path: Path) -> None:
    """What was set is there, with its revision, when the file is opened again."""
    store = await SqliteStore.open(tmp_path / "state.db")
    revision = await store.compare_and_swap("a", b"1", ABSENT)
    await store.close()
    again = await SqliteStore.open(tmp_path / "state.db")
    entry = await again.get("a")
    assert entry is not None and (entry.value, entry.revision) == (b"1", revision)
    assert await again.compare_and_swap("b", b"", ABSENT) > revision
    await again.close()


async def test_sqlite_refuses_a_file_that_is_no_database(tmp_path: Path) -> None:
    """The error names the file."""
    path = tmp_path / "state.db"
    path.write_bytes(b"this is certainly no database, whatever its name says" * 20)
    with pytest.raises(OSError, match=r"state\.db"):
        await SqliteStore.open(path)


@pytest.mark.parametrize("is_replaced", [False, True])
async def test_sqlite_refuses_changes_of_a_file_that_is_gone(tmp_path: Path, is_replaced: bool) -> None:
    """They would be lost with the process; what is known already can be read."""
    path = tmp_path / "state.db"
    store = await SqliteStore.open(path)
    await store.compare_and_swap("a", b"1", ABSENT)
    path.rename(tmp_path / "moved")
    if is_replaced:
        path.touch()
    with pytest.raises(StoreRefused, match=r"state\.db' was deleted or replaced"):
        await store.compare_and_swap("b", b"", ABSENT)
    with pytest.raises(StoreRefused, match="deleted or replaced"):
        await store.delete("a")
    entry = await store.get("a")
    assert entry is not None and entry.value == b"1"
    (tmp_path / "moved").rename(path)
    await store.compare_and_swap("b", b"", ABSENT)
    await store.close()
