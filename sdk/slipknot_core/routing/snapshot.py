"""Immutable routing state, ordered by (epoch, version). Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from slipknot_proto.v1 import discovery_pb2

from ..ids import DeploymentId


@dataclass(frozen=True, slots=True)
class ReplicaRoute:
    """A replica that may get new requests."""

    replica_id: str
    address: str
    node_id: str
    max_ongoing_requests: int
    model_ids: frozenset[str] = frozenset()
    """Multiplexed models that it holds or loads."""


@dataclass(frozen=True, slots=True)
class DeploymentRoute:
    """A deployment and its replicas. `unavailable`: it failed to deploy, so calls fail instead of waiting."""

    id: DeploymentId
    max_ongoing_requests: int = 5
    max_queued_requests: int = -1
    backpressure_status_code: int = 503
    backpressure_retry_after_s: int | None = None
    replicas: tuple[ReplicaRoute, ...] = ()
    unavailable: bool = False
    autoscaled: bool = False
    """The controller wants to know what waits for it."""


@dataclass(frozen=True, slots=True)
class ApplicationRoute:
    """An application; `route_prefix` is None when it is not reachable over HTTP."""

    name: str
    route_prefix: str | None
    ingress_deployment: str
    deployments: Mapping[str, DeploymentRoute] = field(default_factory=dict)
    unavailable: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole routing state at one moment. `Snapshot.EMPTY` comes before all others."""

    epoch: int
    version: int
    applications: Mapping[str, ApplicationRoute] = field(default_factory=dict)
    refuse_pickle: bool = False
    """Replicas read no pickle."""

    @classmethod
    def from_proto(cls, message: discovery_pb2.Snapshot) -> "Snapshot":
        """Read the message."""
        applications = {a.name: _application(a) for a in message.applications}
        return cls(message.epoch, message.version, applications, message.refuse_pickle)

    def is_newer_than(self, other: "Snapshot") -> bool:
        """It replaces `other`: a larger epoch wins, then a larger version."""
        return (self.epoch, self.version) > (other.epoch, other.version)

    def deployment(self, deployment_id: DeploymentId) -> DeploymentRoute | None:
        """The deployment's route, or None."""
        application = self.applications.get(deployment_id.app_name)
        return application.deployments.get(deployment_id.name) if application else None


EMPTY = Snapshot(0, 0)


def _application(message: discovery_pb2.ApplicationRoute) -> ApplicationRoute:
    return ApplicationRoute(
        name=message.name,
        route_prefix=message.route_prefix or None,
        ingress_deployment=message.ingress_deployment,
        deployments={d.name: _deployment(message.name, d) for d in message.deployments},
        unavailable=message.unavailable,
    )


def _deployment(app_name: str, message: discovery_pb2.DeploymentRoute) -> DeploymentRoute:
    retry_after_s = message.backpressure_retry_after_s
    return DeploymentRoute(
        id=DeploymentId(app_name, message.name),
        max_ongoing_requests=message.max_ongoing_requests,
        max_queued_requests=message.max_queued_requests,
        backpressure_status_code=message.backpressure_status_code or 503,
        backpressure_retry_after_s=retry_after_s if retry_after_s >= 0 else None,
        replicas=tuple(
            ReplicaRoute(
                r.replica_id,
                r.address,
                r.node_id,
                r.max_ongoing_requests,
                model_ids=frozenset(r.multiplexed_model_ids),
            )
            for r in message.replicas
        ),
        unavailable=message.unavailable,
        autoscaled=message.autoscaled,
    )
