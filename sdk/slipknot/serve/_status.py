"""What the controller knows, in the words and shapes that Ray Serve's users know."""

from enum import Enum, StrEnum
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from slipknot_proto.v1 import controller_pb2

E = TypeVar("E", bound=Enum)


class ApplicationStatus(StrEnum):
    """How an application does."""

    NOT_STARTED = "NOT_STARTED"
    DEPLOYING = "DEPLOYING"
    RUNNING = "RUNNING"
    DEPLOY_FAILED = "DEPLOY_FAILED"
    UNHEALTHY = "UNHEALTHY"
    DELETING = "DELETING"


class DeploymentStatus(StrEnum):
    """How a deployment does."""

    UPDATING = "UPDATING"
    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"
    DEPLOY_FAILED = "DEPLOY_FAILED"
    UPSCALING = "UPSCALING"
    DOWNSCALING = "DOWNSCALING"


class DeploymentStatusTrigger(StrEnum):
    """What brought a deployment's status about."""

    UNSPECIFIED = "UNSPECIFIED"
    CONFIG_UPDATE_STARTED = "CONFIG_UPDATE_STARTED"
    CONFIG_UPDATE_COMPLETED = "CONFIG_UPDATE_COMPLETED"
    UPSCALE_COMPLETED = "UPSCALE_COMPLETED"
    DOWNSCALE_COMPLETED = "DOWNSCALE_COMPLETED"
    MANUAL_SCALING = "MANUAL_SCALING"
    AUTOSCALING = "AUTOSCALING"
    REPLICA_STARTUP_FAILED = "REPLICA_STARTUP_FAILED"
    HEALTH_CHECK_FAILED = "HEALTH_CHECK_FAILED"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    DELETING = "DELETING"


class ReplicaState(StrEnum):
    """Where a replica stands."""

    PENDING = "PENDING"
    """No node has room for it yet; the deployment's message says why."""
    STARTING = "STARTING"
    UPDATING = "UPDATING"
    RECOVERING = "RECOVERING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    PENDING_MIGRATION = "PENDING_MIGRATION"


class ProxyStatus(StrEnum):
    """How a proxy does."""

    STARTING = "STARTING"
    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"
    DRAINING = "DRAINING"
    DRAINED = "DRAINED"


class DeploymentStatusOverview(BaseModel):
    """One deployment."""

    model_config = ConfigDict(frozen=True)

    status: DeploymentStatus
    """How it does."""
    status_trigger: DeploymentStatusTrigger = DeploymentStatusTrigger.UNSPECIFIED
    """What brought that about."""
    replica_states: dict[ReplicaState, int] = Field(default_factory=dict)
    """Number of replicas in each state; those with none are left out."""
    message: str = ""
    """Why, with the traceback if something failed."""
    target_num_replicas: int = 0
    """Replicas wanted now; with autoscaling this follows the load."""


class ApplicationStatusOverview(BaseModel):
    """One application."""

    model_config = ConfigDict(frozen=True)

    status: ApplicationStatus
    """How it does."""
    message: str = ""
    """Why, with the traceback if something failed."""
    last_deployed_time_s: float = 0.0
    """Unix time of the last deploy."""
    deployments: dict[str, DeploymentStatusOverview] = Field(default_factory=dict)
    """By name."""
    route_prefix: str | None = None
    """None: not reachable over HTTP."""
    docs_path: str | None = None
    """Of the interactive API documentation, below the prefix; None: there is none."""


class ServeStatus(BaseModel):
    """The whole cluster."""

    model_config = ConfigDict(frozen=True)

    proxies: dict[str, ProxyStatus] = Field(default_factory=dict)
    """By the proxy's id."""
    applications: dict[str, ApplicationStatusOverview] = Field(default_factory=dict)
    """By name."""
    target_capacity: float | None = None
    """Always None."""


def status_from_proto(message: "controller_pb2.ClusterStatus") -> ServeStatus:
    """Read the controller's answer; words of a newer controller become the closest known ones."""
    return ServeStatus(
        proxies={p.proxy_id: _known(ProxyStatus, p.status, ProxyStatus.HEALTHY) for p in message.proxies},
        applications={a.name: _application(a) for a in message.applications},
    )


def _application(message: "controller_pb2.ApplicationStatus") -> ApplicationStatusOverview:
    return ApplicationStatusOverview(
        status=_known(ApplicationStatus, message.status, ApplicationStatus.DEPLOYING),
        message=message.message,
        last_deployed_time_s=message.deployed_time_s,
        deployments={d.name: _deployment(d) for d in message.deployments},
        route_prefix=message.route_prefix or None,
        docs_path=message.docs_path or None,
    )


def _deployment(message: "controller_pb2.DeploymentStatus") -> DeploymentStatusOverview:
    counts: dict[ReplicaState, int] = {}
    for text, count in sorted(message.replica_states.items()):
        # The controller says DRAINING for those that finish what they run.
        state = _known(ReplicaState, text, ReplicaState.STOPPING)
        if count:
            counts[state] = counts.get(state, 0) + count
    return DeploymentStatusOverview(
        status=_known(DeploymentStatus, message.status, DeploymentStatus.UPDATING),
        status_trigger=_known(
            DeploymentStatusTrigger, message.status_trigger, DeploymentStatusTrigger.UNSPECIFIED
        ),
        replica_states=counts,
        message=message.message,
        target_num_replicas=message.target_num_replicas,
    )


def _known(enum: type[E], text: str, otherwise: E) -> E:
    try:
        return enum(text)
    except ValueError:
        return otherwise
