"""Notices code that blocks the event loop, and names it in the log and in the metrics."""

import logging
import sys
import threading

from slipknot_core.ids import DeploymentId
from slipknot_core.loop_lag import LoopLag

from .culprit import culprit_of
from .metrics import Counters

logger = logging.getLogger("slipknot.serve")

BLOCKED_AFTER_S = 1.0
"""A loop that has not come round for so long is blocked."""

PERIOD_S = 0.25


class LoopWatchdog:
    """A thread that looks at a loop from outside. Logs once for each stall, and again when it is over.

    It does not free the loop: nothing can. Requests of this replica wait until the code returns.

    Args:
        lag: Of the loop; started.
        deployment_id: Whose loop it is.
        counters: Are told of stalls.
        blocked_after_s: How late it must be.
    """

    def __init__(
        self,
        lag: LoopLag,
        deployment_id: DeploymentId,
        counters: Counters,
        *,
        blocked_after_s: float = BLOCKED_AFTER_S,
    ) -> None:
        self._lag = lag
        self._counters = counters
        self._deployment_id = deployment_id
        self._blocked_after_s = blocked_after_s
        self._loop_thread_id = threading.get_ident()
        self._stopped = threading.Event()
        self._stalled_s = 0.0
        self._thread = threading.Thread(target=self._watch, name="loop-watchdog", daemon=True)

    def start(self) -> None:
        """Begin; call it on the loop's thread."""
        self._loop_thread_id = threading.get_ident()
        self._thread.start()

    def stop(self) -> None:
        """End; twice is fine."""
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(PERIOD_S):
            late_s = self._lag.late_s
            if late_s >= self._blocked_after_s:
                self._on_late(late_s)
            elif self._stalled_s:
                logger.warning("loop_unblocked of %s after %.1f s", self._deployment_id, self._stalled_s)
                self._stalled_s = 0.0

    def _on_late(self, late_s: float) -> None:
        is_new = not self._stalled_s
        self._counters.loop_stalls += is_new
        self._counters.loop_stalled_s += late_s - self._stalled_s
        self._stalled_s = late_s
        if not is_new:
            return
        culprit = culprit_of(sys._current_frames().get(self._loop_thread_id))
        logger.warning(
            "loop_blocked of %s for %.1f s by %s: others wait. Make the handler `def` (it then runs "
            "in a thread), or use `await asyncio.to_thread(...)`. It is here:\n%s",
            self._deployment_id,
            late_s,
            culprit,
            culprit.stack,
            extra={"blocked_request_id": culprit.request_id, "blocked_at": culprit.place},
        )
