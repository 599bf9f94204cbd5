"""How far a rolling update may go at once. Pure.

With N wanted replicas, `rolling_update_percentage` p and `max_surge_percent` s:
- *batch* = max(1, ⌊N·p⌋): so many replicas are under replacement at one time.
- *surge* = max(1, ⌈N·s⌉): so many more than N may exist meanwhile. One is always allowed where there is room,
  so that a new replica serves before an old one leaves and a single replica leaves no gap.
- What the batch allows beyond the surge is taken from the old replicas beforehand, but only once the new
  version has run: a version that cannot start takes nothing from the one that serves.
- Without room for one more, as many old replicas leave first as one new one needs the place of.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from slipknot_core.spec import DeploymentSpec

from .lifecycle import ReplicaState
from .observed import ObservedDeployment, Replica

_ROUNDING = 1e-9
"""Against 0.1 · 30 being more than 3."""


class Limits(NamedTuple):
    """Of one deployment: replicas under replacement at one time, and above the wanted number."""

    batch: int
    surge: int


def limits(spec: DeploymentSpec) -> Limits:
    """Those that the options of a deployment mean."""
    wanted = spec.num_replicas
    return Limits(
        batch=max(1, math.floor(wanted * spec.rolling_update_percentage + _ROUNDING)),
        surge=max(1, math.ceil(wanted * spec.max_surge_percent - _ROUNDING)),
    )


def is_rolling(spec: DeploymentSpec, observed: ObservedDeployment) -> bool:
    """Replicas of another version serve, and are to be replaced."""
    return any(
        r.state is ReplicaState.RUNNING and r.version != spec.version for r in observed.replicas.values()
    )


def start_count(spec: DeploymentSpec, current: Sequence[Replica], old_count: int) -> int:
    """New replicas to start now.

    Args:
        spec: What is wanted.
        current: Staying replicas of the wanted version.
        old_count: Replicas of other versions that serve.
    """
    missing = spec.num_replicas - len(current)
    if old_count == 0:
        return max(0, missing)
    batch, surge = limits(spec)
    total = len(current) + old_count
    replacing = sum(1 for replica in current if not has_taken_over(replica))
    # What is missing altogether replaces nothing: it is not held back.
    lacking = max(0, spec.num_replicas - total)
    return max(0, min(missing, spec.num_replicas + surge - total, max(lacking, batch - replacing)))


def keep_count(spec: DeploymentSpec, current: Sequence[Replica], *, has_run: bool) -> int:
    """Replicas of other versions that must go on serving.

    Args:
        spec: What is wanted.
        current: Staying replicas of the wanted version.
        has_run: The wanted version has once been RUNNING.
    """
    taken_over = sum(1 for replica in current if has_taken_over(replica))
    batch, surge = limits(spec)
    beforehand = max(0, batch - surge) if has_run else 0
    return max(0, spec.num_replicas - taken_over - beforehand)


def has_taken_over(replica: Replica) -> bool:
    """It serves, and has passed the first health check if it has any: an old one may leave in its place."""
    return replica.state is ReplicaState.RUNNING and not replica.awaits_check
