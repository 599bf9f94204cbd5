"""How late an event loop is: a timer that is due twice a second, and comes when the loop gets round to it."""

import asyncio
import time
from collections import deque

PERIOD_S = 0.5
WINDOW_S = 10.0
"""The worst lag of so many seconds is what is shown: Prometheus looks seldom, and stalls are short."""


class LoopLag:
    """Measures one loop. `repr` tells the lag."""

    def __init__(self) -> None:
        self.due_s = 0.0
        """When the loop should next have come round, by the monotonic clock."""
        self._lags: deque[float] = deque(maxlen=int(WINDOW_S / PERIOD_S))
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<LoopLag {self.lag_s:.3f} s>"

    @property
    def lag_s(self) -> float:
        """The worst lag of the last ten seconds; from any thread, also while the loop is blocked."""
        if self._timer is None:
            return 0.0
        return max(0.0, self.late_s, *self._lags)

    @property
    def late_s(self) -> float:
        """How long the loop has been blocked until now; negative: it is not late."""
        return time.monotonic() - self.due_s

    def start(self) -> None:
        """Begin, on the running loop; twice is fine."""
        if self._timer is None:
            self.due_s = time.monotonic()
            self._beat()

    def stop(self) -> None:
        """End; twice is fine."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self) -> None:
        self._lags.append(self.late_s)
        self.due_s = time.monotonic() + PERIOD_S
        self._timer = asyncio.get_running_loop().call_later(PERIOD_S, self._beat)
