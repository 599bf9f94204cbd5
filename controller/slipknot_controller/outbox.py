"""Messages to one peer, in order and bounded."""

import asyncio
from collections import deque
from typing import Generic, TypeVar

Message = TypeVar("Message")

MAX_MESSAGES = 1024
"""A peer that is so far behind is as good as gone; its stream is ended, and it may join again."""


class Outbox(Generic[Message]):
    """Filled without waiting, emptied by the task that writes to the stream. `repr` tells how full it is."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._changed = asyncio.Event()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Outbox: {len(self._messages)} messages{', closed' if self._is_closed else ''}>"

    @property
    def is_closed(self) -> bool:
        """Nothing more goes in."""
        return self._is_closed

    def put(self, message: Message) -> None:
        """Add a message; a full box is closed instead. Dropped if the box is closed."""
        if len(self._messages) >= MAX_MESSAGES:
            self.close()
        if not self._is_closed:
            self._messages.append(message)
            self._changed.set()

    def close(self) -> None:
        """Take nothing more; what is in it is still delivered. Calling it twice is fine."""
        self._is_closed = True
        self._changed.set()

    async def get(self) -> Message | None:
        """Wait for the next message; None: the box is closed and empty."""
        while not self._messages:
            if self._is_closed:
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._messages.popleft()
