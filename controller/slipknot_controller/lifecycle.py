"""What may follow what: the states of replicas and the statuses of deployments, as tables. Pure.

A replica, as the controller sees it:

    STARTING   its process was asked for; user code is not ready yet
    RUNNING    it serves
    DRAINING   it finishes what it has and takes nothing new
    FAILED     its constructor raised; the process is about to exit
    LOST       it ran, and its lease has lapsed without a farewell; the process may or may not live
    (gone)     nothing is known of it any more: it is not in the table, it is forgotten

A replica never comes back to an earlier state. A move that is not in the table raises `InvalidTransition`: it
is a bug of the controller's, or a replica that breaks the contract.
"""

from collections.abc import Mapping
from enum import Enum


class ReplicaState(Enum):
    """Where a replica is in its life."""

    STARTING = "STARTING"
    RUNNING = "RUNNING"
    DRAINING = "DRAINING"
    FAILED = "FAILED"
    LOST = "LOST"


class DeploymentStatus(Enum):
    """How a deployment does, in the words that users see."""

    UPDATING = "UPDATING"
    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"
    DEPLOY_FAILED = "DEPLOY_FAILED"
    UPSCALING = "UPSCALING"
    DOWNSCALING = "DOWNSCALING"


class ApplicationStatus(Enum):
    """How an application does, in the words that users see. Computed from its deployments, so it has no
    table.
    """

    NOT_STARTED = "NOT_STARTED"
    DEPLOYING = "DEPLOYING"
    RUNNING = "RUNNING"
    DEPLOY_FAILED = "DEPLOY_FAILED"
    UNHEALTHY = "UNHEALTHY"
    DELETING = "DELETING"


class InvalidTransition(Exception):
    """A move that the table does not know."""

    def __init__(self, subject: str, before: Enum, after: Enum) -> None:
        super().__init__(f"{subject} cannot go from {before.value} to {after.value}")
        self.before, self.after = before, after


_R = ReplicaState
REPLICA_TRANSITIONS: Mapping[ReplicaState, frozenset[ReplicaState]] = {
    _R.STARTING: frozenset({_R.RUNNING, _R.DRAINING, _R.FAILED}),
    _R.RUNNING: frozenset({_R.DRAINING, _R.LOST}),
    _R.DRAINING: frozenset(),
    _R.FAILED: frozenset(),
    _R.LOST: frozenset(),
}
"""Replica state to the states that may follow; each may also be followed by oblivion."""

_D = DeploymentStatus
_WANTED_ANEW = frozenset({_D.UPDATING, _D.UPSCALING, _D.DOWNSCALING})
"""A user may ask for something else at any time."""
_OUTCOMES = frozenset({_D.HEALTHY, _D.UNHEALTHY, _D.DEPLOY_FAILED})

DEPLOYMENT_TRANSITIONS: Mapping[DeploymentStatus, frozenset[DeploymentStatus]] = {
    _D.UPDATING: _WANTED_ANEW | _OUTCOMES,
    _D.UPSCALING: _WANTED_ANEW | _OUTCOMES,
    _D.DOWNSCALING: _WANTED_ANEW | _OUTCOMES,
    # What has once been deployed can only fall ill; it cannot fail to deploy without being deployed anew.
    _D.HEALTHY: _WANTED_ANEW | {_D.UNHEALTHY},
    _D.UNHEALTHY: _WANTED_ANEW | _OUTCOMES,
    # A failed reconfigure is cured when its replica is replaced by one that starts with the new config.
    _D.DEPLOY_FAILED: _WANTED_ANEW | _OUTCOMES,
}
"""Deployment status to those that may follow; the same one may always be kept."""


def check_replica_transition(replica_id: str, before: ReplicaState, after: ReplicaState) -> None:
    """Refuse an illegal move.

    Raises:
        InvalidTransition: It is one.
    """
    if after is not before and after not in REPLICA_TRANSITIONS[before]:
        raise InvalidTransition(f"replica {replica_id}", before, after)


def check_deployment_transition(deployment: str, before: DeploymentStatus, after: DeploymentStatus) -> None:
    """Refuse an illegal move.

    Raises:
        InvalidTransition: It is one.
    """
    if after is not before and after not in DEPLOYMENT_TRANSITIONS[before]:
        raise InvalidTransition(f"deployment {deployment}", before, after)
