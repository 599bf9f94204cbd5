"""The metrics of a node agent, and with them those of its replicas, which it reads when somebody looks."""

import asyncio
from collections.abc import Callable, Iterable

from slipknot_core.admin import AdminServer, fetch_readings
from slipknot_core.loop_lag import LoopLag
from slipknot_core.metrics import Counts, Reading, counters, gauge

READ_TIMEOUT_S = 1.0
"""A replica whose loop is blocked does not answer; the others are shown all the same."""
MAX_READS = 16
"""At one time."""


def metrics_address(metrics_dir: str, replica_id: str) -> str:
    """Where a replica shows its metrics to its node agent."""
    return f"unix:{metrics_dir}/m-{replica_id.rpartition('#')[2]}.sock"


class NodeMetrics:
    """Belongs to the loop `start` is called on.

    Args:
        replica_ids: Those that run.
        is_joined: The controller knows the node.
        token: What readers must send; empty on loopback and Unix sockets.
    """

    def __init__(
        self, replica_ids: Callable[[], Iterable[str]], is_joined: Callable[[], bool], *, token: str = ""
    ) -> None:
        self.metrics_dir = ""
        """Where replicas are to show theirs; empty: nobody looks."""
        self._replica_ids = replica_ids
        self._is_joined = is_joined
        self._exits = Counts()
        self._loop_lag = LoopLag()
        self._admin = AdminServer(self.readings, token=token)

    def __repr__(self) -> str:
        return f"<NodeMetrics {self._admin!r}>"

    async def start(self, admin_address: str, metrics_dir: str) -> str:
        """Listen; returns the address with its real port. An empty address: nothing is done.

        Args:
            admin_address: Where to listen.
            metrics_dir: Private directory for the sockets of the replicas; outlives this agent as they do.

        Raises:
            ValueError, OSError: The address cannot be used.
        """
        if not admin_address:
            return ""
        self._loop_lag.start()
        self.metrics_dir = metrics_dir
        return await self._admin.start(admin_address)

    async def stop(self) -> None:
        """End; twice and before `start` is fine."""
        await self._admin.stop()
        self._loop_lag.stop()

    def exited(self, exit_code: int) -> None:
        """A replica's process has ended."""
        self._exits.add(("ok" if exit_code == 0 else "killed" if exit_code < 0 else "failed",))

    async def readings(self) -> list[Reading]:
        """The node's own, and those of all replicas that answer."""
        ids = list(self._replica_ids())
        slots = asyncio.Semaphore(MAX_READS)
        found = await asyncio.gather(*(_read(self.metrics_dir, i, slots) for i in ids))
        return [
            gauge("slipknot_node_replicas", "Replica processes, starting ones included.", len(ids)),
            gauge("slipknot_node_unread_replicas", "Replicas that did not answer.", found.count(None)),
            gauge("slipknot_node_joined", "1: the controller knows the node.", float(self._is_joined())),
            gauge("slipknot_node_loop_lag_seconds", "Worst lag of the last 10 s.", self._loop_lag.lag_s),
            counters(
                "slipknot_node_replica_exits", "Replica processes that have ended.", ("how",), self._exits
            ),
            *(reading for readings in found if readings is not None for reading in readings),
        ]


async def _read(metrics_dir: str, replica_id: str, slots: asyncio.Semaphore) -> list[Reading] | None:
    async with slots:
        try:
            return await fetch_readings(metrics_address(metrics_dir, replica_id), READ_TIMEOUT_S)
        except (OSError, ValueError):
            return None
