"""CPU time and memory of all processes of a system, beside every rate."""

import time
from types import TracebackType

from ..figures import Figure
from ..systems.system import Running


class Cost:
    """What the system takes while the block runs."""

    def __init__(self, running: Running) -> None:
        self._processes = running.processes
        self.elapsed_s = 0.0
        self.cpu_s = 0.0
        self.rss_bytes = 0

    def __enter__(self) -> "Cost":
        self._begun = self._processes.usage()
        self._begun_s = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.elapsed_s = time.monotonic() - self._begun_s
        ended = self._processes.usage()
        self.cpu_s = ended.cpu_s - self._begun.cpu_s
        self.rss_bytes = ended.rss_bytes

    def figures(self, metric: str, case: str, count: int) -> list[Figure]:
        """For `count` requests, or whatever was counted."""
        return [
            Figure(metric, case, "CPU per 1,000", self.cpu_s * 1000 / max(1, count), "s"),
            Figure(metric, case, "CPU", self.cpu_s, "s"),
            Figure(metric, case, "RSS", self.rss_bytes / 2**20, "MiB"),
        ]
