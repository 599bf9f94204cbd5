"""Uploaded code in the state store, in chunks: whoever leads can read it.

Under "archive-heads/<name>" stands how many chunks there are and whether all have arrived, under
"archive-chunks/<name>/<number>" each of them. A head without all its chunks is an upload that was broken off;
the next upload of the same archive goes on with it.
"""

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import AsyncIterator, Collection, Iterable
from typing import Any

from slipknot_core.archive import MAX_ARCHIVE_BYTES, ArchiveError, is_digest
from slipknot_core.spec import ImportSource

from .desired import ApplicationRecord
from .store import StateStore
from .store.interface import ABSENT, RevisionConflict

logger = logging.getLogger("slipknot.serve")

CHUNK_BYTES = 512 * 1024
"""Below what etcd takes in one request."""
KEEP_S = 3600.0
"""An archive that no application uses stays so long: its deploy may be on the way, or be repeated."""

_HEADS = "archive-heads/"
_CHUNKS = "archive-chunks/"


class Archives:
    """Archives by name. `repr` tells where they are kept."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._renewed_s: dict[str, float] = {}
        """When this controller took or renewed an archive, on the monotonic clock: none of these is removed
        because the wall clock, which is all that survives a controller, was set."""
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Archives in {self._store!r}>"

    async def renew(self, digest: str) -> bool:
        """Let an archive stay for another `KEEP_S`; False if it is not here, or not whole."""
        async with self._turn:
            return await self._renew(digest)

    async def put(self, digest: str, chunks: AsyncIterator[bytes]) -> None:
        """Store an archive. One upload at a time is held in memory; it may be repeated.

        Raises:
            ArchiveError: It is too large, or is not what its name says.
        """
        async with self._turn:
            data = bytearray()
            async for chunk in chunks:
                data += chunk
                if len(data) > MAX_ARCHIVE_BYTES:
                    raise ArchiveError(f"an archive may have {MAX_ARCHIVE_BYTES:,} bytes")
            if not is_digest(digest) or hashlib.sha256(data).hexdigest() != digest:
                raise ArchiveError(f"the archive that was uploaded is not {digest[:80]!r}")
            if not await self._renew(digest):
                await self._store_all(digest, bytes(data))
                logger.info("Stored the archive %s (%d bytes).", digest, len(data))

    async def read(self, digest: str) -> AsyncIterator[bytes]:
        """The archive's chunks.

        Raises:
            ArchiveError: It is not here.
        """
        head = await self._head(digest)
        if head is None or not head["is_complete"]:
            raise ArchiveError(f"the cluster has no archive {digest[:80]!r}; deploy again to upload it")
        for number in range(head["chunks"]):
            entry = await self._store.get(_chunk_key(digest, number))
            if entry is None:
                raise ArchiveError(f"the archive {digest} is being removed; deploy again to upload it")
            yield entry.value

    async def collect(self, used: Collection[str]) -> None:
        """Remove what is old and not in `used`."""
        async with self._turn:
            for entry in await self._store.list(_HEADS):
                digest, head = entry.key.removeprefix(_HEADS), json.loads(entry.value)
                renewed_s = self._renewed_s.get(digest)
                if renewed_s is not None and time.monotonic() - renewed_s < KEEP_S:
                    continue
                if digest in used or time.time() - head["at_s"] < KEEP_S:
                    continue
                self._renewed_s.pop(digest, None)
                await self._set_head(digest, head["chunks"], is_complete=False)
                for number in range(head["chunks"]):
                    await self._store.delete(_chunk_key(digest, number))
                await self._store.delete(entry.key)
                logger.info("Removed the archive %s, which no application uses.", digest)

    async def _renew(self, digest: str) -> bool:
        head = await self._head(digest)
        if head is None or not head["is_complete"]:
            return False
        await self._set_head(digest, int(head["chunks"]), is_complete=True)
        return True

    async def _head(self, digest: str) -> dict[str, Any] | None:
        entry = await self._store.get(_HEADS + digest) if is_digest(digest) else None
        return json.loads(entry.value) if entry is not None else None

    async def _store_all(self, digest: str, data: bytes) -> None:
        parts = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
        await self._set_head(digest, len(parts), is_complete=False)
        for number, part in enumerate(parts):
            try:
                await self._store.compare_and_swap(_chunk_key(digest, number), part, ABSENT)
            except RevisionConflict:
                pass  # from an upload that was broken off; equal names are equal bytes
        await self._set_head(digest, len(parts), is_complete=True)

    async def _set_head(self, digest: str, chunks: int, *, is_complete: bool) -> None:
        head = {"chunks": chunks, "is_complete": is_complete, "at_s": time.time()}
        if is_complete:
            self._renewed_s[digest] = time.monotonic()
        before = await self._store.get(_HEADS + digest)
        revision = before.revision if before is not None else ABSENT
        await self._store.compare_and_swap(_HEADS + digest, json.dumps(head).encode(), revision)


def used_archives(records: Iterable[ApplicationRecord]) -> set[str]:
    """Names of the archives that these applications are made of, or were and still run of."""
    sources: list[ImportSource | None] = []
    for record in records:
        sources += [record.build.source if record.build else None]
        specs = (*(record.spec.deployments if record.spec else ()), *record.retiring)
        sources += [spec.code.import_source for spec in specs]
    return {source.archive for source in sources if source is not None and source.archive}


def _chunk_key(digest: str, number: int) -> str:
    return f"{_CHUNKS}{digest}/{number:06d}"
