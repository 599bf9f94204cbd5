"""How many replicas a deployment should have, by its load. Pure: the clock and the past are arguments.

The load is the number of ongoing requests plus those that are queued anywhere, aggregated over
`look_back_period_s`.

    desired = ⌈current + factor · (load / target_ongoing_requests - current)⌉, within the bounds

1. A step is taken when every decision since the first in its direction asked for it, for as long as the delay
   of that direction.
2. From no replica to one there is no delay, and no look back: somebody waits.
3. Only from one replica may it go to none, and only while nothing is ongoing or queued.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from slipknot_core.autoscaling_spec import AutoscalingSpec

MAX_SAMPLES = 512
"""Of a history; a longer look-back period has coarser samples."""
_ROUNDING = 1e-9
"""Against 3 · 0.1 / 0.1 being more than 3."""


class Sample(NamedTuple):
    """The load from a point in time until the next sample."""

    at_s: float
    load: int


@dataclass(frozen=True, slots=True)
class History:
    """The load so far, oldest first; the last sample holds until now."""

    samples: tuple[Sample, ...] = ()

    def extended(self, now_s: float, load: int, look_back_period_s: float) -> "History":
        """With the load now, and without what is older than the period."""
        samples = self.samples
        begin_s = now_s - look_back_period_s
        first = next((i for i, s in enumerate(samples[1:]) if s.at_s > begin_s), max(0, len(samples) - 1))
        samples = samples[first:]
        if samples and samples[-1].load == load:
            return History(samples)
        finest_s = look_back_period_s / MAX_SAMPLES
        if len(samples) > 1 and now_s - samples[-2].at_s < finest_s:
            samples = samples[:-1]
        return History((*samples, Sample(now_s, load)))

    def aggregated(self, now_s: float, look_back_period_s: float, function: str) -> float:
        """The mean over time, the maximum or the minimum over the period, as far as it is known."""
        spans = list(self._spans(now_s, look_back_period_s))
        if function == "max":
            return max((load for load, _ in spans), default=0)
        if function == "min":
            return min((load for load, _ in spans), default=0)
        length_s = sum(span_s for _, span_s in spans)
        if length_s <= 0:
            return self.samples[-1].load if self.samples else 0
        return sum(load * span_s for load, span_s in spans) / length_s

    def _spans(self, now_s: float, look_back_period_s: float) -> Iterator[tuple[int, float]]:
        begin_s = now_s - look_back_period_s
        ends_s = [*(sample.at_s for sample in self.samples[1:]), now_s]
        for sample, end_s in zip(self.samples, ends_s, strict=False):
            if end_s > begin_s or sample is self.samples[-1]:
                yield sample.load, max(0.0, end_s - max(sample.at_s, begin_s))


@dataclass(frozen=True, slots=True)
class ScalingState:
    """What decisions depend on beside the load: its history, and since when they agree."""

    history: History = History()
    direction: int = 0
    """Of the decisions in a row: 1 upwards, -1 downwards, 0 neither."""
    since_s: float = 0.0
    """The first of them."""


class Decision(NamedTuple):
    """The number of replicas wanted now, and the state for the next decision."""

    number: int
    state: ScalingState


def decide(scaling: AutoscalingSpec, current: int, load: int, state: ScalingState, now_s: float) -> Decision:
    """Decide on the number of replicas.

    Args:
        scaling: The deployment's options.
        current: The number wanted so far.
        load: Ongoing and queued requests now.
        state: That of the decision before; a new one to begin with.
        now_s: The clock.
    """
    history = state.history.extended(now_s, load, scaling.look_back_period_s)
    settled = ScalingState(history)
    allowed = scaling.within_bounds(current)
    if allowed != current:
        return Decision(allowed, settled)
    if current == 0:
        return Decision(scaling.within_bounds(1 if load > 0 else 0), settled)
    average = history.aggregated(now_s, scaling.look_back_period_s, scaling.aggregation_function)
    desired = desired_number(scaling, current, average)
    if desired == 0 and load > 0:
        desired = 1
    direction = (desired > current) - (desired < current)
    if direction == 0:
        return Decision(current, settled)
    since_s = state.since_s if direction == state.direction else now_s
    if now_s - since_s >= delay_s(scaling, current, desired):
        return Decision(desired, settled)
    return Decision(current, ScalingState(history, direction, since_s))


def desired_number(scaling: AutoscalingSpec, current: int, load: float) -> int:
    """What the formula says for 1 or more replicas, within the bounds."""
    needed = load / scaling.target_ongoing_requests
    factor = scaling.upscaling_factor if needed > current else scaling.downscaling_factor
    desired = math.ceil(current + factor * (needed - current) - _ROUNDING)
    if desired >= current > math.ceil(needed - _ROUNDING):
        # A small factor must slow the way down, not end it.
        desired = current - 1
    if current > 1:
        desired = max(1, desired)
    return scaling.within_bounds(max(0, desired))


def delay_s(scaling: AutoscalingSpec, current: int, desired: int) -> float:
    """How long decisions must agree before this step is taken."""
    if desired > current:
        return scaling.upscale_delay_s
    return scaling.downscale_to_zero_delay_s if desired == 0 else scaling.downscale_delay_s
