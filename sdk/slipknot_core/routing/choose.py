"""Which replica takes the next request. Pure: randomness and the clock are arguments."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar


class Candidate(Protocol):
    """What the choice needs to know of a replica."""

    ongoing: int
    """Requests of this caller that run or wait there."""
    avoid_until_s: float
    """Not before this time: it refused or its connection broke. 0 when it is fine."""

    @property
    def max_ongoing_requests(self) -> int:
        """Its bound."""

    @property
    def node_id(self) -> str:
        """Where it runs."""


C = TypeVar("C", bound=Candidate)


def choose(
    candidates: Sequence[C], *, node_id: str, now_s: float, pick: Callable[[Sequence[C]], C]
) -> C | None:
    """Choose a replica with a free slot, or None if there is none now.

    Power of two choices: of two picked at random, the one with fewer ongoing requests. Replicas on the
    caller's own node come first as long as one of them has a free slot.

    Args:
        candidates: All replicas of the deployment.
        node_id: The caller's node; empty for no preference.
        now_s: The clock.
        pick: Takes one of a non-empty sequence at random.
    """
    free = [c for c in candidates if c.ongoing < c.max_ongoing_requests and c.avoid_until_s <= now_s]
    if len(free) <= 1:
        return free[0] if free else None
    near = [c for c in free if c.node_id == node_id] if node_id else []
    pool = near or free
    first, second = pick(pool), pick(pool)
    return second if second.ongoing < first.ongoing else first
