"""The contract of `StateStore`, run against every store."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from slipknot_controller.store import (
    MemoryStore,
    RevisionConflict,
    SqliteStore,
    StateStore,
    StoreClosed,
    WatchOverflow,
)
from slipknot_controller.store.interface import ABSENT, WATCH_QUEUE_LENGTH, raise_counter

pytestmark = pytest.mark.anyio


async def _memory(_path: Path) -> StateStore:
    return MemoryStore()


async def _sqlite(path: Path) -> StateStore:
    return await SqliteStore.open(path / "state.db")


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio."""
    return "asyncio"


@pytest.fixture(params=[_memory, _sqlite], ids=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StateStore]:
    """An empty store of each kind."""
    make: Callable[[Path], Awaitable[StateStore]] = request.param
    store = await make(tmp_path)
    yield store
    await store.close()


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
    """A watcher that is too far behind gets an error instead of a gap."""
    async with store.watch("") as changes:
        revision = ABSENT
        for number in range(WATCH_QUEUE_LENGTH + 1):
            revision = await store.compare_and_swap("a", str(number).encode(), revision)
        with pytest.raises(WatchOverflow):
            await asyncio.wait_for(anext(changes), 5)


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
