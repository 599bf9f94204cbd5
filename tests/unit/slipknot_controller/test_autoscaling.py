"""Decisions on the number of replicas: tests/scenarios/autoscaling/*.txt, and what holds for any load.

A line of a scenario is a command; "#" begins a comment.

    options NAME=VALUE …          of the autoscaling
    replicas N                    wanted so far
    at TIME load N -> REPLICAS    a decision at that time, and what it must be
"""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipknot_controller.autoscaling import MAX_SAMPLES, History, ScalingState, decide, desired_number
from slipknot_controller.demand import REPORT_TTL_S, Demand
from slipknot_core.autoscaling_spec import AutoscalingSpec
from slipknot_core.ids import DeploymentId

SCENARIOS = sorted((Path(__file__).parents[2] / "scenarios" / "autoscaling").glob("*.txt"))
MODEL = DeploymentId("app", "Model")

LOADS = st.lists(st.tuples(st.floats(0.01, 20), st.integers(0, 50)), min_size=1, max_size=40)
SPECS = st.builds(
    AutoscalingSpec,
    min_replicas=st.integers(0, 3),
    max_replicas=st.integers(3, 20),
    target_ongoing_requests=st.floats(0.1, 10),
    look_back_period_s=st.floats(0.1, 60),
    upscale_delay_s=st.sampled_from([0.0, 3.0, 30.0]),
    downscale_delay_s=st.sampled_from([0.0, 3.0, 30.0]),
    downscale_to_zero_delay_s=st.sampled_from([0.0, 3.0]),
    upscaling_factor=st.floats(0.1, 3),
    downscaling_factor=st.floats(0.1, 3),
    aggregation_function=st.sampled_from(["mean", "max", "min"]),
)


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    """The decisions are those of the scenario file."""
    scaling, current, state = AutoscalingSpec(), 1, ScalingState()
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match line.partition("#")[0].split():
            case []:
                pass
            case ["options", *words]:
                pairs = (word.partition("=") for word in words)
                scaling = AutoscalingSpec(**{name: json.loads(value) for name, _, value in pairs})
            case ["replicas", count]:
                current = int(count)
            case ["at", at_s, "load", load, "->", expected]:
                current, state = decide(scaling, current, int(load), state, float(at_s))
                assert current == int(expected), f"{path.name}:{number}: {line}\nfound: {current}"
            case _:
                raise AssertionError(f"{path.name}:{number}: {line}")


def test_there_are_scenarios() -> None:
    """The folder is where this test looks for it."""
    assert len(SCENARIOS) >= 5


@given(scaling=SPECS, first=st.integers(0, 20), loads=LOADS)
def test_the_bounds_hold_and_only_the_last_replica_goes(
    scaling: AutoscalingSpec, first: int, loads: list[tuple[float, int]]
) -> None:
    """To none only from one and only when nothing waits; from none at once."""
    current, state, now_s = scaling.within_bounds(first), ScalingState(), 0.0
    for pause_s, load in loads:
        now_s += pause_s
        before = current
        current, state = decide(scaling, before, load, state, now_s)
        assert scaling.min_replicas <= current <= scaling.max_replicas
        if current == 0 and before != 0:
            assert (before, load) == (1, 0)
        if before == 0:
            assert current == (1 if load else 0)
        assert len(state.history.samples) <= MAX_SAMPLES + 2


@given(scaling=SPECS, load=st.integers(0, 50), first=st.integers(1, 20))
def test_a_steady_load_reaches_what_it_needs_and_stays(
    scaling: AutoscalingSpec, load: int, first: int
) -> None:
    """Without overshooting factors, a load that does not change ends in the number that it needs."""
    current, state = scaling.within_bounds(first), ScalingState()
    factors = (scaling.upscaling_factor, scaling.downscaling_factor)
    for step in range(3000):
        current, state = decide(scaling, current, load, state, step * 5.0)
    needed = scaling.within_bounds(math.ceil(load / scaling.target_ongoing_requests - 1e-9))
    if max(factors) <= 1:
        assert current == max(needed, scaling.min_replicas)


@given(current=st.integers(1, 100), load=st.floats(0, 1000), target=st.floats(0.1, 100))
def test_without_factors_the_number_so_far_does_not_matter(current: int, load: float, target: float) -> None:
    """Then it is the load divided by the target."""
    scaling = AutoscalingSpec(min_replicas=0, max_replicas=10_000, target_ongoing_requests=target)
    floor = 1 if current > 1 else 0
    found = desired_number(scaling, current, load)
    assert abs(found - max(floor, load / target)) <= 1


def test_the_mean_is_over_time() -> None:
    """A short peak weighs little, however many samples tell of it."""
    history = History()
    for at_s, load in [(0.0, 0), (9.0, 10), (9.1, 10), (9.2, 10), (10.0, 0)]:
        history = history.extended(at_s, load, 10)
    assert history.aggregated(10, 10, "mean") == pytest.approx(1.0)
    assert history.aggregated(10, 10, "max") == 10
    assert history.aggregated(10, 10, "min") == 0
    assert history.aggregated(14.5, 10, "mean") == pytest.approx(1.0)
    assert history.aggregated(30, 10, "mean") == 0
    assert History().aggregated(1, 10, "mean") == History().aggregated(1, 10, "max") == 0


def test_a_history_is_bounded() -> None:
    """However often the load changes."""
    history = History()
    for step in range(5000):
        history = history.extended(step * 0.001, step % 7, 3600)
    assert len(history.samples) <= MAX_SAMPLES
    assert history.samples[-1] == (4.999, 4999 % 7)


def test_demand_is_that_of_all_callers_until_they_are_silent() -> None:
    """A caller's report replaces its own one before; one that died is forgotten."""
    demand = Demand()
    demand.reported("proxy", {MODEL: 3}, 0.0)
    demand.reported("driver", {MODEL: 2}, 1.0)
    demand.reported("proxy", {MODEL: 4}, 2.0)
    assert demand.queued(MODEL, 2.0) == 6
    assert demand.queued(DeploymentId("app", "Other"), 2.0) == 0
    assert demand.queued(MODEL, 1.0 + REPORT_TTL_S) == 4
    demand.reported("proxy", {}, 2.5)
    assert demand.queued(MODEL, 2.5) == 2
    demand.reported("third", {}, 10.0)
    assert repr(demand) == "<Demand of 0 callers>"
