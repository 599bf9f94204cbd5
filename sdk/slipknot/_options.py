"""The options of a deployment: what each may be, and what follows from it for its spec.

`OptionValues` is what users may write, `checked` judges it, `DeploymentOptions` is the outcome. The
decorator, `Deployment.options` and the config file all go through `checked`.
"""

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypedDict

from slipknot_core.autoscaling_spec import AutoscalingSpec
from slipknot_core.resources import PlacementStrategy, Resources
from slipknot_core.spec import CodeSource, DeploymentSpec

from ._option_checks import CHECKS, REMOVED, autoscaling_config

DEFAULT_CONSTRUCTOR_ATTEMPTS = 3
"""Of each replica."""

AUTO = "auto"
"""As `num_replicas`: the autoscaling of `AUTO_SCALING`."""

AUTO_SCALING: Mapping[str, Any] = {"min_replicas": 1, "max_replicas": 100, "target_ongoing_requests": 2.0}


class OptionValues(TypedDict, total=False):
    """Keywords of `serve.deployment` and `Deployment.options`; each may be left out."""

    name: str | None
    """Unique in the application; default: that of the class or function."""
    version: None
    """Removed: every `serve.run` is a new version."""
    num_replicas: int | str | None
    """Number of replicas, or "auto" for autoscaling from 1 to 100. Default 1."""
    max_ongoing_requests: int
    """Requests that one replica runs at once. Default 5."""
    max_queued_requests: int
    """Requests that each caller may queue; -1: no limit. Default -1."""
    backpressure_config: Any
    """`BackpressureConfig` or dict: what HTTP clients hear when the queue is full."""
    user_config: Any
    """JSON value given to `reconfigure`; changing it in a config file needs no new replica."""
    graceful_shutdown_wait_loop_s: float
    """Seconds between two looks at what still runs. Default 2."""
    graceful_shutdown_timeout_s: float
    """Seconds that ongoing requests may take when a replica stops. Default 20."""
    health_check_period_s: float
    """Seconds between health checks. Default 10."""
    health_check_timeout_s: float
    """Seconds that a health check may take. Default 30."""
    logging_config: Any
    """`LoggingConfig` or dict; default: that of the application."""
    http_adapter: Any
    """Function whose parameters FastAPI injects; its result becomes the handler's argument."""
    max_constructor_retry_count: int
    """Constructor attempts before the deploy fails, at most 3 for each replica. Default 20."""
    autoscaling_config: Any
    """`AutoscalingConfig` or dict: the number of replicas follows the load."""
    ray_actor_options: Mapping[str, Any] | None
    """What a replica needs of its node: num_cpus (default 1), num_gpus, memory (bytes), resources,
    label_selector, accelerator_type; and runtime_env.env_vars.
    """
    max_replicas_per_node: int | None
    """From 1 to 100; None: no limit."""
    placement_strategy: str
    """Which of the nodes with room gets a new replica: "spread" (default) evenly, or "pack" the fullest."""
    request_router_config: Any
    """`RequestRouterConfig` or dict. Kept; not yet effective."""
    rolling_update_percentage: float
    """Share of the replicas that an update replaces at one time, at least one. Default 0.2."""
    max_surge_percent: float
    """Share of replicas above the wanted number during an update; one is always allowed. Default 0."""
    placement_group_bundles: None
    """Not supported; like the three below it must be left out."""
    placement_group_strategy: None
    placement_group_bundle_label_selector: None
    placement_group_fallback_strategy: None
    gang_scheduling_config: None
    """Not supported."""
    deployment_actors: None
    """Not supported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentOptions:
    """Checked options; models are kept as plain JSON values. Units and meaning as in `OptionValues`."""

    name: str
    num_replicas: int = 1
    max_ongoing_requests: int = 5
    max_queued_requests: int = -1
    backpressure_config: Mapping[str, Any] | None = None
    user_config: Any = None
    graceful_shutdown_wait_loop_s: float = 2.0
    graceful_shutdown_timeout_s: float = 20.0
    health_check_period_s: float = 10.0
    health_check_timeout_s: float = 30.0
    logging_config: Mapping[str, Any] | None = None
    http_adapter: Callable[..., Any] | None = None
    max_constructor_retry_count: int = 20
    autoscaling_config: Mapping[str, Any] | None = None
    ray_actor_options: Mapping[str, Any] | None = None
    max_replicas_per_node: int | None = None
    placement_strategy: str = PlacementStrategy.SPREAD.value
    request_router_config: Mapping[str, Any] | None = None
    rolling_update_percentage: float = 0.2
    max_surge_percent: float = 0.0

    def changed(self, values: Mapping[str, Any]) -> "DeploymentOptions":
        """These options with `values` in place of those they name.

        Raises:
            TypeError: There is no such option, or its value is of the wrong type.
            ValueError: A value is not allowed, or two contradict each other.
        """
        return replace(self, **checked(values))

    def to_spec(
        self, code: CodeSource, version: str, logging_config: Mapping[str, Any] | None
    ) -> DeploymentSpec:
        """The desired state that follows.

        Args:
            code: Where replicas get the class from.
            version: Of code and options that need new replicas.
            logging_config: That of the application; the deployment's own one goes before it.
        """
        backpressure = self.backpressure_config or {}
        logging = self.logging_config or logging_config
        actor = self.ray_actor_options or {}
        return DeploymentSpec(
            name=self.name,
            code=code,
            num_replicas=self.num_replicas,
            max_ongoing_requests=self.max_ongoing_requests,
            max_queued_requests=self.max_queued_requests,
            user_config_json="" if self.user_config is None else json.dumps(self.user_config),
            graceful_shutdown_wait_loop_s=self.graceful_shutdown_wait_loop_s,
            graceful_shutdown_timeout_s=self.graceful_shutdown_timeout_s,
            health_check_period_s=self.health_check_period_s,
            health_check_timeout_s=self.health_check_timeout_s,
            backpressure_status_code=backpressure.get("status_code", 503),
            backpressure_retry_after_s=backpressure.get("retry_after_s"),
            version=version,
            extra_options_json=self._extra_options_json(),
            autoscaling=_autoscaling_spec(self.autoscaling_config),
            rolling_update_percentage=self.rolling_update_percentage,
            max_surge_percent=self.max_surge_percent,
            logging_config_json=json.dumps(logging) if logging else "",
            max_constructor_attempts=min(DEFAULT_CONSTRUCTOR_ATTEMPTS, self.max_constructor_retry_count),
            resources=Resources.from_actor_options(self.ray_actor_options),
            max_replicas_per_node=self.max_replicas_per_node or 0,
            placement_strategy=PlacementStrategy(self.placement_strategy),
            env_vars=dict((actor.get("runtime_env") or {}).get("env_vars") or {}),
        )

    def described(self) -> dict[str, Any]:
        """What a config file says of a deployment with these options: the number of its replicas, or how they
        are scaled, and what is not the default. An `http_adapter` is left to the code.
        """
        default = DeploymentOptions(name=self.name)
        number = "num_replicas" if self.autoscaling_config is None else "autoscaling_config"
        described: dict[str, Any] = {"name": self.name, number: getattr(self, number)}
        for option in _IN_CONFIG_FILES:
            value = getattr(self, option)
            if value != getattr(default, option):
                described[option] = value
        return described

    def restart_key(self) -> str:
        """Text that differs when options differ that only a new replica can take over."""
        return json.dumps([self.ray_actor_options, self.max_replicas_per_node], sort_keys=True)

    def _extra_options_json(self) -> str:
        default = DeploymentOptions(name=self.name)
        extra = {key: getattr(self, key) for key in _KEPT if getattr(self, key) != getattr(default, key)}
        return json.dumps(extra, sort_keys=True) if extra else ""


_IN_CONFIG_FILES = tuple(
    option.name
    for option in fields(DeploymentOptions)
    if option.name not in ("name", "num_replicas", "autoscaling_config", "http_adapter")
)

_KEPT = (
    "max_constructor_retry_count",
    "request_router_config",
)
"""Options whose effect comes later; they travel in `extra_options_json`."""


def checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """Judge options as a user wrote them; returns the fields of `DeploymentOptions` that they set.

    Raises:
        TypeError: There is no such option, or its value is of the wrong type.
        ValueError: A value is not allowed, or two contradict each other.
    """
    if values.get("num_replicas") == AUTO:
        values = {**values, "autoscaling_config": auto_scaling(values.get("autoscaling_config"))}
    known = {name: checked_option(name, value) for name, value in values.items()}
    if known.get("name") is None:
        known.pop("name", None)  # keeps the name it has
    for name in REMOVED:
        known.pop(name, None)
    _settle_number(known)
    return known


def checked_option(name: str, value: Any) -> Any:
    """Judge one option.

    Raises:
        TypeError: There is no such option, or the value is of the wrong type.
        ValueError: The value is not allowed.
    """
    check = CHECKS.get(name)
    if check is None:
        raise TypeError(f"there is no deployment option {name!r}{_hint(name)}")
    return check(name, value)


def auto_scaling(given: Any) -> Any:
    """The autoscaling that `num_replicas="auto"` means, with what is `given` in place of its parts.

    Raises:
        TypeError: It is no dict and no `AutoscalingConfig`.
    """
    if given is not None and not isinstance(given, Mapping):
        given = autoscaling_config("autoscaling_config", given)
    return {**AUTO_SCALING, **(given or {})}


def _settle_number(values: dict[str, Any]) -> None:
    """`num_replicas` and `autoscaling_config` are two ways to say the same: the last one said counts."""
    number, scaling = values.get("num_replicas"), values.get("autoscaling_config")
    if number not in (None, AUTO) and scaling is not None:
        raise ValueError(
            f"num_replicas={number} and autoscaling_config contradict each other; "
            "leave one of them out, or write num_replicas='auto'"
        )
    if scaling is not None:
        initial = scaling.get("initial_replicas")
        values["num_replicas"] = scaling.get("min_replicas", 1) if initial is None else initial
    elif number is not None:
        values["autoscaling_config"] = None
    else:
        values.pop("num_replicas", None)


def _autoscaling_spec(config: Mapping[str, Any] | None) -> AutoscalingSpec | None:
    """What a checked `autoscaling_config` means; the deprecated smoothing factors stand for the others."""
    if config is None:
        return None
    default = AutoscalingSpec()
    smoothing = config.get("smoothing_factor", 1.0)
    downscale_delay_s = config.get("downscale_delay_s", default.downscale_delay_s)
    policy = config.get("policy") or {}
    return AutoscalingSpec(
        min_replicas=config.get("min_replicas", default.min_replicas),
        max_replicas=config.get("max_replicas", default.max_replicas),
        initial_replicas=config.get("initial_replicas"),
        target_ongoing_requests=config.get("target_ongoing_requests", default.target_ongoing_requests),
        look_back_period_s=config.get("look_back_period_s", default.look_back_period_s),
        upscale_delay_s=config.get("upscale_delay_s", default.upscale_delay_s),
        downscale_delay_s=downscale_delay_s,
        downscale_to_zero_delay_s=_first(config.get("downscale_to_zero_delay_s"), downscale_delay_s),
        upscaling_factor=_first(
            config.get("upscaling_factor"), config.get("upscale_smoothing_factor"), smoothing
        ),
        downscaling_factor=_first(
            config.get("downscaling_factor"), config.get("downscale_smoothing_factor"), smoothing
        ),
        aggregation_function=config.get("aggregation_function", default.aggregation_function),
        policy_function=policy.get("policy_function", ""),
        policy_kwargs=policy.get("policy_kwargs", {}),
    )


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _hint(name: str) -> str:
    elsewhere = {
        "route_prefix": "; give it to serve.run or write it in the config file's application",
        "max_concurrent_queries": "; it is called max_ongoing_requests",
    }
    if name in elsewhere:
        return elsewhere[name]
    close = difflib.get_close_matches(name, CHECKS, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; the options are {', '.join(CHECKS)}"
