"""Which replicas still say something. Pure: the clock is an argument.

A replica that was sent something and has said nothing at all since is no good place for the next request:
its process may be stopped, its machine gone, or its event loop blocked. Whether it is dead is for gRPC's
keepalive to find out; until then requests go to the others, if there are any.
"""

from collections.abc import Collection
from typing import Protocol, TypeVar

SILENT_AFTER_S = 0.3
"""An answer, or at least the word that the request was accepted, takes a few milliseconds."""


class Heard(Protocol):
    """What this module needs to know of a replica."""

    unanswered_since_s: float
    """When it was first sent something after its last word; 0 if it owes us nothing."""


H = TypeVar("H", bound=Heard)


def is_silent(replica: Heard, now_s: float) -> bool:
    """It owes a word for too long."""
    return 0.0 < replica.unanswered_since_s < now_s - SILENT_AFTER_S


def prefer_answering(replicas: Collection[H], now_s: float) -> Collection[H]:
    """Those that are not silent; all of them if all are: who is only busy may be the first to answer."""
    answering = [replica for replica in replicas if not is_silent(replica, now_s)]
    return answering or replicas
