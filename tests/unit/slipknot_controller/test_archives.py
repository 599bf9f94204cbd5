"""Uploaded code in the state store."""

from collections.abc import AsyncIterator

import pytest

from slipknot_controller import archives
from slipknot_controller.archives import Archives, used_archives
from slipknot_controller.desired import ApplicationRecord, Build
from slipknot_controller.store import MemoryStore
from slipknot_controller.store.interface import ABSENT
from slipknot_core.archive import ArchiveError, digest_of
from slipknot_core.spec import ApplicationSpec, CodeSource, DeploymentSpec, ImportSource

pytestmark = pytest.mark.anyio
DATA = bytes(range(256)) * 100
DIGEST = digest_of(DATA)


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio."""
    return "asyncio"


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that there are many."""
    monkeypatch.setattr(archives, "CHUNK_BYTES", 1000)


async def sent(data: bytes) -> AsyncIterator[bytes]:
    """An upload."""
    for at in range(0, len(data), 700):
        yield data[at : at + 700]


async def read(store: Archives, digest: str = DIGEST) -> bytes:
    """A download."""
    return b"".join([chunk async for chunk in store.read(digest)])


async def test_there_and_back() -> None:
    """Also twice, and for another controller with the same store."""
    store = MemoryStore()
    first = Archives(store)
    assert not await first.renew(DIGEST)
    await first.put(DIGEST, sent(DATA))
    await first.put(DIGEST, sent(DATA))
    assert await Archives(store).renew(DIGEST)
    assert await read(Archives(store)) == DATA


async def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other bytes than its name says, a name that is none, too much; nothing is stored."""
    store = MemoryStore()
    kept = Archives(store)
    for digest in (digest_of(b"other"), "x", ""):
        with pytest.raises(ArchiveError):
            await kept.put(digest, sent(DATA))
    monkeypatch.setattr(archives, "MAX_ARCHIVE_BYTES", 1000)
    with pytest.raises(ArchiveError, match="1,000 bytes"):
        await kept.put(DIGEST, sent(DATA))
    with pytest.raises(ArchiveError, match="has no archive"):
        await read(kept)
    assert await store.list("archive") == []


async def test_an_upload_that_was_broken_off_goes_on() -> None:
    """A head without all chunks is no archive; what is there is used."""
    store = MemoryStore()
    kept = Archives(store)
    await store.compare_and_swap(f"archive-chunks/{DIGEST}/000000", DATA[:1000], ABSENT)
    await store.compare_and_swap(
        f"archive-heads/{DIGEST}", b'{"chunks": 26, "is_complete": false, "at_s": 0}', ABSENT
    )
    assert not await kept.renew(DIGEST)
    with pytest.raises(ArchiveError):
        await read(kept)
    await kept.put(DIGEST, sent(DATA))
    assert await read(kept) == DATA


async def test_what_nobody_uses_goes_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before, and not what an application is made of."""
    store = MemoryStore()
    kept = Archives(store)
    await kept.put(DIGEST, sent(DATA))
    await kept.collect(set())
    assert await read(kept) == DATA
    monkeypatch.setattr(archives, "KEEP_S", 0.0)
    await kept.collect({DIGEST})
    assert await read(kept) == DATA
    await kept.collect(set())
    assert await store.list("archive") == []


def test_what_applications_use() -> None:
    """What they are built from, what runs, and what is on its way out."""

    def deployment(archive: str) -> DeploymentSpec:
        source = ImportSource("m:app", archive=archive)
        return DeploymentSpec(archive or "none", CodeSource(import_source=source))

    record = ApplicationRecord(
        "app",
        1,
        0.0,
        spec=ApplicationSpec("app", "a", (deployment("a"), deployment(""))),
        build=Build(ImportSource("m:app", archive="b")),
        retiring=(deployment("c"), DeploymentSpec("d", CodeSource(pickle=b"x"))),
    )
    assert used_archives([record, ApplicationRecord("empty", 1, 0.0)]) == {"a", "b", "c"}
