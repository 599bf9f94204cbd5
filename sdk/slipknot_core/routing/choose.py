"""Which replica takes the next request. Pure: randomness and the clock are arguments."""

from collections.abc import Callable, Collection, Sequence
from hashlib import blake2b
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

    @property
    def replica_id(self) -> str:
        """Its id."""

    @property
    def model_ids(self) -> Collection[str]:
        """Multiplexed models that it holds, as far as this caller knows."""


C = TypeVar("C", bound=Candidate)

SAMPLES = 3
"""Pairs that `sample` looks at."""


def choose(
    candidates: Sequence[C],
    *,
    node_id: str,
    now_s: float,
    pick: Callable[[Sequence[C]], C],
    model_id: str = "",
    session_id: str = "",
) -> C | None:
    """Choose a replica with a free slot, or None if there is none now.

    Power of two choices: of two picked at random, the one with fewer ongoing requests. Before that:

    1. A request for a model goes to a replica that holds it. If there is none, to one of those with the
       fewest models; if they are all busy, to any.
    2. A request of a session goes to the session's own replica, the same for all callers, if that is free.
    3. Replicas on the caller's own node come first as long as one of them has a free slot.

    Args:
        candidates: All replicas of the deployment.
        node_id: The caller's node; empty for no preference.
        now_s: The clock.
        pick: Takes one of a non-empty sequence at random.
        model_id: The multiplexed model wanted; empty for none.
        session_id: The session the request is part of; empty for none.
    """
    free = [c for c in candidates if c.ongoing < c.max_ongoing_requests and c.avoid_until_s <= now_s]
    if len(free) <= 1:
        return free[0] if free else None
    if model_id:
        free, candidates = _suited(free, candidates, model_id)
    if session_id:
        home = max(candidates, key=lambda c: _affinity(session_id, c.replica_id))
        if home in free:
            return home
    near = [c for c in free if c.node_id == node_id] if node_id else []
    pool = near or free
    first, second = pick(pool), pick(pool)
    return second if second.ongoing < first.ongoing else first


def sample(
    pool: Sequence[C], *, now_s: float, pick: Callable[[Sequence[C]], C], is_fine: Callable[[C], bool]
) -> C | None:
    """Choose by power of two choices without looking at all; for requests of no model and no session.

    Args:
        pool: Not empty; those on the caller's own node, if there are any.
        now_s: The clock.
        pick: Takes one of them at random.
        is_fine: There is no other reason against it.

    Returns:
        A replica with a free slot; None if some tries found none, which does not mean that there is none.
    """
    for _ in range(SAMPLES):
        pair = (pick(pool), pick(pool))
        free = [c for c in pair if c.ongoing < c.max_ongoing_requests and c.avoid_until_s <= now_s]
        fine = [c for c in free if is_fine(c)]
        if fine:
            return min(fine, key=lambda c: c.ongoing)
    return None


def _suited(free: list[C], candidates: Sequence[C], model_id: str) -> tuple[list[C], Sequence[C]]:
    """Narrow down to those that should take a request for a model; the free ones stay at least one."""
    holders = [c for c in candidates if model_id in c.model_ids]
    if not holders:
        fewest = min(len(c.model_ids) for c in free)
        return [c for c in free if len(c.model_ids) == fewest], candidates
    free_holders = [c for c in free if model_id in c.model_ids]
    return (free_holders, holders) if free_holders else (free, candidates)


def _affinity(session_id: str, replica_id: str) -> bytes:
    # Rendezvous hashing: when a replica comes or goes, only its own sessions move.
    return blake2b(f"{session_id}\0{replica_id}".encode(), digest_size=8).digest()
