"""What a controller shows of itself and of the cluster on its admin port; most of it is the status."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from slipknot_core.ids import DeploymentId
from slipknot_core.metrics import Reading, counters, gauge, gauges
from slipknot_proto.v1 import controller_pb2

from .observed import ObservedDeployment

if TYPE_CHECKING:
    from .coordinator import Coordinator

DEPLOYMENT = ("application", "deployment")

REPLICA_STATES = ("STARTING", "RUNNING", "STOPPING")
"""Shown with 0 too, so that they return to it."""


def controller_readings(coordinator: "Coordinator | None") -> list[Reading]:
    """Everything the controller shows; None: it does not lead, and knows nothing to show."""
    leader = gauge("slipknot_controller_leader", "1: this controller leads.", float(coordinator is not None))
    if coordinator is None:
        return [leader]
    status = coordinator.publisher.status()
    return [
        leader,
        gauge("slipknot_controller_epoch", "The controller's term.", status.epoch),
        gauge("slipknot_controller_snapshot_version", "Of the routing state.", status.snapshot_version),
        gauge("slipknot_controller_proxies", "Proxies that are connected.", len(status.proxies)),
        gauge("slipknot_controller_nodes", "Node agents that are connected.", len(status.nodes)),
        *_replica_fates(coordinator.observed),
        *_applications(status),
    ]


def _replica_fates(observed: Mapping[DeploymentId, ObservedDeployment]) -> list[Reading]:
    return [
        counters(
            f"slipknot_controller_replica_{what}",
            help_,
            DEPLOYMENT,
            {tuple(deployment_id): float(getattr(seen, field)) for deployment_id, seen in observed.items()},
        )
        for what, help_, field in (
            ("starts", "Replicas that were asked for, since this controller started.", "start_count"),
            ("failed_starts", "Replicas that did not come up.", "failed_start_count"),
            ("restarts", "Replicas that were lost while they ran, and were replaced.", "crash_count"),
        )
    ]


def _applications(status: controller_pb2.ClusterStatus) -> list[Reading]:
    deployments = [(a.name, d) for a in status.applications for d in a.deployments]
    return [
        gauges(
            "slipknot_controller_application_status",
            "1 for the status that the application has.",
            ("application", "status"),
            (((a.name, a.status), 1.0) for a in status.applications),
        ),
        gauges(
            "slipknot_controller_deployment_status",
            "1 for the status that the deployment has.",
            (*DEPLOYMENT, "status"),
            (((name, d.name, d.status), 1.0) for name, d in deployments),
        ),
        gauges(
            "slipknot_controller_replicas",
            "Replicas by state.",
            (*DEPLOYMENT, "state"),
            (
                ((name, d.name, state), float(d.replica_states.get(state, 0)))
                for name, d in deployments
                for state in sorted({*REPLICA_STATES, *d.replica_states})
            ),
        ),
        gauges(
            "slipknot_controller_target_replicas",
            "Replicas that the deployment should have.",
            DEPLOYMENT,
            (((name, d.name), float(d.target_num_replicas)) for name, d in deployments),
        ),
        gauges(
            "slipknot_controller_ongoing_requests",
            "Requests that run, as the replicas last told.",
            DEPLOYMENT,
            (((name, d.name), float(sum(r.ongoing for r in d.replicas))) for name, d in deployments),
        ),
    ]
