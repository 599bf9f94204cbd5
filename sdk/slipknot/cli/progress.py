"""What a user sees while replicas start: a live line on a terminal, plain lines elsewhere."""

import sys
from types import TracebackType
from typing import Any

from slipknot_proto.v1 import controller_pb2


class Progress:
    """Shows each new status. A context manager."""

    def __init__(self) -> None:
        self._live: Any = None
        self._last = ""

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            from rich.console import Console

            self._live = Console(stderr=True).status("Deploying …")
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, status: controller_pb2.ClusterStatus) -> None:
        """Show a status if it says something new; may be called from any thread."""
        text = describe(status)
        if text == self._last:
            return
        self._last = text
        if self._live is not None:
            self._live.update(text)
        else:
            sys.stderr.write(text + "\n")


def describe(status: controller_pb2.ClusterStatus) -> str:
    """One line: applications, their status, and how many of their replicas run."""
    parts = []
    for application in status.applications:
        replicas = ", ".join(
            f"{d.name} {d.replica_states.get('RUNNING', 0)}/{d.target_num_replicas}"
            for d in application.deployments
        )
        parts.append(f"{application.name}: {application.status}" + (f" ({replicas})" if replicas else ""))
    return "; ".join(parts) or "no applications"
