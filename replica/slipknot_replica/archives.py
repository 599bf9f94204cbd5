"""Uploaded code on a node: fetched once, checked, unpacked beside the others, kept for next time."""

import asyncio
import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from pathlib import Path

from slipknot_core.archive import MAX_ARCHIVE_BYTES, ArchiveError, is_digest, unpack
from slipknot_core.ids import short_id
from slipknot_core.runtime_dir import make_private

logger = logging.getLogger("slipknot.serve")

MAX_KEPT = 16
"""Archives that stay when no replica uses them."""
FETCH_TIMEOUT_S = 100.0

Fetch = Callable[[str], AsyncIterator[bytes]]
"""The bytes of an archive of this name, from the cluster."""


def default_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """In the user's cache directory, or among the temporary files of a user without one."""
    home = environ.get("XDG_CACHE_HOME") or (
        os.path.join(environ["HOME"], ".cache") if "HOME" in environ else ""
    )
    if home and os.access(os.path.dirname(home.rstrip("/")) or "/", os.W_OK | os.X_OK):
        return Path(home).absolute() / "slipknot" / "archives"
    return Path(tempfile.gettempdir(), f"slipknot-{os.geteuid()}-archives")


class ArchiveCache:
    """Directories by the names of their archives. Several agents may share one. `repr` tells where it is.

    A directory in use is locked by the agent that uses it, so that another agent does not remove it.
    """

    def __init__(self, directory: Path, fetch: Fetch) -> None:
        self._directory = directory
        self._fetch = fetch
        self._fetching: dict[str, asyncio.Task[Path]] = {}
        self._locks: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<ArchiveCache {self._directory}>"

    async def path(self, digest: str, in_use: Collection[str] = ()) -> Path:
        """The directory with the archive's content; fetches it if it is not there.

        Args:
            digest: The archive's name.
            in_use: Archives that replicas on this node use; others may be removed for this one.

        Raises:
            ArchiveError: The cluster has no such archive, or it is damaged or not allowed.
            OSError: It cannot be stored here, or the cluster cannot be reached.
        """
        if not is_digest(digest):
            raise ArchiveError(f"{digest[:80]!r} is no archive's name")
        task = self._fetching.get(digest)
        if task is None:
            task = asyncio.get_running_loop().create_task(
                self._ready(digest, set(in_use) | {digest}), name=f"archive {digest[:8]}"
            )
            self._fetching[digest] = task
            task.add_done_callback(lambda _: self._fetching.pop(digest, None))
        return await asyncio.shield(task)

    def keep(self, digest: str) -> None:
        """Lock the directory of an archive that is in use already."""
        if digest in self._locks or not self._directory.is_dir():
            return
        fd = os.open(self._directory / f"{digest}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_SH)
        self._locks[digest] = fd

    def close(self) -> None:
        """Let go of all locks; twice is fine."""
        for fd in self._locks.values():
            os.close(fd)
        self._locks.clear()

    async def _ready(self, digest: str, in_use: set[str]) -> Path:
        make_private(self._directory)
        self.keep(digest)
        path = self._directory / digest
        if not await asyncio.to_thread(path.is_dir):
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                await self._store(digest, path)
            await asyncio.to_thread(self._evict, in_use)
        os.utime(path)
        return path

    async def _store(self, digest: str, path: Path) -> None:
        scratch = self._directory / f"tmp-{short_id()}"
        file = scratch.with_suffix(".zip")
        try:
            await self._download(digest, file)
            await asyncio.to_thread(_unpack_file, file, scratch)
            await asyncio.to_thread(_move, scratch, path)
        finally:
            file.unlink(missing_ok=True)
            shutil.rmtree(scratch, ignore_errors=True)
        logger.info("archive_fetched %s", digest)

    async def _download(self, digest: str, file: Path) -> None:
        hasher, size = hashlib.sha256(), 0
        with file.open("xb") as output:
            async for chunk in self._fetch(digest):
                size += len(chunk)
                if size > MAX_ARCHIVE_BYTES:
                    raise ArchiveError(f"the archive {digest} has more than {MAX_ARCHIVE_BYTES:,} bytes")
                hasher.update(chunk)
                output.write(chunk)
        if hasher.hexdigest() != digest:
            raise ArchiveError(f"the archive {digest} arrived damaged")

    def _evict(self, in_use: set[str]) -> None:
        """Remove those that nobody has used for longest, down to `MAX_KEPT`."""
        for digest in self._locks.keys() - in_use:
            os.close(self._locks.pop(digest))
        found = [path for path in self._directory.iterdir() if is_digest(path.name)]
        unused = sorted((p for p in found if p.name not in in_use), key=lambda p: p.stat().st_mtime)
        for path in unused[: max(0, len(found) - MAX_KEPT)]:
            lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                doomed = path.with_name(f"tmp-{short_id()}")
                path.rename(doomed)
                shutil.rmtree(doomed, ignore_errors=True)
            except BlockingIOError:  # another agent uses it
                continue
            finally:
                os.close(lock)


def _move(scratch: Path, path: Path) -> None:
    try:
        scratch.rename(path)
    except OSError:
        if not path.is_dir():  # else another agent was faster
            raise


def _unpack_file(file: Path, target: Path) -> None:
    with file.open("rb") as archive:
        unpack(archive, target)
