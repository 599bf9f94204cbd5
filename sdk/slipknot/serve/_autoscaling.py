"""What an autoscaling policy of the user's is told."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import AutoscalingConfig


@dataclass(frozen=True, slots=True)
class DeploymentID:
    """Names a deployment to a policy that decides on a whole application."""

    name: str
    app_name: str = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscalingContext:
    """One deployment and its load, at the moment of a decision.

    The policy of a deployment is a function `policy(context, **policy_kwargs)` that returns the number of
    replicas it wants, or a tuple of that and a dict of JSON values, which it finds in `policy_state` next
    time.

    The policy of an application is a function `policy(contexts, **policy_kwargs)`, where `contexts` is a dict
    of these by `DeploymentID`. It returns a dict of numbers by `DeploymentID`, or a tuple of that and the
    state: a dict of dicts by `DeploymentID`, of which each deployment's context has its own next time, or a
    dict of JSON values that all of them have.
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
    running_replicas: tuple[str, ...] = ()
    """Ids of the replicas that run."""
    current_time: float = 0.0
    """Seconds since 1970."""
    config: "AutoscalingConfig | None" = None
    """The deployment's `autoscaling_config`, with its defaults."""

    @property
    def deployment_id(self) -> DeploymentID:
        """Both names."""
        return DeploymentID(self.deployment_name, self.app_name)

    @property
    def total_running_requests(self) -> int:
        """As `total_ongoing_requests`."""
        return self.total_ongoing_requests

    @property
    def capacity_adjusted_min_replicas(self) -> int:
        """As `min_replicas`."""
        return self.min_replicas

    @property
    def capacity_adjusted_max_replicas(self) -> int:
        """As `max_replicas`."""
        return self.max_replicas
