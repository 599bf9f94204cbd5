"""When a request whose replica was lost may be sent to another one. Pure: the clock is an argument.

Two cases, told apart by the caller of this module:
- user code certainly did not start (no connection, or the request was never written): always, it costs nobody
  anything;
- it may have started, but there is no sign of it yet: only if running it twice is allowed, if another replica
  is there, a few times at most, and within a budget: a request that kills its replica must not kill them all,
  and a cluster in trouble must not get a multiple of its load.
"""

IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})
"""HTTP methods that may be carried out twice (RFC 9110, 9.2.2)."""

MAX_ATTEMPTS = 3
"""How often one request is sent to replicas that may have begun it."""

BUDGET_RATIO = 0.2
"""Repetitions may make so much of the requests of the window."""

BUDGET_MIN = 32
"""Repetitions that are allowed in each window, however few requests there are."""

WINDOW_S = 10.0


def may_repeat(*, repeatable: bool, attempts: int, others: int) -> bool:
    """Whether a request that may have begun may be sent elsewhere, as far as it alone is concerned.

    Args:
        repeatable: It does no harm if it runs twice, and the user allows it.
        attempts: How often it has been sent.
        others: Replicas that could take it now, without the lost one.
    """
    return repeatable and attempts < MAX_ATTEMPTS and others > 0


class RetryBudget:
    """How many repetitions a window has left; counts in two halves of the window, so that nothing is kept per
    request.
    """

    def __init__(self) -> None:
        self._half_began_s = 0.0
        self._requests = [0, 0]
        self._repetitions = [0, 0]

    def __repr__(self) -> str:
        return f"<RetryBudget {sum(self._repetitions)} repetitions of {sum(self._requests)} requests>"

    def count_request(self, now_s: float) -> None:
        """A new request came."""
        self._turn(now_s)
        self._requests[0] += 1

    def take(self, now_s: float) -> bool:
        """Use up one repetition; False if none is left."""
        self._turn(now_s)
        allowed = max(BUDGET_MIN, int(BUDGET_RATIO * sum(self._requests)))
        if sum(self._repetitions) >= allowed:
            return False
        self._repetitions[0] += 1
        return True

    def _turn(self, now_s: float) -> None:
        halves = int((now_s - self._half_began_s) / (WINDOW_S / 2))
        if halves <= 0:
            return
        kept = halves == 1
        self._requests = [0, self._requests[0] if kept else 0]
        self._repetitions = [0, self._repetitions[0] if kept else 0]
        self._half_began_s = now_s if not kept else self._half_began_s + WINDOW_S / 2
