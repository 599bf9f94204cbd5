"""A store in one SQLite file: the default of an embedded cluster.

The connection lives in a thread of its own, so that a slow disk never holds up the event loop. Watchers see
the changes made through this object; another process must not open the file at the same time (the controller
holds a lock on it). A file that is deleted or replaced would still take changes, and lose them with this
process: they are refused.
"""

import asyncio
import builtins
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeVar

from .interface import ABSENT, Change, Entry, RevisionConflict, StoreClosed, StoreRefused
from .watchers import Watchers

_Result = TypeVar("_Result")

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS entry (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS revision (id INTEGER PRIMARY KEY CHECK (id = 0), number INTEGER NOT NULL);
INSERT OR IGNORE INTO revision VALUES (0, 0);
"""


class SqliteStore:
    """A `StateStore` in a file. Make it with `open`."""

    def __init__(self, path: str, connection: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self._path = path
        self._connection = connection
        self._file = _identity(path)
        self._thread = thread
        self._watchers = Watchers()
        self._is_closed = False

    @classmethod
    async def open(cls, path: str | Path) -> "SqliteStore":
        """Open the file, which is made if it does not exist.

        Raises:
            OSError: The file is no database or cannot be opened; the message names it.
        """
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="slipknot-store")
        try:
            connection = await asyncio.get_running_loop().run_in_executor(thread, _connect, str(path))
        except sqlite3.Error as error:
            thread.shutdown(wait=False)
            raise OSError(f"cannot open the state store {str(path)!r}: {error}; {_remedy(error)}") from error
        return cls(str(path), connection, thread)

    async def get(self, key: str) -> Entry | None:
        """As `StateStore.get`."""
        return await self._run(lambda: _get(self._connection, key))

    async def list(self, prefix: str) -> builtins.list[Entry]:
        """As `StateStore.list`."""
        return await self._run(lambda: _list(self._connection, prefix))

    async def compare_and_swap(self, key: str, value: bytes, expected_revision: int) -> int:
        """As `StateStore.compare_and_swap`."""
        return await self._change(key, value, expected_revision)

    async def delete(self, key: str, expected_revision: int | None = None) -> bool:
        """As `StateStore.delete`."""
        return await self._change(key, None, expected_revision) != ABSENT

    def watch(self, prefix: str) -> AbstractAsyncContextManager[AsyncIterator[Change]]:
        """As `StateStore.watch`."""
        self._check_open()
        return self._watchers.watch(prefix)

    async def close(self) -> None:
        """As `StateStore.close`."""
        if self._is_closed:
            return
        self._is_closed = True
        self._watchers.close()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown(wait=False)

    async def _change(self, key: str, value: bytes | None, expected: int | None) -> int:
        loop = asyncio.get_running_loop()

        def change() -> int:
            if _identity(self._path) != self._file:
                raise StoreRefused(
                    f"the state store {self._path!r} was deleted or replaced while it was in use; what is "
                    "stored now would be lost. Start the cluster anew"
                )
            revision = _set(self._connection, key, value, expected)
            if revision != ABSENT:
                # Told from the store's thread: in order of the revisions, and even if the caller has been
                # cancelled.
                loop.call_soon_threadsafe(self._watchers.notify, Change(key, value, revision))
            return revision

        return await self._run(change)

    async def _run(self, function: Callable[[], _Result]) -> _Result:
        self._check_open()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function)
        except sqlite3.Error as error:
            raise StoreRefused(f"the state store {self._path!r} says: {error}") from error

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreClosed("the store is closed")


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=True)
    try:
        connection.executescript(_SCHEMA)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _identity(path: str) -> tuple[int, int] | None:
    """Which file is at `path`; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _get(connection: sqlite3.Connection, key: str) -> Entry | None:
    row = connection.execute("SELECT key, value, revision FROM entry WHERE key = ?", (key,)).fetchone()
    return Entry(*row) if row else None


def _list(connection: sqlite3.Connection, prefix: str) -> list[Entry]:
    rows = connection.execute(
        "SELECT key, value, revision FROM entry WHERE substr(key, 1, ?) = ? ORDER BY key",
        (len(prefix), prefix),
    )
    return [Entry(*row) for row in rows]


def _set(connection: sqlite3.Connection, key: str, value: bytes | None, expected: int | None) -> int:
    connection.execute("BEGIN IMMEDIATE")
    try:
        entry = _get(connection, key)
        revision = _write(connection, entry, Change(key, value, 0), expected)
        connection.execute("COMMIT")  # fails, too, when the disk is full, and the transaction would stay open
    except BaseException:
        if connection.in_transaction:  # some errors have rolled back already
            connection.execute("ROLLBACK")
        raise
    return revision


def _remedy(error: sqlite3.Error) -> str:
    if isinstance(error, sqlite3.OperationalError):
        return "its directory must be writable and its disk have room"
    return "move the file away"


def _write(connection: sqlite3.Connection, entry: Entry | None, change: Change, expected: int | None) -> int:
    if change.value is None and entry is None:
        return ABSENT
    actual = entry.revision if entry else ABSENT
    if expected is not None and expected != actual:
        raise RevisionConflict(change.key, expected, actual)
    (revision,) = connection.execute("UPDATE revision SET number = number + 1 RETURNING number").fetchone()
    if change.value is None:
        connection.execute("DELETE FROM entry WHERE key = ?", (change.key,))
    else:
        connection.execute(
            "INSERT OR REPLACE INTO entry VALUES (?, ?, ?)", (change.key, change.value, revision)
        )
    return int(revision)
