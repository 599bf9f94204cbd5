"""Options of deployments."""

import json
from dataclasses import fields
from typing import Any

import pytest
from pydantic import BaseModel

from slipknot._option_checks import CHECKS, REMOVED
from slipknot._options import DeploymentOptions, OptionValues, checked
from slipknot.serve.config import AutoscalingConfig, BackpressureConfig, LoggingConfig
from slipknot_core.autoscaling_spec import AutoscalingSpec
from slipknot_core.resources import PlacementStrategy, Resources
from slipknot_core.spec import CodeSource, DeploymentSpec

CODE = CodeSource(pickle=b"code")


def options(**values: Any) -> DeploymentOptions:
    return DeploymentOptions(name="Model").changed(values)


def spec(**values: Any) -> DeploymentSpec:
    return options(**values).to_spec(CODE, "v1", None)


def test_one_list_of_options() -> None:
    """What users may write, what is checked and what is kept name the same options."""
    assert OptionValues.__annotations__.keys() == CHECKS.keys()
    assert {field.name for field in fields(DeploymentOptions)} == CHECKS.keys() - REMOVED.keys()


def test_defaults_are_those_of_the_spec() -> None:
    """An option that is left out has the default that the contract states."""
    assert spec() == DeploymentSpec(name="Model", code=CODE, version="v1")


@pytest.mark.parametrize(
    "values",
    [
        {"num_replicas": 3},
        {"max_ongoing_requests": 100},
        {"max_queued_requests": 1},
        {"max_queued_requests": -1},
        {"graceful_shutdown_wait_loop_s": 0.1},
        {"graceful_shutdown_timeout_s": 0},
        {"health_check_period_s": 1},
        {"health_check_timeout_s": 2.5},
    ],
)
def test_effective_options_reach_the_spec(values: dict[str, Any]) -> None:
    """Each has a field of its own."""
    made = spec(**values)
    for name, value in values.items():
        assert getattr(made, name) == value


WRONG_TYPE: list[tuple[str, Any]] = [
    ("name", 3),
    ("num_replicas", 1.5),
    ("num_replicas", True),
    ("max_ongoing_requests", "5"),
    ("max_ongoing_requests", 5.0),
    ("max_queued_requests", "x"),
    ("max_queued_requests", None),
    ("max_queued_requests", 1.5),
    ("graceful_shutdown_timeout_s", "soon"),
    ("health_check_period_s", True),
    ("ray_actor_options", 5),
    ("ray_actor_options", {"num_cpus": "two"}),
    ("ray_actor_options", {"resources": [1]}),
    ("ray_actor_options", {"label_selector": {"zone": 1}}),
    ("ray_actor_options", {"label_selector": {1: "a"}}),
    ("ray_actor_options", {"resources": {1: 1}}),
    ("placement_strategy", 1),
    ("autoscaling_config", 5),
    ("backpressure_config", "503"),
    ("logging_config", "DEBUG"),
    ("http_adapter", "json_request"),
    ("max_replicas_per_node", "1"),
]

NOT_ALLOWED: list[tuple[str, Any]] = [
    ("name", ""),
    ("name", "x" * 201),
    ("num_replicas", 0),
    ("num_replicas", -1),
    ("num_replicas", 1001),
    ("num_replicas", "many"),
    ("max_ongoing_requests", 0),
    ("max_ongoing_requests", -1),
    ("max_ongoing_requests", None),
    ("max_queued_requests", 0),
    ("max_queued_requests", -2),
    ("graceful_shutdown_wait_loop_s", 0),
    ("graceful_shutdown_timeout_s", -1),
    ("graceful_shutdown_timeout_s", None),
    ("health_check_period_s", 0),
    ("health_check_timeout_s", float("inf")),
    ("health_check_timeout_s", float("nan")),
    ("max_constructor_retry_count", 0),
    ("max_replicas_per_node", 0),
    ("max_replicas_per_node", 101),
    ("rolling_update_percentage", 0),
    ("rolling_update_percentage", 1.1),
    ("max_surge_percent", -0.1),
    ("user_config", {"model": object()}),
    ("ray_actor_options", {"num_cpu": 1}),
    ("ray_actor_options", {"num_gpus": -1}),
    ("ray_actor_options", {"resources": {"tpu": -1}}),
    ("ray_actor_options", {"runtime_env": {"pip": ["numpy"]}}),
    ("ray_actor_options", {"num_gpus": 1.5}),
    *(
        ("ray_actor_options", {"label_selector": {"zone": selector}})
        for selector in ("in(a", "in(a,)", "in()", "!", "", "!!a", "a,b", "notin(a)")
    ),
    ("ray_actor_options", {"num_cpus": 0.00001}),
    ("ray_actor_options", {"resources": {"CPU": 1}}),
    ("placement_strategy", "pile"),
    ("backpressure_config", {"status_code": 500}),
    ("logging_config", {"level": "DEBUG"}),
    ("autoscaling_config", {"min_replicas": 2}),
    ("autoscaling_config", {"min_replica": 2}),
    ("request_router_config", {"initial_backoff_s": 0}),
    ("version", "1"),
    ("placement_group_bundles", [{"CPU": 1}]),
    ("placement_group_strategy", "PACK"),
    ("gang_scheduling_config", {}),
    ("deployment_actors", []),
]


@pytest.mark.parametrize(("name", "value"), WRONG_TYPE)
def test_wrong_types(name: str, value: Any) -> None:
    """A value of the wrong type is a TypeError that names the option."""
    with pytest.raises(TypeError, match="deployment" if name == "name" else name):
        options(**{name: value})


@pytest.mark.parametrize(("name", "value"), NOT_ALLOWED)
def test_values_out_of_range(name: str, value: Any) -> None:
    """A value that is not allowed is a ValueError that names the option."""
    with pytest.raises(ValueError, match="deployment" if name == "name" else name):
        options(**{name: value})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("num_replica", "did you mean 'num_replicas'"),
        ("route_prefix", "give it to serve.run"),
        ("max_concurrent_queries", "it is called max_ongoing_requests"),
        ("qqq", "the options are name, "),
    ],
)
def test_unknown_options(name: str, text: str) -> None:
    """There is a hint at what was meant."""
    with pytest.raises(TypeError, match=f"no deployment option '{name}'.*{text}"):
        options(**{name: 1})


@pytest.mark.parametrize("name", [*REMOVED, "name", "num_replicas", "user_config", "autoscaling_config"])
def test_none_is_the_default(name: str) -> None:
    """Options of which None says nothing."""
    assert options(**{name: None}) == options()


@pytest.mark.parametrize("value", [{}, [], 0, "x", {"a": [1, 2.5, None, True]}])
def test_user_config_is_json(value: Any) -> None:
    """Also an empty one: it makes `reconfigure` be called."""
    assert json.loads(spec(user_config=value).user_config_json) == value


def test_user_config_is_a_copy() -> None:
    """What is changed afterwards does not change the option; tuples become lists as they will on arrival."""
    given: dict[str, object] = {"sizes": (1, 2)}
    made = options(user_config=given)
    given["sizes"] = ()
    assert made.user_config == {"sizes": [1, 2]}


def test_no_user_config() -> None:
    """None means that `reconfigure` is not called."""
    assert spec(user_config=None).user_config_json == ""


def test_number_and_autoscaling_contradict() -> None:
    """Both at once are refused, also in the default's number."""
    for number in (1, 3):
        with pytest.raises(ValueError, match="contradict"):
            options(num_replicas=number, autoscaling_config={"max_replicas": 3})


def test_the_later_of_number_and_autoscaling_counts() -> None:
    """Given one after the other, the last one replaces the first."""
    scaled = options(num_replicas=3).changed({"autoscaling_config": {"min_replicas": 2, "max_replicas": 4}})
    assert scaled.num_replicas == 2
    fixed = scaled.changed({"num_replicas": 5})
    assert (fixed.num_replicas, fixed.autoscaling_config) == (5, None)
    assert scaled.changed({"max_ongoing_requests": 1}).autoscaling_config is not None


@pytest.mark.parametrize(
    ("config", "number"),
    [
        ({}, 1),
        ({"min_replicas": 0}, 0),
        ({"min_replicas": 2, "max_replicas": 3}, 2),
        ({"min_replicas": 0, "initial_replicas": 3, "max_replicas": 5}, 3),
        (AutoscalingConfig(min_replicas=4, max_replicas=4), 4),
    ],
)
def test_number_to_begin_with(config: Any, number: int) -> None:
    """Autoscaling begins with `initial_replicas`, or with the fewest it may have."""
    assert spec(autoscaling_config=config).num_replicas == number


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, {"min_replicas": 1, "max_replicas": 100}),
        ({"min_replicas": 3}, {"min_replicas": 3, "max_replicas": 100}),
    ],
)
def test_auto(config: Any, expected: dict[str, int]) -> None:
    """ "auto" is autoscaling from 1 to 100, of which parts may be given."""
    made = options(num_replicas="auto", autoscaling_config=config)
    assert made.autoscaling_config is not None
    assert made.autoscaling_config.items() >= expected.items()
    assert made.num_replicas == expected["min_replicas"]


@pytest.mark.parametrize(
    "config", [{"status_code": 429, "retry_after_s": 7}, BackpressureConfig(status_code=429, retry_after_s=7)]
)
def test_backpressure(config: Any) -> None:
    """Dict and model are the same."""
    made = spec(backpressure_config=config)
    assert (made.backpressure_status_code, made.backpressure_retry_after_s) == (429, 7)


def test_the_most_specific_logging_counts() -> None:
    """The deployment's goes before the application's."""
    application = {"log_level": "ERROR"}
    assert json.loads(options().to_spec(CODE, "v", application).logging_config_json) == application
    own = options(logging_config=LoggingConfig(log_level="DEBUG")).to_spec(CODE, "v", application)
    assert json.loads(own.logging_config_json)["log_level"] == "DEBUG"


@pytest.mark.parametrize(
    "values",
    [
        {"request_router_config": {"max_backoff_s": 1.0}},
        {"max_constructor_retry_count": 7},
    ],
)
def test_options_for_later_are_kept(values: dict[str, Any]) -> None:
    """They are in the spec as JSON, and nothing else is."""
    assert json.loads(spec(**values).extra_options_json) == values


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"max_replicas": 3}, AutoscalingSpec(max_replicas=3)),
        (
            {"min_replicas": 0, "downscale_delay_s": 7, "smoothing_factor": 0.5},
            AutoscalingSpec(
                min_replicas=0,
                downscale_delay_s=7,
                downscale_to_zero_delay_s=7,
                upscaling_factor=0.5,
                downscaling_factor=0.5,
            ),
        ),
        (
            {"upscale_smoothing_factor": 0.5, "downscale_smoothing_factor": 0.25, "smoothing_factor": 3},
            AutoscalingSpec(upscaling_factor=0.5, downscaling_factor=0.25),
        ),
        (
            {"downscale_to_zero_delay_s": 0, "upscaling_factor": 2, "policy": {"policy_function": "m:f"}},
            AutoscalingSpec(downscale_to_zero_delay_s=0, upscaling_factor=2, policy_function="m:f"),
        ),
    ],
)
def test_autoscaling_of_the_spec(config: dict[str, Any], expected: AutoscalingSpec) -> None:
    """What is left out has its default; one delay and one factor may stand for two."""
    assert spec(autoscaling_config=config).autoscaling == expected
    assert spec(num_replicas=2).autoscaling is None


def test_update_options_of_the_spec() -> None:
    """They are fields of their own."""
    made = spec(rolling_update_percentage=0.5, max_surge_percent=0.25)
    assert (made.rolling_update_percentage, made.max_surge_percent) == (0.5, 0.25)
    assert (spec().rolling_update_percentage, spec().max_surge_percent) == (0.2, 0.0)


def test_what_a_replica_needs_of_its_node() -> None:
    """Resources, labels and environment have fields of their own in the spec."""
    assert spec().resources == Resources(num_cpus=1.0)
    made = spec(
        ray_actor_options={
            "num_cpus": 0.5,
            "num_gpus": 2,
            "memory": 1e9,
            "resources": {"tpu": 1},
            "label_selector": {"zone": "!b"},
            "accelerator_type": "A100",
            "runtime_env": {"env_vars": {"A": "1"}},
        },
        max_replicas_per_node=2,
        placement_strategy="PACK",
    )
    assert made.resources == Resources(
        0.5, 2.0, 1_000_000_000, {"tpu": 1.0}, {"zone": "!b", "accelerator-type": "A100"}
    )
    assert (made.max_replicas_per_node, made.placement_strategy) == (2, PlacementStrategy.PACK)
    assert made.env_vars == {"A": "1"}
    assert made.extra_options_json == ""


@pytest.mark.parametrize(("count", "attempts"), [(1, 1), (2, 2), (20, 3)])
def test_constructor_attempts(count: int, attempts: int) -> None:
    """Three for a replica, fewer if fewer are allowed."""
    assert spec(max_constructor_retry_count=count).max_constructor_attempts == attempts


@pytest.mark.parametrize(
    ("values", "differs"),
    [
        ({"num_replicas": 7}, False),
        ({"user_config": {"a": 1}}, False),
        ({"max_ongoing_requests": 7}, False),
        ({"max_queued_requests": 7}, False),
        ({"graceful_shutdown_timeout_s": 7}, False),
        ({"health_check_period_s": 7}, False),
        ({"ray_actor_options": {"num_cpus": 2}}, True),
        ({"max_replicas_per_node": 1}, True),
    ],
)
def test_what_needs_new_replicas(values: dict[str, Any], differs: bool) -> None:
    """Most options are taken over in place."""
    assert (options(**values).restart_key() != options().restart_key()) is differs


def test_adapters() -> None:
    """A function or a model class."""

    class Body(BaseModel):
        x: int

    assert checked({"http_adapter": Body}) == {"http_adapter": Body}
    assert checked({"http_adapter": len}) == {"http_adapter": len}
