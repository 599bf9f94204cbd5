"""What handlers did, told to the test from any process, in order; and gates that hold handlers until the test
opens them.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

WAIT_S = 30.0
"""Nothing that is waited for takes this long; a bound, not an expectation."""
POLL_S = 0.002


class Journal:
    """Notes that arrive here from whoever has the picklable `pen`. Use as a context manager."""

    def __init__(self, directory: Path) -> None:
        self._path = str(directory / "journal")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._path)
        self._notes: list[str] = []

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def pen(self) -> "Pen":
        """For the handlers."""
        return Pen(self._path)

    @property
    def notes(self) -> list[str]:
        """All that has arrived so far."""
        self._receive(0.0)
        return list(self._notes)

    def wait_for(self, text: str, count: int = 1, timeout_s: float = WAIT_S) -> None:
        """Wait until `text` was noted `count` times."""
        self.wait_until(lambda notes: notes.count(text) >= count, f"{count} x {text!r}", timeout_s)

    def wait_until(
        self, is_enough: Callable[[list[str]], bool], what: str = "enough", timeout_s: float = WAIT_S
    ) -> None:
        """Wait until `is_enough` says so of all notes."""
        deadline_s = time.monotonic() + timeout_s
        self._receive(0.0)
        while not is_enough(self._notes):
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, f"{what} was not noted within {timeout_s} s, but: {self._notes}"
            self._receive(left_s)

    async def wait_for_async(self, text: str, count: int = 1, timeout_s: float = WAIT_S) -> None:
        """The same without blocking the loop."""
        await asyncio.to_thread(self.wait_for, text, count, timeout_s)

    def _receive(self, timeout_s: float) -> None:
        """Take what is there; wait for the first one at most `timeout_s`."""
        self._socket.settimeout(timeout_s) if timeout_s else self._socket.setblocking(False)
        try:
            while True:
                self._notes.append(self._socket.recv(65536).decode())
                self._socket.setblocking(False)
        except (BlockingIOError, TimeoutError):
            return


class Pen:
    """Writes to a journal. Synchronous, so that a note is there before the next line of the handler runs."""

    def __init__(self, path: str) -> None:
        self._path = path

    def note(self, text: str) -> None:
        """Send one note."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(text.encode(), self._path)


class Gate:
    """Closed until the test opens it. Picklable; the same gate in every process."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def open(self) -> None:
        """Let everybody through."""
        Path(self._path).touch()

    def close(self) -> None:
        """Hold everybody again who comes from now on."""
        Path(self._path).unlink(missing_ok=True)

    async def passed(self) -> None:
        """Wait at the gate."""
        while not self.is_open():
            await asyncio.sleep(POLL_S)

    def wait(self) -> None:
        """The same for a thread."""
        while not self.is_open():
            time.sleep(POLL_S)

    def is_open(self) -> bool:
        """Whether it holds nobody."""
        return os.path.exists(self._path)
