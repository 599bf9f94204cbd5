"""How the number of replicas of a deployment follows its load, as a frozen value."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slipknot_proto.v1 import spec_pb2


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """A function of the user's that decides on numbers of replicas."""

    policy_function: str
    """Import path."""
    policy_kwargs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_proto(cls, message: spec_pb2.AutoscalingPolicy) -> "PolicySpec":
        """Read the message."""
        kwargs_json = message.policy_kwargs_json
        return cls(message.policy_function, json.loads(kwargs_json) if kwargs_json else {})

    def to_proto(self) -> spec_pb2.AutoscalingPolicy:
        """Write the message."""
        return spec_pb2.AutoscalingPolicy(
            policy_function=self.policy_function, policy_kwargs_json=json.dumps(dict(self.policy_kwargs))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscalingSpec:
    """Bounds, target and timing. Units and meaning as in `AutoscalingSpec` of spec.proto."""

    min_replicas: int = 1
    max_replicas: int = 1
    initial_replicas: int | None = None
    target_ongoing_requests: float = 2.0
    look_back_period_s: float = 30.0
    upscale_delay_s: float = 30.0
    downscale_delay_s: float = 600.0
    downscale_to_zero_delay_s: float = 600.0
    upscaling_factor: float = 1.0
    downscaling_factor: float = 1.0
    aggregation_function: str = "mean"
    policy_function: str = ""
    policy_kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def first_number(self) -> int:
        """Replicas of a deployment that had none before."""
        return self.min_replicas if self.initial_replicas is None else self.initial_replicas

    def within_bounds(self, number: int) -> int:
        """The allowed number that is nearest."""
        return max(self.min_replicas, min(self.max_replicas, number))

    @classmethod
    def from_proto(cls, message: spec_pb2.AutoscalingSpec) -> "AutoscalingSpec":
        """Read the message."""
        return cls(
            min_replicas=message.min_replicas,
            max_replicas=message.max_replicas,
            initial_replicas=message.initial_replicas if message.has_initial_replicas else None,
            target_ongoing_requests=message.target_ongoing_requests,
            look_back_period_s=message.look_back_period_s,
            upscale_delay_s=message.upscale_delay_s,
            downscale_delay_s=message.downscale_delay_s,
            downscale_to_zero_delay_s=message.downscale_to_zero_delay_s,
            upscaling_factor=message.upscaling_factor,
            downscaling_factor=message.downscaling_factor,
            aggregation_function=message.aggregation_function,
            policy_function=message.policy_function,
            policy_kwargs=json.loads(message.policy_kwargs_json) if message.policy_kwargs_json else {},
        )

    def to_proto(self) -> spec_pb2.AutoscalingSpec:
        """Write the message."""
        return spec_pb2.AutoscalingSpec(
            min_replicas=self.min_replicas,
            max_replicas=self.max_replicas,
            initial_replicas=self.initial_replicas or 0,
            has_initial_replicas=self.initial_replicas is not None,
            target_ongoing_requests=self.target_ongoing_requests,
            look_back_period_s=self.look_back_period_s,
            upscale_delay_s=self.upscale_delay_s,
            downscale_delay_s=self.downscale_delay_s,
            downscale_to_zero_delay_s=self.downscale_to_zero_delay_s,
            upscaling_factor=self.upscaling_factor,
            downscaling_factor=self.downscaling_factor,
            aggregation_function=self.aggregation_function,
            policy_function=self.policy_function,
            policy_kwargs_json=json.dumps(dict(self.policy_kwargs)) if self.policy_kwargs else "",
        )
