"""Reconcile one deployment: plan, apply, judge. Synchronous; what it causes comes back as events.

Not guaranteed: that an effect takes place. A command to a replica or a node may be lost with its connection;
the next plan then finds the same difference, or a point in time that has passed, and acts again.
"""

import logging
from typing import Protocol

from slipknot_core.ids import DeploymentId
from slipknot_core.spec import DeploymentSpec

from .condition import deployment_condition
from .desired import Desired
from .engine import NoRoom
from .observed import ObservedDeployment
from .plan import (
    Action,
    BeginDrain,
    FailReconfigure,
    Forget,
    SendDrain,
    SendReconfigure,
    StartReplicas,
    StopReplica,
    plan,
)

logger = logging.getLogger("slipknot.serve")

MAX_ROUNDS = 8
"""A plan that is applied leaves nothing to plan; more rounds than this are a bug."""


class Effects(Protocol):
    """What reconciling does to the world. No call blocks; each may fail silently."""

    def start(self, desired: Desired, rank: int) -> tuple[str, str]:
        """Start a replica; returns its id and its node's.

        Raises:
            NoRoom: No node has a place for it.
        """
        ...

    def stop(self, replica_id: str, grace_s: float) -> bool:
        """End a replica's process; False: nobody knows of it, so it is as good as gone."""
        ...

    def send_drain(self, replica_id: str, timeout_s: float) -> None:
        """Tell a replica to finish and exit."""
        ...

    def send_reconfigure(self, replica_id: str, spec: DeploymentSpec) -> None:
        """Give a replica new options."""
        ...


def reconcile(
    deployment_id: DeploymentId,
    desired: Desired | None,
    observed: ObservedDeployment,
    effects: Effects,
    now_s: float,
) -> float | None:
    """Bring one deployment nearer to what is desired.

    Returns:
        When to look again if nothing happens before; None: never.

    Raises:
        RuntimeError: Planning found no end.
    """
    observed.room_asked()
    applier = _Applier(deployment_id, desired, observed, effects, now_s)
    for _ in range(MAX_ROUNDS):
        planned = plan(desired, observed, now_s)
        if not planned.actions:
            _judge(deployment_id, desired, observed, now_s)
            return planned.wake_at_s
        for action in planned.actions:
            applier.apply(action)
    raise RuntimeError(f"planning deployment {deployment_id} found no end: {planned.actions}")


def _judge(
    deployment_id: DeploymentId, desired: Desired | None, observed: ObservedDeployment, now_s: float
) -> None:
    before = observed.status
    condition = deployment_condition(desired, observed, now_s)
    if observed.set_status(str(deployment_id), *condition) and observed.status is not before:
        level = logging.INFO if not condition.message else logging.WARNING
        logger.log(
            level,
            "Deployment %r of application %r became %s (%s). %s",
            deployment_id.name,
            deployment_id.app_name,
            condition.status.value,
            condition.trigger,
            condition.message,
        )


class _Applier:
    """Applies actions: the effect first, then the note of it in the observed state."""

    def __init__(
        self,
        deployment_id: DeploymentId,
        desired: Desired | None,
        observed: ObservedDeployment,
        effects: Effects,
        now_s: float,
    ) -> None:
        self._id, self._desired, self._observed = deployment_id, desired, observed
        self._effects, self._now_s = effects, now_s

    def apply(self, action: Action) -> None:
        match action:
            case StartReplicas(count):
                self._start(count)
            case BeginDrain(replica_id, reason, is_unhealthy):
                self._observed.drain_begun(replica_id, self._now_s, is_unhealthy=is_unhealthy)
                logger.info("Draining replica %s: %s.", replica_id, reason)
            case SendDrain(replica_id, timeout_s):
                self._effects.send_drain(replica_id, timeout_s)
                self._observed.drain_sent(replica_id, timeout_s, self._now_s)
            case StopReplica(replica_id, grace_s):
                self._stop(replica_id, grace_s)
            case Forget(replica_id, message):
                logger.warning("Gave up replica %s: %s", replica_id, message)
                self._observed.gone(replica_id, message, self._now_s)
            case SendReconfigure(replica_id):
                self._reconfigure(replica_id)
            case FailReconfigure(replica_id):
                self._fail_reconfigure(replica_id)

    def _start(self, count: int) -> None:
        if self._desired is None:
            return
        for started in range(count):
            rank = self._observed.free_rank(self._desired.spec.version)
            try:
                replica_id, node_id = self._effects.start(self._desired, rank)
            except NoRoom as error:
                self._observed.room_asked(error.reason, error.blockers)
                count = started
                break
            replica = self._observed.launched(replica_id, self._desired.spec, self._now_s, rank)
            replica.node_id = node_id
        if count == 0:
            return
        logger.info(
            "Added %d replica%s to deployment %r in application %r.",
            count,
            "" if count == 1 else "s",
            self._id.name,
            self._id.app_name,
        )

    def _stop(self, replica_id: str, grace_s: float) -> None:
        if self._effects.stop(replica_id, grace_s):
            self._observed.stop_sent(replica_id, grace_s, self._now_s)
        else:
            self._observed.gone(replica_id, f"Replica {replica_id} was lost with its node.", self._now_s)

    def _reconfigure(self, replica_id: str) -> None:
        if self._desired is None:
            return
        self._effects.send_reconfigure(replica_id, self._desired.spec)
        self._observed.reconfigure_sent(replica_id, self._desired.spec, self._now_s)

    def _fail_reconfigure(self, replica_id: str) -> None:
        pending = self._observed.replicas[replica_id].pending_options
        if pending is not None:
            error = f"Replica {replica_id} did not answer the new options in time."
            self._observed.reconfigured(replica_id, pending.user_config_hash, error)
