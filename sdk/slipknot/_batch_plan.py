"""Which waiting calls form the next batch, and when. Pure: the clock is an argument."""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

DEFAULT_MAX_BATCH_SIZE = 10
DEFAULT_BATCH_WAIT_TIMEOUT_S = 0.01


@dataclass(slots=True)
class BatchOptions:
    """What the decorator was given; sizes and times may be changed later.

    Args:
        max_batch_size: Calls in a batch, or what `size_of` makes of them.
        batch_wait_timeout_s: Seconds that the first call of a batch waits for others.
        max_concurrent_batches: Batches that run at one time.
        size_of: Tells the size of a batch from its items; None: their number.
    """

    max_batch_size: int = DEFAULT_MAX_BATCH_SIZE
    batch_wait_timeout_s: float = DEFAULT_BATCH_WAIT_TIMEOUT_S
    max_concurrent_batches: int = 1
    size_of: Callable[[list[Any]], int] | None = None

    def size(self, items: list[Any]) -> int:
        """The size of a batch of these items."""
        return len(items) if self.size_of is None else self.size_of(items)


class Waiting(Protocol):
    """A call that waits for its batch."""

    @property
    def kind(self) -> Hashable:
        """Only calls of one kind share a batch."""

    @property
    def item(self) -> Any:
        """What its size is told from."""

    @property
    def arrived_s(self) -> float:
        """When it came."""


W = TypeVar("W", bound=Waiting)


def next_batch(waiting: Iterable[W], options: BatchOptions, now_s: float) -> tuple[list[W], float]:
    """Form the next batch of the calls that wait.

    Args:
        waiting: The oldest first.
        options: Of the batches.
        now_s: The clock.

    Returns:
        A batch that is full, or whose first call has waited long enough, and 0; or no batch, and when to look
        again (infinity: when another call comes).
    """
    groups: dict[Hashable, list[W]] = {}
    full: set[Hashable] = set()
    for call in waiting:
        kind = call.kind
        if kind in full:
            continue
        group = groups.setdefault(kind, [])
        if not group or _fits(group, call, options):
            group.append(call)
            if _size(group, options) < options.max_batch_size:
                continue
        full.add(kind)
        if group is next(iter(groups.values())):
            return group, 0.0  # the oldest of all: the others need not be looked at
    wake_s = math.inf
    for kind, group in groups.items():
        ripe_s = group[0].arrived_s + options.batch_wait_timeout_s
        if kind in full or ripe_s <= now_s:
            return group, 0.0
        wake_s = min(wake_s, ripe_s)
    return [], wake_s


def _fits(group: Sequence[W], call: W, options: BatchOptions) -> bool:
    return _size([*group, call], options) <= options.max_batch_size


def _size(group: Sequence[W], options: BatchOptions) -> int:
    if options.size_of is None:
        return len(group)
    try:
        return options.size_of([call.item for call in group])
    except Exception:  # noqa: BLE001 - the user's function; alone, each item has been measured before
        return options.max_batch_size if len(group) == 1 else options.max_batch_size + 1
