"""All processes of a started system, whoever their parent became."""

import contextlib
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

MARKER = "SLIPKNOT_BENCHMARK_RUN"
"""The environment variable that all processes of a run inherit."""
KILLED_WITHIN_S = 10.0


@dataclass(frozen=True)
class Usage:
    """What a set of processes has taken so far."""

    cpu_s: float
    rss_bytes: int
    processes: int


class ProcessSet:
    """The processes that carry a mark in their environment, or descend from one that was seen before.

    Some rename themselves and lose their environment that way; some leave their parents. Few do both before
    they are first looked at.
    """

    def __init__(self, mark: str) -> None:
        self._mark = f"{MARKER}={mark}".encode()
        self._known: dict[tuple[int, float], psutil.Process] = {}

    def look(self) -> list[psutil.Process]:
        """Those that run now."""
        by_parent: dict[int, list[psutil.Process]] = {}
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                by_parent.setdefault(process.ppid(), []).append(process)
                if (process.pid, process.create_time()) in self._known or self._is_marked(process.pid):
                    found[process.pid] = process
        front = list(found)
        while front:
            for child in by_parent.get(front.pop(), ()):
                if child.pid not in found:
                    found[child.pid] = child
                    front.append(child.pid)
        running = list(_running(found.values()))
        self._known = {(process.pid, process.create_time()): process for process in running}
        return running

    def usage(self) -> Usage:
        """CPU time and memory of all of them."""
        cpu_s = 0.0
        rss_bytes = 0
        processes = self.look()
        for process in processes:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                cpu_s += times.user + times.system
                rss_bytes += process.memory_info().rss
        return Usage(cpu_s, rss_bytes, len(processes))

    def pss_bytes(self) -> int:
        """Memory, with shared pages divided among those who share them."""
        return sum(_pss_bytes(process.pid) for process in self.look())

    def end(self, grace_s: float) -> int:
        """Wait for all to end, kill those that do not; return how many had to be killed."""
        until_s = time.monotonic() + grace_s
        while (left := self.look()) and time.monotonic() < until_s:
            psutil.wait_procs(left, timeout=0.2)
        killed = 0
        until_s = time.monotonic() + KILLED_WITHIN_S
        while (left := self.look()) and time.monotonic() < until_s:
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.send_signal(signal.SIGKILL)
                    killed += 1
            psutil.wait_procs(left, timeout=1.0)
        return killed

    def _is_marked(self, pid: int) -> bool:
        try:
            return self._mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return False


def _running(processes: Iterable[psutil.Process]) -> Iterator[psutil.Process]:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                process.create_time()
                yield process


def _pss_bytes(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
