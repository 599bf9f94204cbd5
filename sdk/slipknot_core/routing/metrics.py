"""What a dispatcher and its routers show of themselves."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..metrics import Counts, Reading, counters, gauge, gauges

if TYPE_CHECKING:
    from .dispatcher import Dispatcher
    from .router import Router

DEPLOYMENT = ("application", "deployment")


@dataclass(eq=False, slots=True)
class RouterCounts:
    """What one router has done since it was made."""

    requests: int = 0
    """Exchanges that came."""
    refused: Counts = field(default_factory=Counts)
    """Answers of replicas that did not admit an exchange, by reason; it was offered again."""
    retries: int = 0
    """Exchanges whose replica was lost, and that were offered again."""
    dropped: int = 0
    """Exchanges that found the queue full."""


def router_readings(dispatcher: "Dispatcher") -> list[Reading]:
    """The routers of this process, and how new what they know is."""
    routers = dispatcher.routers
    snapshot = dispatcher.snapshot
    age_s = 0.0 if dispatcher.snapshot_at_s is None else time.monotonic() - dispatcher.snapshot_at_s
    return [
        gauges(
            "slipknot_router_queued_requests",
            "Requests that wait for a replica.",
            DEPLOYMENT,
            ((tuple(router.deployment_id), router.queued) for router in routers),
        ),
        gauges(
            "slipknot_router_ongoing_requests",
            "Requests of this process that are with a replica, or have a place in its queue.",
            DEPLOYMENT,
            ((tuple(router.deployment_id), router.ongoing) for router in routers),
        ),
        *_totals(routers),
        gauge("slipknot_router_snapshot_age_seconds", "Since the routing state last changed.", age_s),
        gauge("slipknot_router_snapshot_epoch", "Term of the controller that sent it.", snapshot.epoch),
        gauge("slipknot_router_snapshot_version", "Version within the epoch.", snapshot.version),
        gauge(
            "slipknot_router_controller_connected",
            "1: the controller is being followed; 0: what was last known is used.",
            float(dispatcher.is_connected),
        ),
    ]


def _totals(routers: Iterable["Router"]) -> list[Reading]:
    requests, retries, dropped, refused = Counts(), Counts(), Counts(), Counts()
    for router in routers:
        deployment = tuple(router.deployment_id)
        requests.add(deployment, router.counts.requests)
        retries.add(deployment, router.counts.retries)
        dropped.add(deployment, router.counts.dropped)
        for reason, count in router.counts.refused.items():
            refused.add((*deployment, *reason), count)
    return [
        counters(
            "slipknot_router_requests", "Requests that came, handle calls included.", DEPLOYMENT, requests
        ),
        counters(
            "slipknot_router_retries",
            "Requests offered again because their replica was lost: before they began, or repeatable ones.",
            DEPLOYMENT,
            retries,
        ),
        counters(
            "slipknot_router_dropped_requests",
            "Requests refused because max_queued_requests were waiting.",
            DEPLOYMENT,
            dropped,
        ),
        counters(
            "slipknot_router_refusals",
            "Answers of replicas that had no free slot, or drained; the request waited or went elsewhere.",
            (*DEPLOYMENT, "reason"),
            refused,
        ),
    ]
