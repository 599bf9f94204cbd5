"""One check for each deployment option. Pure: (name, value) in, the value to keep out, or an error.

A value of the wrong type is a TypeError, one out of range a ValueError.
"""

import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from slipknot_core.resources import CPU, GPU, MEMORY, PlacementStrategy

from ._names import checked_deployment_name

Check = Callable[[str, Any], Any]

RESOURCES = ("num_cpus", "num_gpus", "memory", "object_store_memory")
"""Keys of `ray_actor_options` that are numbers."""
RESOURCE_OPTIONS = (*RESOURCES, "resources", "accelerator_type", "label_selector", "runtime_env")
SMALLEST_AMOUNT = 0.0001
"""Of a resource, but nothing at all."""


def name_option(name: str, value: Any) -> str | None:
    """A deployment's name; None: that of its class."""
    return None if value is None else checked_deployment_name(value)


def whole_number(
    name: str, value: Any, *, minimum: int = 1, maximum: int | None = None, or_none: bool = False
) -> Any:
    """An int in a range."""
    if value is None:
        if or_none:
            return None
        raise ValueError(f"{name} must not be None; leave it out for its default")
    allowed = (
        f"a whole number of {minimum} or more"
        if maximum is None
        else f"a whole number from {minimum} to {maximum}"
    )
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be {allowed}, not {value!r}")
    if value < minimum or (maximum is not None and value > maximum):
        raise ValueError(f"{name} must be {allowed}, not {value!r}")
    return value


def replica_count(name: str, value: Any) -> int | str | None:
    """1 or more, or "auto"."""
    if isinstance(value, str):
        if value != "auto":
            raise ValueError(f"{name} must be a whole number of 1 or more or 'auto', not {value!r}")
        return value
    count: int | None = whole_number(name, value, maximum=1000, or_none=True)
    return count


def queue_limit(name: str, value: Any) -> int:
    """1 or more, or -1 for none."""
    if value is None or not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number of 1 or more, or -1 for no limit, not {value!r}")
    if value != -1 and value < 1:
        raise ValueError(f"{name} must be 1 or more, or -1 for no limit, not {value}")
    return value


def number(
    name: str, value: Any, *, above: float = -math.inf, minimum: float = -math.inf, maximum: float = math.inf
) -> float:
    """A finite number in a range."""
    if value is None:
        raise ValueError(f"{name} must not be None; leave it out for its default")
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not (math.isfinite(value) and value > above and minimum <= value <= maximum):
        raise ValueError(f"{name} must be {_range(above, minimum, maximum)}, not {value!r}")
    return float(value)


def json_value(name: str, value: Any) -> Any:
    """Anything that JSON can carry, as it comes back from JSON."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must be a JSON value (dict, list, text, number, bool, None): {error}"
        ) from None


def model(name: str, value: Any, *, class_name: str) -> dict[str, Any] | None:
    """A model of `serve.config`, or a dict that makes one; kept as JSON values."""
    if value is None:
        return None
    from pydantic import ValidationError

    from ._explanation import explain
    from .serve import config

    model_class = getattr(config, class_name)
    if isinstance(value, model_class):
        checked: dict[str, Any] = value.model_dump(mode="json", exclude_unset=True)
        return checked
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be of type {class_name} or a dict, not {value!r}")
    try:
        checked = model_class(**value).model_dump(mode="json", exclude_unset=True)
    except ValidationError as error:
        raise ValueError(explain(error, prefix=name)) from None
    return checked


autoscaling_config = partial(model, class_name="AutoscalingConfig")
"""Check of `autoscaling_config`."""


def resources(name: str, value: Any) -> dict[str, Any] | None:
    """What a replica needs of its node."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict, not {value!r}")
    unknown = [key for key in value if key not in RESOURCE_OPTIONS]
    if unknown:
        raise ValueError(f"{name} has no key {unknown[0]!r}; its keys are {', '.join(RESOURCE_OPTIONS)}")
    _check_amounts(name, value)
    for key, selector in _mapping(f"{name}.label_selector", value.get("label_selector")).items():
        _check_selector(f"{name}.label_selector", key, selector)
    if value.get("accelerator_type") is not None:
        _text(f"{name}.accelerator_type", value["accelerator_type"])
    _check_environment(f"{name}.runtime_env", value.get("runtime_env"))
    kept: dict[str, Any] = json_value(name, dict(value))
    return kept


def adapter(name: str, value: Any) -> Any:
    """A function, or a pydantic model that the body becomes."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a function or a pydantic model class, not {value!r}")
    return value


def strategy(name: str, value: Any) -> str:
    """One of the words of `PlacementStrategy`."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, not {value!r}")
    words = [known.value for known in PlacementStrategy]
    if value.lower() not in words:
        raise ValueError(f"{name} must be one of {', '.join(words)}, not {value!r}")
    return value.lower()


def removed(name: str, value: Any, *, remedy: str) -> None:
    """An option that there once was, or that only Ray has."""
    if value is not None:
        raise ValueError(f"{name} is not supported: {remedy}")


def _check_amounts(name: str, value: Mapping[str, Any]) -> None:
    for key in RESOURCES:
        if value.get(key) is not None:
            _amount(f"{name}.{key}", value[key])
    gpus = value.get("num_gpus") or 0
    if gpus > 1 and gpus != int(gpus):
        raise ValueError(
            f"{name}.num_gpus must be a fraction of one GPU or a whole number of GPUs, not {gpus!r}"
        )
    for key, amount in _mapping(f"{name}.resources", value.get("resources")).items():
        _text(f"a key of {name}.resources", key)
        if key in (CPU, GPU, MEMORY):
            raise ValueError(f"{name}.resources.{key} has an option of its own: num_cpus, num_gpus or memory")
        _amount(f"{name}.resources.{key}", amount)


def _check_selector(name: str, key: Any, selector: Any) -> None:
    _text(f"a key of {name}", key)
    _text(f"{name}.{key}", selector)
    values = selector.removeprefix("!")
    if values.startswith("in(") and values.endswith(")"):
        are_values = all(value.strip() for value in values[3:-1].split(","))
    else:
        are_values = bool(values) and not any(sign in values for sign in "!(),")
    if not are_values:
        raise ValueError(f"{name}.{key} must be 'value', '!value', 'in(a,b)' or '!in(a,b)', not {selector!r}")


def _check_environment(name: str, value: Any) -> None:
    environment = _mapping(name, value)
    for key, text in _mapping(f"{name}.env_vars", environment.get("env_vars")).items():
        _text(f"{name}.env_vars.{key}", text)
    unsupported = sorted(set(environment) - {"env_vars"})
    if unsupported:
        raise ValueError(
            f"{name}.{unsupported[0]} is not supported, only env_vars is; "
            "install what replicas need in the environment that the cluster runs in"
        )


def _amount(name: str, value: Any) -> None:
    amount = number(name, value, minimum=0)
    if 0 < amount < SMALLEST_AMOUNT:
        raise ValueError(f"{name} must be 0 or at least {SMALLEST_AMOUNT:g}, not {value!r}")


def _text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, not {value!r}")


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict, not {value!r}")
    return value


def _range(above: float, minimum: float, maximum: float) -> str:
    if math.isfinite(maximum):
        return f"from {max(above, minimum):g} to {maximum:g}" + (" and not 0" if above == 0 else "")
    return f"more than {above:g}" if math.isfinite(above) else f"{minimum:g} or more"


_NO_PLACEMENT_GROUPS = "there are no placement groups here; leave it out"

REMOVED: Mapping[str, str] = {
    "version": "every serve.run deploys a new version; leave it out",
    "placement_group_bundles": _NO_PLACEMENT_GROUPS,
    "placement_group_strategy": _NO_PLACEMENT_GROUPS,
    "placement_group_bundle_label_selector": _NO_PLACEMENT_GROUPS,
    "placement_group_fallback_strategy": _NO_PLACEMENT_GROUPS,
    "gang_scheduling_config": "replicas are placed one by one; leave it out",
    "deployment_actors": "there are no actors here; bind another deployment instead",
}
"""Option to remedy; only None is accepted."""

CHECKS: Mapping[str, Check] = {
    "name": name_option,
    "num_replicas": replica_count,
    "max_ongoing_requests": whole_number,
    "max_queued_requests": queue_limit,
    "backpressure_config": partial(model, class_name="BackpressureConfig"),
    "user_config": json_value,
    "graceful_shutdown_wait_loop_s": partial(number, above=0),
    "graceful_shutdown_timeout_s": partial(number, minimum=0),
    "health_check_period_s": partial(number, above=0),
    "health_check_timeout_s": partial(number, above=0),
    "logging_config": partial(model, class_name="LoggingConfig"),
    "http_adapter": adapter,
    "max_constructor_retry_count": whole_number,
    "autoscaling_config": autoscaling_config,
    "ray_actor_options": resources,
    "placement_strategy": strategy,
    "max_replicas_per_node": partial(whole_number, maximum=100, or_none=True),
    "request_router_config": partial(model, class_name="RequestRouterConfig"),
    "rolling_update_percentage": partial(number, above=0, maximum=1),
    "max_surge_percent": partial(number, minimum=0, maximum=1),
    **{name: partial(removed, remedy=remedy) for name, remedy in REMOVED.items()},
}
"""Every option and its check."""
