"""Which node a new replica goes to, and why none does. Pure.

Rules:
- A replica goes to a node that has all its labels, room for all its resources, and fewer replicas of the
  deployment than `max_replicas_per_node`.
- A fraction of a GPU is a fraction of one device; whole numbers are whole devices.
- What a replica holds counts until its process has ended, also while it drains.
- The same question has the same answer: ties are broken by the node's id.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from slipknot_core.ids import DeploymentId
from slipknot_core.resources import CPU, GPU, MEMORY, PlacementStrategy, Resources, label_matches

_UNITS = 10_000
"""Amounts are compared as whole numbers of this fraction, so that ten tenths are one."""
_MAX_NAMED_NODES = 5
"""In the reason why there is no place."""


@dataclass(frozen=True, slots=True)
class NodeOffer:
    """What one node has for replicas."""

    node_id: str
    num_cpus: float = 1.0
    """Infinite: not counted."""
    gpu_ids: tuple[str, ...] = ()
    memory_bytes: int = 0
    """0: not counted."""
    custom: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    answers: bool = True
    """False: it has been silent for a while; it is taken only if no other has room."""

    def amounts(self) -> dict[str, float]:
        """All that it offers, by name."""
        memory = float(self.memory_bytes) if self.memory_bytes else math.inf
        return {CPU: self.num_cpus, GPU: float(len(self.gpu_ids)), MEMORY: memory, **self.custom}


@dataclass(frozen=True, slots=True)
class Holding:
    """A replica's process, and what it holds of its node."""

    replica_id: str
    deployment: DeploymentId
    node_id: str
    resources: Resources = field(default_factory=Resources)
    gpu_ids: tuple[str, ...] = ()
    version: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A replica that is looking for a place."""

    deployment: DeploymentId
    resources: Resources = field(default_factory=Resources)
    strategy: PlacementStrategy = PlacementStrategy.SPREAD
    max_replicas_per_node: int = 0
    """0: no limit."""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where it goes, and the GPUs that it gets there."""

    node_id: str
    gpu_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NoPlace:
    """Why it goes nowhere."""

    reason: str
    blockers: tuple[str, ...] = ()
    """Replicas of other versions of the same deployment that would make room if they all ended; empty: that
    would not help.
    """


def place(wanted: Wanted, nodes: Iterable[NodeOffer], holdings: Iterable[Holding]) -> Place | NoPlace:
    """Choose a node for one replica.

    Args:
        wanted: What it needs.
        nodes: Those that are here.
        holdings: All replicas that hold something, wherever they are.
    """
    held: dict[str, list[Holding]] = {}
    for holding in holdings:
        held.setdefault(holding.node_id, []).append(holding)
    candidates = [(node, held.get(node.node_id, [])) for node in sorted(nodes, key=lambda n: n.node_id)]
    obstacles = [(_obstacle(wanted, node, there), node, there) for node, there in candidates]
    fitting = [(node, there) for obstacle, node, there in obstacles if not obstacle]
    if not fitting:
        reason = _reason(wanted, [obstacle for obstacle, _, _ in obstacles])
        return NoPlace(reason, _blockers(wanted, candidates))
    node, there = min(fitting, key=lambda pair: _preference(wanted, *pair))
    return Place(node.node_id, _devices(node, there, wanted.resources.num_gpus) or ())


def used_amounts(holdings: Iterable[Holding]) -> dict[str, float]:
    """What these hold together, by name."""
    units: dict[str, float] = {}
    for holding in holdings:
        for name, amount in holding.resources.amounts().items():
            units[name] = units.get(name, 0) + _units(amount)
    return {name: amount / _UNITS for name, amount in units.items()}


def _units(amount: float) -> float:
    """As a whole number of units; a little is never nothing."""
    return amount if math.isinf(amount) else max(round(amount * _UNITS), 1 if amount > 0 else 0)


def _obstacle(wanted: Wanted, node: NodeOffer, held: Sequence[Holding]) -> str:
    """Why `wanted` cannot go to `node`; empty if it can."""
    for name, selector in wanted.resources.label_selector.items():
        if not label_matches(node.labels, name, selector):
            value = node.labels.get(name)
            has = f"has {name}={value}" if value is not None else f"has no label {name}"
            return f"node {node.node_id} {has}"
    count = sum(h.deployment == wanted.deployment for h in held)
    if 0 < wanted.max_replicas_per_node <= count:
        return f"node {node.node_id} runs {count} of its replicas already"
    offered, used = node.amounts(), used_amounts(held)
    for name, amount in wanted.resources.amounts().items():
        free_units = _units(offered.get(name, 0.0)) - _units(used.get(name, 0.0))
        if _units(amount) > free_units:
            return _shortage(node.node_id, name, offered.get(name, 0.0), free_units / _UNITS)
    if _devices(node, held, wanted.resources.num_gpus) is None:
        return f"node {node.node_id} has no single GPU with so much left"
    return ""


def _shortage(node_id: str, name: str, offered: float, free: float) -> str:
    if free == offered or offered == 0:
        return f"node {node_id} offers {_amount(name, offered)}"
    whole = f"{offered:,.0f}" if name == MEMORY else f"{offered:g}"
    return f"node {node_id} has {_amount(name, max(0.0, free))} of {whole} free"


def _amount(name: str, amount: float) -> str:
    return f"{amount:,.0f} bytes of memory" if name == MEMORY else f"{amount:g} {name}"


def _devices(node: NodeOffer, held: Sequence[Holding], count: float) -> tuple[str, ...] | None:
    """The GPUs for a replica that needs `count`; None if there are not so many."""
    if count <= 0:
        return ()
    free = {device: _UNITS for device in node.gpu_ids}
    for holding in held:
        share = 1.0 if holding.resources.num_gpus >= 1 else holding.resources.num_gpus
        for device in holding.gpu_ids:
            if device in free:
                free[device] -= int(_units(share))
    if count >= 1:
        whole = [device for device in node.gpu_ids if free[device] == _UNITS]
        return tuple(whole[: int(count)]) if len(whole) >= count else None
    fitting = [device for device in node.gpu_ids if free[device] >= _units(count)]
    # The fullest that has room: whole devices stay whole for those who need them.
    return (min(fitting, key=lambda device: free[device]),) if fitting else None


def _preference(wanted: Wanted, node: NodeOffer, held: Sequence[Holding]) -> tuple[object, ...]:
    same = sum(h.deployment == wanted.deployment for h in held)
    offered, used = node.amounts(), used_amounts(held)
    share = max(
        (used.get(name, 0.0) / offered[name] for name in wanted.resources.amounts() if offered.get(name)),
        default=0.0,
    )
    if wanted.strategy is PlacementStrategy.PACK:
        return (not node.answers, -share, -len(held), node.node_id)
    return (not node.answers, same, share, len(held), node.node_id)


def _reason(wanted: Wanted, obstacles: Sequence[str]) -> str:
    if not obstacles:
        return "no node has joined the cluster"
    resources = wanted.resources
    needs = [_amount(name, amount) for name, amount in resources.amounts().items()]
    needs += [f"{name}={selector}" for name, selector in resources.label_selector.items()]
    if wanted.max_replicas_per_node:
        needs.append(f"a node with fewer than {wanted.max_replicas_per_node} of its replicas")
    named = list(obstacles[:_MAX_NAMED_NODES])
    if len(obstacles) > len(named):
        named.append(f"{len(obstacles) - len(named)} more nodes have no room either")
    return f"a replica needs {' and '.join(needs) or 'nothing'}; {', '.join(named)}"


def _blockers(wanted: Wanted, candidates: Sequence[tuple[NodeOffer, Sequence[Holding]]]) -> tuple[str, ...]:
    """The smallest set that a single node could do without."""
    found: list[tuple[str, ...]] = []
    for node, held in candidates:
        left, removed = list(held), []
        for holding in held:
            if holding.deployment != wanted.deployment or holding.version == wanted.version:
                continue
            left.remove(holding)
            removed.append(holding.replica_id)
            if not _obstacle(wanted, node, left):
                found.append(tuple(removed))
                break
    return min(found, key=len, default=())
