"""How much a replica may send ahead of a reader. Pure.

A reader that takes all it gets is allowed more and more, for each round trip costs it time. What it has
beyond the least comes out of one account for the whole process, so that readers that stop in the middle keep
no more of its memory than that, however many they are.
"""

REPLY_CREDIT_BYTES = 96 * 1024
"""How much a replica may send ahead of any reader, besides what its last chunk exceeds that by; so it is most
of what a stalled client holds in memory."""

MAX_REPLY_CREDIT_BYTES = 16 * REPLY_CREDIT_BYTES
"""The same for one that takes all it gets."""

SPARE_CREDIT_BYTES = 32 * 1024 * 1024
"""What all exchanges of a process have beyond `REPLY_CREDIT_BYTES`."""

GRANTS_A_WINDOW = 4
"""Credit is given back in parts of this size."""


class SpareCredit:
    """The account of a process."""

    def __init__(self, byte_count: int = SPARE_CREDIT_BYTES) -> None:
        self.byte_count = byte_count
        """What is left."""

    def take(self, byte_count: int) -> int:
        """Take so much, or what is left."""
        taken = min(byte_count, self.byte_count)
        self.byte_count -= taken
        return taken


class Window:
    """What one reader may be sent ahead. `close` returns what it has of `spare`."""

    def __init__(self, spare: SpareCredit) -> None:
        self._spare = spare
        self._size = REPLY_CREDIT_BYTES
        self._ungranted = 0
        self._taken = 0

    def take(self, byte_count: int) -> int:
        """The reader has taken so much; returns what to grant now."""
        self._ungranted += byte_count
        if self._ungranted * GRANTS_A_WINDOW < self._size:
            return 0
        self._taken += self._ungranted
        granted, self._ungranted = self._ungranted, 0
        if self._taken >= self._size:
            more = self._spare.take(min(self._size, MAX_REPLY_CREDIT_BYTES - self._size))
            self._taken = 0
            self._size += more
            granted += more
        return granted

    def close(self) -> None:
        """Nothing more is read; twice is fine."""
        self._spare.byte_count += self._size - REPLY_CREDIT_BYTES
        self._size = REPLY_CREDIT_BYTES
