"""A store that lives as long as its object; for tests and throw-away clusters."""

import builtins
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from .interface import ABSENT, Change, Entry, RevisionConflict, StoreClosed
from .watchers import Watchers


class MemoryStore:
    """A `StateStore` in a dict."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._revision = 0
        self._watchers = Watchers()
        self._is_closed = False

    async def get(self, key: str) -> Entry | None:
        """As `StateStore.get`."""
        self._check_open()
        return self._entries.get(key)

    async def list(self, prefix: str) -> builtins.list[Entry]:
        """As `StateStore.list`."""
        self._check_open()
        return [self._entries[key] for key in sorted(self._entries) if key.startswith(prefix)]

    async def compare_and_swap(self, key: str, value: bytes, expected_revision: int) -> int:
        """As `StateStore.compare_and_swap`."""
        self._check_open()
        self._check_revision(key, expected_revision)
        self._revision += 1
        self._entries[key] = Entry(key, value, self._revision)
        self._watchers.notify(Change(key, value, self._revision))
        return self._revision

    async def delete(self, key: str, expected_revision: int | None = None) -> bool:
        """As `StateStore.delete`."""
        self._check_open()
        if key not in self._entries:
            return False
        if expected_revision is not None:
            self._check_revision(key, expected_revision)
        self._revision += 1
        del self._entries[key]
        self._watchers.notify(Change(key, None, self._revision))
        return True

    def watch(self, prefix: str) -> AbstractAsyncContextManager[AsyncIterator[Change]]:
        """As `StateStore.watch`."""
        self._check_open()
        return self._watchers.watch(prefix)

    async def close(self) -> None:
        """As `StateStore.close`."""
        self._is_closed = True
        self._watchers.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreClosed("the store is closed")

    def _check_revision(self, key: str, expected: int) -> None:
        entry = self._entries.get(key)
        actual = entry.revision if entry else ABSENT
        if actual != expected:
            raise RevisionConflict(key, expected, actual)
