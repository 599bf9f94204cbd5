"""Tells what is not over in time, with one timer for all: nearly everything is over before, and a timer of
its own for each request would cost more than what it waits for."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Overdue(Generic[T]):
    """Items in the order of their coming, all with the same time. Belongs to the loop it is used on.

    Args:
        after_s: When an item is overdue.
        tell: Called with each item then, over or not.
    """

    def __init__(self, after_s: float, tell: Callable[[T], None]) -> None:
        self._after_s = after_s
        self._tell = tell
        self._items: deque[tuple[float, T]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Overdue after {self._after_s:g} s: {len(self._items)} items>"

    def add(self, item: T) -> None:
        """Begin to wait for an item."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self._after_s
        self._items.append((due_s, item))
        if self._timer is None:
            self._timer = loop.call_at(due_s, self._on_time)

    def close(self) -> None:
        """Tell nothing more; twice is fine."""
        self._items.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_time(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        while self._items and self._items[0][0] <= now_s:
            _, item = self._items.popleft()
            self._tell(item)
        self._timer = loop.call_at(self._items[0][0], self._on_time) if self._items else None
