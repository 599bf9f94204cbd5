"""Which keys need attention. No event is lost, no key is worked on twice at once, equal events merge.

A key is in one of these places: *queued* (waits for a worker), *processing*, *dirty* (processing, and to be
queued again afterwards), or *delayed* (queued at a later time). There is no payload: the worker reads the
state itself.

The queue has no bound of its own, since it holds each key at most once.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from . import backoff

Key = TypeVar("Key", bound=Hashable)


class ReconcileQueue(Generic[Key]):
    """A queue for one event loop. `repr` tells how many keys are where."""

    def __init__(self) -> None:
        self._queued: OrderedDict[Key, None] = OrderedDict()
        self._processing: set[Key] = set()
        self._dirty: set[Key] = set()
        self._delayed: dict[Key, tuple[float, asyncio.Handle]] = {}
        self._failures: dict[Key, int] = {}
        self._available = asyncio.Event()

    def __repr__(self) -> str:
        return (
            f"<ReconcileQueue: {len(self._queued)} queued, {len(self._processing)} processing, "
            f"{len(self._delayed)} delayed>"
        )

    def add(self, key: Key) -> None:
        """Ask for attention as soon as possible."""
        if key in self._processing:
            self._dirty.add(key)
            return
        self._queued[key] = None
        self._available.set()

    def add_after(self, key: Key, delay_s: float) -> None:
        """Ask for attention after `delay_s`; an earlier appointment of the same key stays."""
        loop = asyncio.get_running_loop()
        at_s = loop.time() + max(0.0, delay_s)
        before = self._delayed.get(key)
        if before is not None:
            if before[0] <= at_s:
                return
            before[1].cancel()
        # A handle of uvloop does not always tell its time.
        self._delayed[key] = at_s, loop.call_at(at_s, self._due, key)

    def retry(self, key: Key) -> float:
        """Ask for attention after a pause that grows with each failure in a row; returns it."""
        self._failures[key] = self._failures.get(key, 0) + 1
        delay_s = backoff.delay_s(self._failures[key])
        self.add_after(key, delay_s)
        return delay_s

    def succeeded(self, key: Key) -> None:
        """Forget the failures of a key."""
        self._failures.pop(key, None)

    async def get(self) -> Key:
        """Wait for a key and take it; `done` must follow.

        Cancellation:
            Safe: no key is lost.
        """
        while not self._queued:
            self._available.clear()
            await self._available.wait()
        key, _ = self._queued.popitem(last=False)
        self._processing.add(key)
        return key

    def done(self, key: Key) -> None:
        """Work on a key has ended; if it was added meanwhile it is queued again."""
        self._processing.discard(key)
        if key in self._dirty:
            self._dirty.discard(key)
            self.add(key)

    def close(self) -> None:
        """Cancel all appointments; calling it twice is fine."""
        for _, timer in self._delayed.values():
            timer.cancel()
        self._delayed.clear()

    def _due(self, key: Key) -> None:
        del self._delayed[key]
        self.add(key)
