"""Looking at processes, on Linux."""

import os
import threading
from pathlib import Path


def is_alive(pid: int) -> bool:
    """One of its threads runs on: the first may be a zombie while others still hold its sockets open."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return any(_thread_is_alive(pid, thread) for thread in threads)


def descendants(pid: int) -> list[int]:
    """Its children and theirs, as long as their parents live."""
    parents = _parents()
    found: list[int] = []
    front = {pid}
    while front:
        front = {child for child, parent in parents.items() if parent in front}
        found += front
    return found


def child_running(module: str, parent: int | None = None) -> int:
    """The pid of the child that was started with `-m module`; of this process if no parent is named."""
    wanted = f"-m\0{module}\0".encode()
    own = parent or os.getpid()
    found = [child for child, its in _parents().items() if its == own and wanted in _command_line(child)]
    assert len(found) == 1, (module, found)
    return found[0]


def page_faults(pid: int) -> int:
    """How often it has touched a page that it did not have, without a disk in it."""
    return int(_stat(pid)[7])


def wait_until_gone(pids: list[int]) -> None:
    """Wait until none of them is alive."""
    ended = threading.Event()
    for _ in range(2000):
        if not any(map(is_alive, pids)):
            return
        ended.wait(0.005)
    raise AssertionError(f"still alive: {[pid for pid in pids if is_alive(pid)]}")


def _thread_is_alive(pid: int, thread: str) -> bool:
    try:
        return _stat(pid, f"task/{thread}/stat")[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _parents() -> dict[int, int]:
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                parents[int(entry)] = int(_stat(int(entry))[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    return parents


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _stat(pid: int, of: str = "stat") -> list[str]:
    """State, parent, …: what follows the name, which may hold spaces and parentheses."""
    return Path(f"/proc/{pid}/{of}").read_text().rpartition(")")[2].split()
