"""The newest value of something, for any number of watchers. A slow watcher skips what is outdated; nothing
piles up.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Latest(Generic[Value]):
    """Holds one value, or none yet. For one event loop. `repr` counts changes and watchers."""

    def __init__(self) -> None:
        self._value: Value | None = None
        self._number = 0
        self._changed: set[asyncio.Event] = set()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Latest: {self._number} changes, {len(self._changed)} watchers>"

    @property
    def value(self) -> Value | None:
        """The newest value; None before the first."""
        return self._value

    def publish(self, value: Value) -> None:
        """Replace the value and wake all watchers."""
        self._value = value
        self._number += 1
        self._wake()

    def close(self) -> None:
        """End all watchers; calling it twice is fine."""
        self._is_closed = True
        self._wake()

    async def watch(self) -> AsyncIterator[Value]:
        """Yield the value there is, then each newer one, until closed."""
        changed, seen = asyncio.Event(), 0
        self._changed.add(changed)
        try:
            while not self._is_closed:
                if self._number == seen:
                    changed.clear()
                    await changed.wait()
                    continue
                seen, value = self._number, self._value
                if value is not None:
                    yield value
        finally:
            self._changed.discard(changed)

    def _wake(self) -> None:
        for changed in self._changed:
            changed.set()
