"""Uploaded code on a node."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from slipknot_core.archive import ArchiveError, digest_of, pack
from slipknot_replica import archives
from slipknot_replica.archives import ArchiveCache, default_directory

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio."""
    return "asyncio"


class Cluster:
    """Has archives, and counts how often they are fetched."""

    def __init__(self, directory: Path) -> None:
        self.fetched: list[str] = []
        self._directory = directory
        self._archives: dict[str, bytes] = {}

    def add(self, word: str) -> str:
        """Another archive; returns its name."""
        source = self._directory / word
        source.mkdir()
        (source / "x.py").write_text(word)
        data = pack(source)
        self._archives[digest_of(data)] = data
        return digest_of(data)

    def damage(self, digest: str) -> None:
        """Change a byte."""
        self._archives[digest] = self._archives[digest][:-1] + b"x"

    async def fetch(self, digest: str) -> AsyncIterator[bytes]:
        """As the controller does."""
        self.fetched.append(digest)
        if digest not in self._archives:
            raise ArchiveError("no such archive")
        data = self._archives[digest]
        for at in range(0, len(data), 50):
            await asyncio.sleep(0)
            yield data[at : at + 50]


async def test_fetched_once_for_all(tmp_path: Path) -> None:
    """By whoever wants it at one time or later, also after a restart; nobody else can read it."""
    cluster = Cluster(tmp_path)
    digest = cluster.add("one")
    cache = ArchiveCache(tmp_path / "cache", cluster.fetch)
    paths = await asyncio.gather(*(cache.path(digest) for _ in range(5)))
    assert {path.read_text() for path in (p / "x.py" for p in paths)} == {"one"}
    cache.close()
    cache.close()
    again = ArchiveCache(tmp_path / "cache", cluster.fetch)
    assert await again.path(digest) == paths[0]
    assert cluster.fetched == [digest]
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
    again.close()


async def test_several_agents_at_one_time(tmp_path: Path) -> None:
    """Each may fetch it; the first one's stays."""
    cluster = Cluster(tmp_path)
    digest = cluster.add("one")
    caches = [ArchiveCache(tmp_path / "cache", cluster.fetch) for _ in range(3)]
    paths = await asyncio.gather(*(cache.path(digest) for cache in caches))
    assert len(set(paths)) == 1 and (paths[0] / "x.py").read_text() == "one"
    assert sorted(p.suffix for p in (tmp_path / "cache").iterdir()) == ["", ".lock"]
    for cache in caches:
        cache.close()


async def test_what_is_not_what_it_says(tmp_path: Path) -> None:
    """Unknown, damaged, no name at all: an error each time, and nothing stays behind."""
    cluster = Cluster(tmp_path)
    cache = ArchiveCache(tmp_path / "cache", cluster.fetch)
    damaged = cluster.add("one")
    cluster.damage(damaged)
    for digest in (damaged, "0" * 64, "../../etc", ""):
        with pytest.raises(ArchiveError):
            await cache.path(digest)
    assert not [p for p in (tmp_path / "cache").iterdir() if p.suffix != ".lock"]
    cache.close()


async def test_the_oldest_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that no replica uses, here or by another agent on this machine."""
    monkeypatch.setattr(archives, "MAX_KEPT", 2)
    cluster = Cluster(tmp_path)
    mine = ArchiveCache(tmp_path / "cache", cluster.fetch)
    other = ArchiveCache(tmp_path / "cache", cluster.fetch)
    digests = [cluster.add(word) for word in ("others", "used", "unused", "new")]
    for age, digest in enumerate(digests[:3]):
        path = await (other if age == 0 else mine).path(digest, digests)
        os.utime(path, (age, age))
    await mine.path(digests[3], [digests[1]])
    left = {p.name for p in (tmp_path / "cache").iterdir() if p.is_dir()}
    assert left == {digests[0], digests[1], digests[3]}
    mine.close()
    other.close()


def test_where_it_is(tmp_path: Path) -> None:
    """In the user's cache directory if there can be one."""
    assert default_directory({"XDG_CACHE_HOME": f"{tmp_path}/c"}) == tmp_path / "c/slipknot/archives"
    assert default_directory({"HOME": str(tmp_path)}) == tmp_path / ".cache/slipknot/archives"
    assert default_directory({}).name == f"slipknot-{os.geteuid()}-archives"
    assert default_directory({"HOME": "/nonexistent"}).name == f"slipknot-{os.geteuid()}-archives"
