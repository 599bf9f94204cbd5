"""Notices code that blocks the event loop, and names it in the log."""

import asyncio
import logging
import sys
import threading
import time
import traceback

logger = logging.getLogger("slipknot.serve")

BLOCKED_AFTER_S = 1.0
"""A loop that has not come round for so long is blocked."""

PERIOD_S = 0.5
MAX_FRAMES = 12


class LoopWatchdog:
    """A thread that looks at a loop from outside. Logs once for each block, with the stack that blocks.

    It does not free the loop: nothing can. Requests of this replica wait until the code returns.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, blocked_after_s: float = BLOCKED_AFTER_S) -> None:
        self._loop = loop
        self._blocked_after_s = blocked_after_s
        self._loop_thread_id = threading.get_ident()
        self._stopped = threading.Event()
        self._beat_s = time.monotonic()
        self._thread = threading.Thread(target=self._watch, name="loop-watchdog", daemon=True)

    def start(self) -> None:
        """Begin; call it on the loop's thread."""
        self._loop_thread_id = threading.get_ident()
        self._beat()
        self._thread.start()

    def stop(self) -> None:
        """End; twice is fine."""
        self._stopped.set()

    def _beat(self) -> None:
        self._beat_s = time.monotonic()
        if not self._stopped.is_set():
            self._loop.call_later(PERIOD_S, self._beat)

    def _watch(self) -> None:
        is_reported = False
        while not self._stopped.wait(PERIOD_S):
            blocked_for_s = time.monotonic() - self._beat_s - PERIOD_S
            if blocked_for_s < self._blocked_after_s:
                is_reported = False
            elif not is_reported:
                is_reported = True
                logger.warning(
                    "loop_blocked for %.1f s: others wait. Make the handler `def` (it then runs "
                    "in a thread), or use `await asyncio.to_thread(...)`. It is here:\n%s",
                    blocked_for_s,
                    self._stack(),
                )

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._loop_thread_id)
        return "".join(traceback.format_stack(frame)[-MAX_FRAMES:]) if frame is not None else "(no stack)"
