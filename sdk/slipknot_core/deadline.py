"""A deadline is a point in time made once at the edge; only the RPC edge turns it into what is left."""

import math
import time
from dataclasses import dataclass

MAX_BUDGET_US = 2**63 - 1
"""What the wire can carry; deadlines beyond it are as good as far away."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point on the monotonic clock, in seconds. `NEVER` has no end."""

    at_s: float

    @classmethod
    def after(cls, timeout_s: float | None) -> "Deadline":
        """Make the deadline `timeout_s` from now; None gives `NEVER`."""
        return NEVER if timeout_s is None else cls(time.monotonic() + timeout_s)

    @classmethod
    def from_budget_us(cls, budget_us: int) -> "Deadline":
        """Read the wire form: 0 means no deadline, negative means it has passed."""
        return NEVER if budget_us == 0 else cls(time.monotonic() + budget_us / 1e6)

    def budget_us(self) -> int:
        """Write the wire form: microseconds left, never 0 for a real deadline."""
        if self.at_s == math.inf:
            return 0
        left_us = (self.at_s - time.monotonic()) * 1e6
        return MAX_BUDGET_US if left_us >= MAX_BUDGET_US else int(left_us) or -1

    def remaining_s(self) -> float:
        """Seconds left: `inf` without an end, never negative."""
        return max(0.0, self.at_s - time.monotonic())

    def timeout_s(self) -> float | None:
        """Seconds left for APIs that take None for "no limit"."""
        return None if self.at_s == math.inf else self.remaining_s()

    @property
    def is_never(self) -> bool:
        """There is no end."""
        return self.at_s == math.inf

    def has_expired(self) -> bool:
        """The point has passed."""
        return time.monotonic() >= self.at_s

    def earlier(self, other: "Deadline") -> "Deadline":
        """The earlier of the two."""
        return self if self.at_s <= other.at_s else other


NEVER = Deadline(math.inf)
"""No deadline."""
