"""What a replica counts, and what it shows of itself to its node agent."""

from typing import TYPE_CHECKING

from slipknot_core.metrics import (
    Counts,
    Distributions,
    Reading,
    counter,
    counters,
    gauge,
    histogram,
)

if TYPE_CHECKING:
    from .server import ReplicaServer

REQUEST = ("route", "method", "status")


class Counters:
    """What a replica has done since it started."""

    def __init__(self) -> None:
        self.completed = 0
        self.cancelled = 0
        self.completed_after_cancel = 0
        """Requests whose code ended normally, or answered, although they had been cancelled."""
        self.outlived = 0
        """Requests whose code went on for more than a second after they had been cancelled."""
        self.requests = Distributions()
        """Milliseconds in the replica, by REQUEST."""
        self.cancelled_by = Counts()
        """By reason."""
        self.refused = Counts()
        """By reason."""
        self.failed_health_checks = 0
        self.loop_stalls = 0
        self.loop_stalled_s = 0.0
        """Sum over all stalls, the one under way included."""


def replica_readings(replica: "ReplicaServer") -> list[Reading]:
    """Everything of the replica's, labelled with application, deployment and replica."""
    launch, counts = replica.launch, replica.counters
    labels = {
        "application": launch.app_name,
        "deployment": launch.deployment.name,
        "replica": launch.replica_id,
    }
    readings = [*_requests(counts), *_state(replica), *_totals(counts)]
    return [reading.labelled(labels) for reading in readings]


def _requests(counts: Counters) -> list[Reading]:
    totals = {labels: float(d.count) for labels, d in counts.requests.items()}
    return [
        counters("slipknot_replica_requests", "Requests and handle calls that have ended.", REQUEST, totals),
        counters(
            "slipknot_replica_errors",
            "Those of them that failed: ERROR, 5xx, 1011.",
            REQUEST,
            {labels: total for labels, total in totals.items() if is_error(str(labels[2]))},
        ),
        histogram(
            "slipknot_replica_processing_latency_ms",
            "From Open to the end of user code.",
            REQUEST,
            counts.requests,
        ),
        counters(
            "slipknot_replica_cancelled_requests",
            "Requests cancelled while they ran.",
            ("reason",),
            counts.cancelled_by,
        ),
        counters(
            "slipknot_replica_refused_requests",
            "Requests that were not admitted, or not at once.",
            ("reason",),
            counts.refused,
        ),
    ]


def _state(replica: "ReplicaServer") -> list[Reading]:
    admission = replica.admission
    return [
        gauge("slipknot_replica_ongoing_requests", "Slots taken.", admission.ongoing),
        gauge("slipknot_replica_max_ongoing_requests", "Slots.", admission.max_ongoing),
        gauge("slipknot_replica_waiting_requests", "Callers that wait for a slot here.", admission.waiting),
        gauge(
            "slipknot_replica_multiplexed_models",
            "Models that are loaded or being loaded.",
            len(replica.models.model_ids),
        ),
        gauge(
            "slipknot_replica_outliving_requests",
            "Requests that were cancelled and whose code still runs.",
            replica.outliving,
        ),
    ]


def _totals(counts: Counters) -> list[Reading]:
    return [
        counter(
            "slipknot_replica_outlived_requests",
            "Requests whose code went on for more than a second after they had been cancelled.",
            counts.outlived,
        ),
        counter(
            "slipknot_replica_completed_after_cancel",
            "Requests whose code answered although they had been cancelled.",
            counts.completed_after_cancel,
        ),
        counter("slipknot_replica_failed_health_checks", "Health checks.", counts.failed_health_checks),
        counter(
            "slipknot_replica_loop_stalls", "Times that code blocked the event loop.", counts.loop_stalls
        ),
        counter("slipknot_replica_loop_stalled_seconds", "Their sum.", counts.loop_stalled_s),
    ]


def is_error(status: str) -> bool:
    """A request that ended with this failed: user code raised, or said 5xx."""
    return status in ("ERROR", "1011") or (len(status) == 3 and status[0] == "5")
