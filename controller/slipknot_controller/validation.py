"""What a client may ask for. Pure; every refusal names the value and the remedy.

The SDK checks the same things earlier and better; this is for everybody else who speaks to the controller.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

from slipknot_core.autoscaling_spec import AutoscalingSpec
from slipknot_core.errors import ConflictError
from slipknot_core.spec import ApplicationSpec, DeploymentSpec

from .desired import ApplicationRecord

MAX_APPLICATION_NAME = 100
MAX_DEPLOYMENT_NAME = 200
MAX_REPLICAS = 1000
"""Of one deployment; more is a slip of the keyboard on anything this release runs on."""
DEFAULT_CONSTRUCTOR_ATTEMPTS = 3


def checked_application(spec: ApplicationSpec, generation: int) -> ApplicationSpec:
    """Check `spec` and fill in what may be left out.

    Args:
        spec: As a client sent it.
        generation: Makes the version of deployments that come without one, which then always count as new.

    Raises:
        ValueError: Something is not valid.
    """
    check_application_name(spec.name)
    check_route_prefix(spec.route_prefix)
    names = [deployment.name for deployment in spec.deployments]
    if not names:
        raise ValueError(f"application {spec.name!r} has no deployments; give it at least one")
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise ValueError(
            f"application {spec.name!r} has several deployments named {duplicates[0]!r}; rename them"
        )
    if spec.ingress_deployment not in names:
        raise ValueError(
            f"the ingress deployment {spec.ingress_deployment!r} of application {spec.name!r} "
            f"is not one of its deployments: {', '.join(map(repr, names))}"
        )
    return spec.with_deployments(
        [_checked_deployment(deployment, generation) for deployment in spec.deployments]
    )


def check_application_name(name: str) -> None:
    """Refuse a name that is empty, too long or not printable.

    Raises:
        ValueError: It is.
    """
    _check_name(name, "application", MAX_APPLICATION_NAME)


def check_route_prefix(prefix: str | None) -> None:
    """Refuse a prefix that could not match whole path segments; None is fine.

    Raises:
        ValueError: It is no such prefix.
    """
    if prefix is None:
        return
    if not prefix.startswith("/"):
        raise ValueError(f"route prefix {prefix!r} does not begin with '/'; write {'/' + prefix!r}")
    if prefix != "/" and prefix.endswith("/"):
        raise ValueError(f"route prefix {prefix!r} ends with '/'; write {prefix.rstrip('/') or '/'!r}")
    if "{" in prefix or "}" in prefix:
        raise ValueError(f"route prefix {prefix!r} contains a pattern; prefixes are plain text")


def check_num_replicas(num_replicas: int) -> None:
    """Refuse a number of replicas that makes no sense.

    Raises:
        ValueError: It is not from 1 to `MAX_REPLICAS`.
    """
    if not 1 <= num_replicas <= MAX_REPLICAS:
        raise ValueError(f"num_replicas must be from 1 to {MAX_REPLICAS}, not {num_replicas}")


def check_no_pickle(spec: ApplicationSpec) -> None:
    """Refuse an application that comes by value.

    Raises:
        ValueError: It does.
    """
    pickled = [deployment.name for deployment in spec.deployments if deployment.code.import_source is None]
    if pickled:
        raise ValueError(
            f"application {spec.name!r} comes by value (deployment {pickled[0]!r} is pickled), which this "
            "cluster refuses (allow_pickle is false); deploy it by its import path: `slipknot deploy "
            "module:app`, or a config file"
        )


def check_route_is_free(name: str, prefix: str | None, records: Mapping[str, ApplicationRecord]) -> None:
    """Refuse a prefix that another application holds; applications that are being deleted hold none.

    Raises:
        ConflictError: One does.
    """
    for other in records.values():
        if (
            prefix is not None
            and other.name != name
            and not other.is_deleting
            and other.route_prefix == prefix
        ):
            raise ConflictError(
                f"route prefix {prefix!r} is already used by application {other.name!r}; "
                f"choose another prefix for {name!r}, or delete {other.name!r} first"
            )


def _checked_deployment(spec: DeploymentSpec, generation: int) -> DeploymentSpec:
    _check_name(spec.name, "deployment", MAX_DEPLOYMENT_NAME)
    try:
        if spec.autoscaling is None:
            check_num_replicas(spec.num_replicas)
        else:
            _check_autoscaling(spec.autoscaling)
        _check_update(spec)
        _check_limits(spec)
        _check_times(spec)
    except ValueError as error:
        raise ValueError(f"deployment {spec.name!r}: {error}") from None
    if not spec.code.pickle and spec.code.import_source is None:
        raise ValueError(f"deployment {spec.name!r} has no code; set code.pickle or code.import_source")
    return replace(
        spec,
        version=spec.version or f"generation-{generation}",
        max_constructor_attempts=spec.max_constructor_attempts or DEFAULT_CONSTRUCTOR_ATTEMPTS,
    )


def _check_limits(spec: DeploymentSpec) -> None:
    if spec.max_ongoing_requests < 1:
        raise ValueError(f"max_ongoing_requests must be 1 or more, not {spec.max_ongoing_requests}")
    if spec.max_queued_requests < -1 or spec.max_queued_requests == 0:
        raise ValueError(
            f"max_queued_requests must be 1 or more, or -1 for no limit, not {spec.max_queued_requests}"
        )
    if spec.backpressure_status_code not in (503, 429):
        raise ValueError(f"backpressure_status_code must be 503 or 429, not {spec.backpressure_status_code}")


def _check_autoscaling(scaling: AutoscalingSpec) -> None:
    check_num_replicas(scaling.max_replicas)
    if scaling.min_replicas > scaling.max_replicas:
        raise ValueError(
            f"autoscaling: min_replicas must not be more than max_replicas, {scaling.max_replicas}, "
            f"but is {scaling.min_replicas}"
        )
    first = scaling.first_number
    if scaling.within_bounds(first) != first:
        raise ValueError(
            f"autoscaling: initial_replicas must be from {scaling.min_replicas} to {scaling.max_replicas}, "
            f"not {first}"
        )
    for field in ("target_ongoing_requests", "look_back_period_s", "upscaling_factor", "downscaling_factor"):
        value = getattr(scaling, field)
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"autoscaling: {field} must be more than 0, not {value}")
    for field in ("upscale_delay_s", "downscale_delay_s", "downscale_to_zero_delay_s"):
        value = getattr(scaling, field)
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"autoscaling: {field} must be 0 or more, not {value}")
    if scaling.aggregation_function not in ("mean", "max", "min"):
        raise ValueError(
            "autoscaling: aggregation_function must be mean, max or min, "
            f"not {scaling.aggregation_function!r}"
        )


def _check_update(spec: DeploymentSpec) -> None:
    if not 0 < spec.rolling_update_percentage <= 1:
        raise ValueError(
            f"rolling_update_percentage must be above 0 and at most 1, not {spec.rolling_update_percentage}"
        )
    if not 0 <= spec.max_surge_percent <= 1:
        raise ValueError(f"max_surge_percent must be from 0 to 1, not {spec.max_surge_percent}")


def _check_times(spec: DeploymentSpec) -> None:
    for field in ("health_check_period_s", "health_check_timeout_s", "graceful_shutdown_wait_loop_s"):
        value = getattr(spec, field)
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{field} must be more than 0, not {value}")
    if not (math.isfinite(spec.graceful_shutdown_timeout_s) and spec.graceful_shutdown_timeout_s >= 0):
        raise ValueError(
            f"graceful_shutdown_timeout_s must be 0 or more, not {spec.graceful_shutdown_timeout_s}"
        )


def _check_name(name: str, kind: str, max_length: int) -> None:
    if not name:
        raise ValueError(f"the {kind} has no name; give it one of 1 to {max_length} characters")
    if len(name) > max_length:
        raise ValueError(
            f"the {kind} name {name[:40]!r}… has {len(name)} characters; {max_length} are allowed"
        )
    if not name.isprintable():
        raise ValueError(f"the {kind} name {name!r} contains characters that cannot be printed")
