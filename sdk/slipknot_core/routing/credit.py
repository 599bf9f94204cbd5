"""How much a replica may send ahead of a reader. Pure.

A fast reader is allowed more and more, for each round trip costs it time; one that has become slow, less and
less. What they have beyond the least comes out of one account for the whole process, so that readers that
stop in the middle keep no more of its memory than that, however many they are.
"""

REPLY_CREDIT_BYTES = 96 * 1024
"""How much a replica may send ahead of any reader, besides what its last chunk exceeds that by; so it is most
of what a stalled client holds in memory."""

MAX_REPLY_CREDIT_BYTES = 16 * REPLY_CREDIT_BYTES
"""The same for a fast one."""

FAST_S = 0.1
SLOW_S = 1.0
"""A reader that takes all of its window in that time is fast, or slow."""

SPARE_CREDIT_BYTES = 32 * 1024 * 1024
"""What all exchanges of a process have beyond `REPLY_CREDIT_BYTES`."""

GRANTS_A_WINDOW = 4
"""Credit is given back in parts of this size."""


class SpareCredit:
    """The account of a process."""

    def __init__(self, byte_count: int = SPARE_CREDIT_BYTES) -> None:
        self.byte_count = byte_count
        """What is left."""


class Window:
    """What one reader may be sent ahead. `close` returns what it has of `spare`."""

    def __init__(self, spare: SpareCredit, now_s: float) -> None:
        self._spare = spare
        self._size = REPLY_CREDIT_BYTES
        self._ungranted = 0
        self._taken = 0
        self._began_s = now_s

    def take(self, byte_count: int, now_s: float) -> int:
        """The reader has taken so much; returns what to grant now."""
        self._ungranted += byte_count
        if self._ungranted * GRANTS_A_WINDOW < self._size:
            return 0
        granted, self._ungranted = self._ungranted, 0
        self._taken += granted
        return granted + self._change(granted, now_s) if self._taken >= self._size else granted

    def close(self) -> None:
        """Nothing more is read; twice is fine."""
        self._resize(REPLY_CREDIT_BYTES)

    def _change(self, granted: int, now_s: float) -> int:
        """After each whole window: by how much it grows now, or shrinks, then by no more than is granted."""
        elapsed_s, self._began_s, self._taken = now_s - self._began_s, now_s, 0
        if elapsed_s <= FAST_S:
            return self._resize(min(2 * self._size, MAX_REPLY_CREDIT_BYTES))
        if elapsed_s > SLOW_S:
            return self._resize(max(self._size - granted, REPLY_CREDIT_BYTES))
        return 0

    def _resize(self, wanted: int) -> int:
        change = min(wanted - self._size, self._spare.byte_count)
        self._spare.byte_count -= change
        self._size += change
        return change
