"""What happened to which request, written by any process of a system and read by the load generator.

The clock is the machine's monotonic one, which all processes share. A line is one `write` to a file opened
for appending, so that lines of several processes never mix.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "SLIPKNOT_BENCHMARK_JOURNAL"

_file: int | None = None


@dataclass(frozen=True)
class Event:
    """Something that happened to a request at one hop of its way."""

    what: str
    """`began`, `cancelled` or `completed`."""
    hop: int
    """0 is the handler that the client talks to."""
    request: str
    at_s: float


def note(what: str, hop: int, request: str) -> None:
    """It happens now."""
    global _file
    now_s = time.monotonic()
    if _file is None:
        _file = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(_file, f"{what} {hop} {request} {now_s:.6f}\n".encode())


class Journal:
    """The reading side: everything that was noted since it was opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0
        self._rest = ""
        self.events: list[Event] = []

    def read(self) -> list[Event]:
        """All events so far."""
        if self._path.exists():
            with self._path.open(encoding="ascii") as file:
                file.seek(self._offset)
                text = file.read()
                self._offset = file.tell()
            *lines, self._rest = (self._rest + text).split("\n")
            self.events += map(_parse, lines)
        return self.events

    def times_s(self, what: str, hop: int) -> dict[str, float]:
        """When it first happened to each request at this hop; reads anew."""
        found: dict[str, float] = {}
        for event in self.read():
            if event.what == what and event.hop == hop:
                found.setdefault(event.request, event.at_s)
        return found


def _parse(line: str) -> Event:
    what, hop, request, at_s = line.split(" ")
    return Event(what, int(hop), request, float(at_s))
