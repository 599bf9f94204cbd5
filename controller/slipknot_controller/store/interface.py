"""The contract of a state store. `tests/unit/slipknot_controller/test_store.py` runs it against every store.

Keys are paths ("applications/chat"), values are bytes. Every change raises the store's one revision by at
least one and marks the entry with it, so that a revision names one state of the whole store. That is what
etcd offers, and
no more.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

ABSENT = 0
"""The revision of a key that does not exist."""

WATCH_QUEUE_LENGTH = 1024
"""Changes that a slow watcher may be behind before it is told to start again."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key as it was at `revision`, the revision of its last change."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Change:
    """A key was set to `value`, or deleted if that is None, which made `revision`."""

    key: str
    value: bytes | None
    revision: int


class RevisionConflict(Exception):
    """Somebody else changed the key first: read it again and decide again."""

    def __init__(self, key: str, expected: int, actual: int) -> None:
        super().__init__(f"{key!r} is at revision {actual}, not at {expected}")
        self.key, self.expected, self.actual = key, expected, actual


class StoreClosed(Exception):
    """The store was closed; a bug of the caller, or shutdown."""


class StoreUnavailable(OSError):
    """The store did not answer in time. A change may or may not have happened."""


class StoreRefused(OSError):
    """The store answers, but will not: credentials, certificates, its own limits, a full disk. Nothing was
    changed; trying again is no use before somebody has done something about it.
    """


class Fenced(Exception):
    """Somebody else leads now; nothing was changed."""


class WatchOverflow(Exception):
    """The watcher was too slow and has missed changes: list again, then watch again."""


class StateStore(Protocol):
    """A revisioned map from keys to bytes. A change that has been returned survives a crash of process and
    machine.

    Cancelling a call that changes something may or may not prevent the change.
    """

    async def get(self, key: str) -> Entry | None:
        """The entry, or None."""
        ...

    async def list(self, prefix: str) -> list[Entry]:
        """All entries whose keys begin with `prefix`, ordered by key, of one and the same state."""
        ...

    async def compare_and_swap(self, key: str, value: bytes, expected_revision: int) -> int:
        """Set `key` if its revision is still `expected_revision` (`ABSENT`: it does not exist).

        Returns:
            The entry's new revision.

        Raises:
            RevisionConflict: It is not; nothing was changed.
            ValueError: The value is larger than the store takes.
            StoreUnavailable: It may have been changed, or not.
        """
        ...

    async def delete(self, key: str, expected_revision: int | None = None) -> bool:
        """Remove `key`; False if there was none.

        Args:
            key: What to remove.
            expected_revision: Remove it only at this revision; None: at any.

        Raises:
            RevisionConflict: It exists at another revision; nothing was changed.
        """
        ...

    def watch(self, prefix: str) -> AbstractAsyncContextManager[AsyncIterator[Change]]:
        """Follow changes below `prefix` that are made after the context was entered, in order.

        Raises:
            WatchOverflow: From the iterator, when this watcher was too slow, or was away from the store for
                so long that changes cannot be told any more.
        """
        ...

    async def close(self) -> None:
        """Let go of everything; calling it twice is fine. Watchers end."""
        ...


async def raise_counter(store: StateStore, key: str, at_least: int = 0) -> int:
    """Add one to the number under `key` (0 if there is none) and return it; larger than `at_least` in any
    case.
    """
    while True:
        entry = await store.get(key)
        number = max(int(entry.value) if entry else 0, at_least) + 1
        try:
            await store.compare_and_swap(key, str(number).encode(), entry.revision if entry else ABSENT)
        except RevisionConflict:
            continue
        return number
