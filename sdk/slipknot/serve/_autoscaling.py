"""What an autoscaling policy of the user's is told."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscalingContext:
    """One deployment and its load, at the moment of a decision.

    A policy is a function `policy(context, **policy_kwargs)` that returns the number of replicas it wants, or
    a tuple of that and a dict of JSON values, which it finds in `policy_state` next time.
    """

    app_name: str
    deployment_name: str
    current_num_replicas: int
    """Replicas that run."""
    target_num_replicas: int
    """Replicas that were wanted last."""
    min_replicas: int
    max_replicas: int
    target_ongoing_requests: float
    """As in the `autoscaling_config`."""
    total_ongoing_requests: int
    """Requests that replicas work on."""
    total_queued_requests: int
    """Requests that wait for a replica, over all callers."""
    total_num_requests: int
    """Both together."""
    history: tuple[tuple[float, int], ...] = ()
    """(seconds, total): the total since then, over the look-back period, oldest first; now is 0."""
    policy_state: dict[str, Any] = field(default_factory=dict)
    """What the policy returned last time; empty at first and after a restart of the controller."""
