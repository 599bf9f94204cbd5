"""Fan-out of changes to the watchers of one store in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .interface import WATCH_QUEUE_LENGTH, Change, WatchOverflow


class Watchers:
    """Gives every watcher the changes below its prefix. Used on the event loop only."""

    def __init__(self) -> None:
        self._watchers: set[_Watcher] = set()

    def notify(self, change: Change) -> None:
        """Tell those whom it concerns; never blocks."""
        for watcher in self._watchers:
            if change.key.startswith(watcher.prefix):
                watcher.offer(change)

    def overflow(self, reason: str) -> None:
        """Changes were missed: all watchers must list again."""
        for watcher in self._watchers:
            watcher.end(WatchOverflow(reason))

    def close(self) -> None:
        """End all watchers."""
        for watcher in self._watchers:
            watcher.end(None)

    def __len__(self) -> int:
        return len(self._watchers)

    @asynccontextmanager
    async def watch(self, prefix: str) -> AsyncIterator[AsyncIterator[Change]]:
        """As `StateStore.watch`."""
        watcher = _Watcher(prefix)
        self._watchers.add(watcher)
        try:
            yield watcher.changes()
        finally:
            self._watchers.discard(watcher)


class _Watcher:
    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._changes: list[Change] = []
        self._wake = asyncio.Event()
        self._ended = False
        self._error: Exception | None = None

    def offer(self, change: Change) -> None:
        if len(self._changes) >= WATCH_QUEUE_LENGTH:
            self.end(WatchOverflow(f"more than {WATCH_QUEUE_LENGTH} changes behind below {self.prefix!r}"))
        elif not self._ended:
            self._changes.append(change)
            self._wake.set()

    def end(self, error: Exception | None) -> None:
        self._ended, self._error = True, self._error or error
        self._wake.set()

    async def changes(self) -> AsyncIterator[Change]:
        while True:
            await self._wake.wait()
            self._wake.clear()
            # After an overflow what is still queued is of no use: the watcher must list again anyway.
            if self._error is not None:
                raise self._error
            pending, self._changes = self._changes, []
            for change in pending:
                yield change
            if self._ended:
                return
