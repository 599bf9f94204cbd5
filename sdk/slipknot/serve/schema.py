"""The config file, and the status of a cluster, as pydantic models.

Keys that are not known are ignored with a warning in an application and in `http_options`, so that newer
files can be read; everywhere else they are errors, since a mistyped option would silently be its default.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from .._explanation import explain
from .._import_path import split_import_path
from .._names import checked_application_name, checked_deployment_name, checked_route_prefix
from .._option_checks import REMOVED
from .._options import AUTO, auto_scaling, checked, checked_option
from ._runtime_env import ControllerOptions, RuntimeEnv
from ._status import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatus,
    DeploymentStatusOverview,
    DeploymentStatusTrigger,
    ProxyStatus,
    ReplicaState,
    ServeStatus,
    status_from_proto,
)
from .config import AutoscalingPolicy, EncodingType, HTTPOptions, LoggingConfig, ProxyLocation, gRPCOptions

__all__ = [
    "ApplicationStatus",
    "ApplicationStatusOverview",
    "ControllerOptions",
    "DeploymentSchema",
    "DeploymentStatus",
    "DeploymentStatusOverview",
    "DeploymentStatusTrigger",
    "EncodingType",
    "HTTPOptionsSchema",
    "LoggingConfig",
    "ProxyStatus",
    "ReplicaState",
    "RuntimeEnv",
    "ServeApplicationSchema",
    "ServeDeploySchema",
    "ServeStatus",
    "TracingConfig",
    "gRPCOptionsSchema",
    "load_config_file",
    "status_from_proto",
]

logger = logging.getLogger("slipknot.serve")

HTTPOptionsSchema = HTTPOptions
"""The same class under the name that Ray Serve's config files know."""

gRPCOptionsSchema = gRPCOptions
"""The same class under the name that Ray Serve's config files know."""


class DeploymentSchema(BaseModel):
    """Options of one deployment that go before those in the code. Only `name` is required.

    Meaning, units and defaults are those of `serve.deployment`; a key that is not set leaves what the code
    says.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    """Of a deployment that the application has."""
    num_replicas: int | str | None = None
    max_ongoing_requests: int | None = None
    max_queued_requests: int | None = None
    backpressure_config: dict[str, Any] | None = None
    user_config: Any = None
    graceful_shutdown_wait_loop_s: float | None = None
    graceful_shutdown_timeout_s: float | None = None
    health_check_period_s: float | None = None
    health_check_timeout_s: float | None = None
    logging_config: dict[str, Any] | None = None
    max_constructor_retry_count: int | None = None
    autoscaling_config: dict[str, Any] | None = None
    ray_actor_options: dict[str, Any] | None = None
    max_replicas_per_node: int | None = None
    request_router_config: dict[str, Any] | None = None
    rolling_update_percentage: float | None = None
    max_surge_percent: float | None = None
    placement_strategy: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_removed(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        for name in REMOVED.keys() & values.keys():
            _with_value_error(partial(checked_option, name), values[name])
        return {name: value for name, value in values.items() if name not in REMOVED}

    @field_validator("*", mode="before")
    @classmethod
    def _check_option(cls, value: Any, info: ValidationInfo) -> Any:
        name = info.field_name or ""
        if name == "name":
            return _with_value_error(checked_deployment_name, value)
        if name == "autoscaling_config" and info.data.get("num_replicas") == AUTO:
            value = _with_value_error(auto_scaling, value)
        return _with_value_error(lambda given: checked_option(name, given), value)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        _with_value_error(checked, {key: getattr(self, key) for key in self.model_fields_set})
        return self


class ServeApplicationSchema(BaseModel):
    """One application of a config file."""

    model_config = ConfigDict(extra="ignore")

    name: str = "default"
    """Unique in the file."""
    route_prefix: str | None = "/"
    """Unique in the file; null: not reachable over HTTP."""
    import_path: str
    """"module:attribute" of an Application or of a function that returns one."""
    runtime_env: RuntimeEnv = Field(default_factory=RuntimeEnv)
    """Directory of the code and environment variables."""
    args: dict[str, Any] = Field(default_factory=dict)
    """For the function."""
    deployments: list[DeploymentSchema] = Field(default_factory=list)
    """Options that go before those in the code."""
    autoscaling_policy: AutoscalingPolicy | None = None
    """Decides on the replicas of all deployments that have an `autoscaling_config`, at once."""
    logging_config: LoggingConfig | None = None
    """Kept; not yet effective: set it for the deployments."""
    external_scaler_enabled: bool = False
    """Accepted for compatibility; without effect."""

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            misplaced = [key for key in ("host", "port") if key in values]
            if misplaced:
                raise ValueError(
                    f"{misplaced[0]} does not belong to an application; write it below http_options"
                )
            unknown = sorted(str(key) for key in values.keys() - cls.model_fields.keys())
            if unknown:
                name = values.get("name", "default")
                logger.warning("application %r: unknown keys are ignored: %s", name, ", ".join(unknown))
        return values

    @field_validator("name", mode="before")
    @classmethod
    def _check_name(cls, value: Any) -> Any:
        return _with_value_error(checked_application_name, value)

    @field_validator("route_prefix", mode="before")
    @classmethod
    def _check_route_prefix(cls, value: Any) -> Any:
        return _with_value_error(checked_route_prefix, value)

    @field_validator("import_path", mode="before")
    @classmethod
    def _check_import_path(cls, value: Any) -> Any:
        _with_value_error(split_import_path, value)
        return value

    @field_validator("deployments")
    @classmethod
    def _check_deployments(cls, value: list[DeploymentSchema]) -> list[DeploymentSchema]:
        _check_unique("deployments", "name", [d.name for d in value])
        return value


class TracingConfig(BaseModel):
    """Spans of OpenTelemetry; see docs/tracing.md."""

    model_config = ConfigDict(extra="forbid")

    enabled: bool = False
    """Export spans."""
    exporter_import_path: str = ""
    """Function that makes the exporter."""
    sampling_ratio: float = Field(default=0.01, ge=0, le=1)
    """Share of the requests that is traced."""


class ServeDeploySchema(BaseModel):
    """A whole config file. Deploying it makes what runs equal to it."""

    model_config = ConfigDict(extra="forbid")

    proxy_location: ProxyLocation = ProxyLocation.EveryNode
    """Where HTTP proxies run; counts when the cluster starts."""
    http_options: HTTPOptions = Field(default_factory=HTTPOptions)
    """Count when the cluster starts."""
    grpc_options: gRPCOptions = Field(default_factory=gRPCOptions)
    """Count when the cluster starts."""
    controller_options: ControllerOptions | None = Field(default_factory=ControllerOptions)
    """Kept; not yet effective."""
    logging_config: LoggingConfig | None = None
    """Of the cluster's processes; counts when the cluster starts."""
    tracing_config: TracingConfig | None = None
    """Counts when the cluster starts."""
    target_capacity: float | None = Field(default=None, ge=0, le=100)
    """Kept; not yet effective."""
    applications: list[ServeApplicationSchema]
    """All that is to run; an empty list removes all."""

    @field_validator("applications")
    @classmethod
    def _check_applications(cls, value: list[ServeApplicationSchema]) -> list[ServeApplicationSchema]:
        _check_unique("applications", "name", [a.name for a in value])
        _check_unique("applications", "route_prefix", [a.route_prefix for a in value])
        return value


def load_config_file(path: str | Path) -> ServeDeploySchema:
    """Read and validate a config file, YAML or JSON.

    Args:
        path: Of the file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no YAML, or no config; one line for each error, with the path of the key.
    """
    import yaml

    text = Path(path).read_text(encoding="utf-8")
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {_yaml_reason(error)}") from None
    if not isinstance(values, dict):
        raise ValueError(
            f"{path} must hold a mapping with the key 'applications', not {type(values).__name__}"
        )
    try:
        return ServeDeploySchema.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{path} is not a valid config:\n{explain(error)}") from None


def _yaml_reason(error: Any) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return str(error)
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem or error.context}"


def _with_value_error(check: Callable[[Any], Any], value: Any) -> Any:
    # pydantic collects ValueErrors with the path of the key, but lets a TypeError through without it.
    try:
        return check(value)
    except TypeError as error:
        raise ValueError(str(error)) from None


def _check_unique(kind: str, key: str, values: Sequence[str | None]) -> None:
    first: dict[str, int] = {}
    for index, value in enumerate(values):
        if value is None:
            continue
        if value in first:
            raise ValueError(
                f"{kind} {first[value]} and {index} have the same {key}: {value!r}; it must be unique"
            )
        first[value] = index
