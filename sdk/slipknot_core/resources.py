"""What a replica needs of its node, and which nodes a label selector means. Pure but for `from_proto`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from slipknot_proto.v1 import spec_pb2

CPU, GPU, MEMORY = "CPU", "GPU", "memory"
"""Names of the built-in resources in statuses and messages; custom ones must have others."""

ACCELERATOR_LABEL = "accelerator-type"
"""Label of a node that `accelerator_type` of `ray_actor_options` asks for."""


class PlacementStrategy(Enum):
    """Which of the nodes that have room gets a new replica."""

    SPREAD = "spread"
    """The node with the fewest replicas of the deployment."""
    PACK = "pack"
    """The fullest node."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What one replica needs of its node, or holds of it."""

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    """A fraction of one, or a whole number."""
    memory_bytes: int = 0
    custom: Mapping[str, float] = field(default_factory=dict)
    label_selector: Mapping[str, str] = field(default_factory=dict)
    """Labels the node must have: "value", "!value", "in(a,b)" or "!in(a,b)"."""

    @classmethod
    def from_proto(cls, message: spec_pb2.ReplicaResources) -> "Resources":
        """Read the message."""
        return cls(
            num_cpus=message.num_cpus if message.HasField("num_cpus") else 1.0,
            num_gpus=message.num_gpus,
            memory_bytes=message.memory_bytes,
            custom=dict(message.custom),
            label_selector=dict(message.label_selector),
        )

    def to_proto(self) -> spec_pb2.ReplicaResources:
        """Write the message."""
        return spec_pb2.ReplicaResources(
            num_cpus=self.num_cpus,
            num_gpus=self.num_gpus,
            memory_bytes=self.memory_bytes,
            custom=dict(self.custom),
            label_selector=dict(self.label_selector),
        )

    @classmethod
    def from_actor_options(cls, options: Mapping[str, Any] | None) -> "Resources":
        """Read checked `ray_actor_options`."""
        options = options or {}
        selector = dict(options.get("label_selector") or {})
        if options.get("accelerator_type"):
            selector[ACCELERATOR_LABEL] = options["accelerator_type"]
        num_cpus = options.get("num_cpus")
        return cls(
            num_cpus=1.0 if num_cpus is None else float(num_cpus),
            num_gpus=float(options.get("num_gpus") or 0.0),
            memory_bytes=int(options.get("memory") or 0),
            custom={name: float(amount) for name, amount in (options.get("resources") or {}).items()},
            label_selector=selector,
        )

    def amounts(self) -> dict[str, float]:
        """All that is more than nothing, by name."""
        amounts = {CPU: self.num_cpus, GPU: self.num_gpus, MEMORY: float(self.memory_bytes), **self.custom}
        return {name: amount for name, amount in amounts.items() if amount > 0}


def label_matches(labels: Mapping[str, str], name: str, selector: str) -> bool:
    """A node with `labels` is one that `selector` of the label `name` means."""
    negated = selector.startswith("!")
    text = selector.removeprefix("!")
    if text.startswith("in(") and text.endswith(")"):
        values = {value.strip() for value in text[3:-1].split(",")}
    else:
        values = {text}
    return (labels.get(name) in values) is not negated
