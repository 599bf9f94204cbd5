"""Options of clusters and deployments as pydantic models; the names are those that Ray Serve's users know.

Wrong values raise pydantic's ValidationError, which is a ValueError.
"""

import logging
import os
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from .._import_path import split_import_path
from .._names import checked_route_prefix
from ._autoscaling import AutoscalingContext, DeploymentID
from ._runtime_env import ControllerOptions

__all__ = [
    "AggregationFunction",
    "AutoscalingConfig",
    "AutoscalingContext",
    "AutoscalingPolicy",
    "BackpressureConfig",
    "ControllerOptions",
    "DeploymentID",
    "EncodingType",
    "GrpcOptions",
    "HTTPOptions",
    "LoggingConfig",
    "ProxyLocation",
    "RequestRouterConfig",
    "gRPCOptions",
    "keep_alive_timeout_from",
]

logger = logging.getLogger("slipknot.serve")

KEEP_ALIVE_VARIABLES = ("SLIPKNOT_SERVE_HTTP_KEEP_ALIVE_TIMEOUT_S", "RAY_SERVE_HTTP_KEEP_ALIVE_TIMEOUT_S")
"""Environment variables that win over `keep_alive_timeout_s`; the first that is set counts."""

DEFAULT_KEEP_ALIVE_TIMEOUT_S = 5
DEFAULT_MAX_HEADER_BYTES = 64 * 1024
DEFAULT_MAX_WS_MESSAGE_BYTES = 16 * 1024 * 1024


class ProxyLocation(StrEnum):
    """On which nodes an HTTP proxy runs."""

    Disabled = "Disabled"
    """On none: no HTTP."""
    HeadOnly = "HeadOnly"
    """On the node of the controller."""
    EveryNode = "EveryNode"
    """On every node."""

    @classmethod
    def _missing_(cls, value: object) -> "ProxyLocation":
        raise ValueError(f"proxy_location must be one of {', '.join(m.value for m in cls)}, not {value!r}")


class HTTPOptions(BaseModel):
    """Options of the HTTP proxies. They hold for as long as the cluster runs.

    Unknown keys are ignored with a warning, so that newer config files can be read.
    """

    model_config = ConfigDict(extra="ignore", validate_default=True, protected_namespaces=())

    host: str = Field(default="127.0.0.1", min_length=1)
    """Address to listen on; anything but loopback opens the applications to the network."""
    port: int = Field(default=8000, ge=0, le=65535)
    """0: any free one."""
    root_path: str = ""
    """Prefix that something in front of the proxy strips from each path."""
    request_timeout_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds from the arrival of a request to the end of its response, queueing included; None: no limit."""
    keep_alive_timeout_s: int = Field(default=DEFAULT_KEEP_ALIVE_TIMEOUT_S, ge=0)
    """Seconds an idle connection stays open. `SLIPKNOT_SERVE_HTTP_KEEP_ALIVE_TIMEOUT_S` wins."""
    head_timeout_s: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    """Seconds that a client may take to send the head of a request."""
    body_timeout_s: float | None = Field(default=60.0, gt=0, allow_inf_nan=False)
    """Seconds that a client may pause in a request's body before the response has begun; then 408. None: no
    limit."""
    ssl_keyfile: str | None = None
    """Private key for TLS, PEM; goes with `ssl_certfile`."""
    ssl_certfile: str | None = None
    """Certificate for TLS, PEM; goes with `ssl_keyfile`."""
    ssl_keyfile_password: str | None = None
    """Of `ssl_keyfile`, if it is encrypted."""
    ssl_ca_certs: str | None = None
    """Certificates that clients must prove themselves with, PEM; None: clients need none."""
    max_header_bytes: int = Field(default=DEFAULT_MAX_HEADER_BYTES, ge=1024)
    """Larger request heads are refused with 431."""
    max_body_bytes: int | None = Field(default=None, ge=1)
    """Larger request bodies are refused with 413; None: no limit, bodies are streamed."""
    max_ws_message_bytes: int = Field(default=DEFAULT_MAX_WS_MESSAGE_BYTES, ge=1)
    """Larger WebSocket messages close the connection with 1009."""
    max_connections: int = Field(default=16_384, ge=1)
    """Connections of clients at one time; those above it are answered with 503."""
    retry_idempotent: bool = True
    """Send a GET, HEAD, OPTIONS, PUT, DELETE or TRACE whose replica was lost before it said anything to
    another one, although its handler may have begun."""
    drain_timeout_s: float = Field(default=20.0, ge=0, allow_inf_nan=False)
    """Seconds that requests may take after SIGTERM of a proxy before they are cancelled."""
    lame_duck_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Seconds that a proxy goes on taking connections and requests after SIGTERM, while `/-/healthz` says 503
    and each response closes its connection; for a load balancer in front."""
    forwarded_allow_ips: str = "127.0.0.1,::1"
    """Peers whose X-Forwarded-For and X-Forwarded-Proto are believed; "*": all, empty: none."""
    location: ProxyLocation | None = None
    """Older place of `proxy_location`; without effect."""
    num_cpus: float = Field(default=0, ge=0)
    """Accepted for compatibility; without effect."""
    middlewares: list[Any] = Field(default_factory=list)
    """Not supported: add middleware to the application that `serve.ingress` gets."""

    @model_validator(mode="before")
    @classmethod
    def _warn_about_unknown(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            unknown = sorted(str(key) for key in values.keys() - cls.model_fields.keys())
            if unknown:
                logger.warning("http_options: unknown keys are ignored: %s", ", ".join(unknown))
        return values

    @field_validator("root_path")
    @classmethod
    def _check_root_path(cls, value: str) -> str:
        return "" if value in ("", "/") else checked_route_prefix(value) or ""

    @field_validator("keep_alive_timeout_s", mode="before")
    @classmethod
    def _prefer_environment(cls, value: Any) -> Any:
        found = keep_alive_timeout_from(os.environ)
        return value if found is None else found

    @field_validator("middlewares")
    @classmethod
    def _refuse_middlewares(cls, value: list[Any]) -> list[Any]:
        if value:
            raise ValueError(
                "middlewares of the proxy are not supported; add them to the app given to serve.ingress"
            )
        return value

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if bool(self.ssl_keyfile) != bool(self.ssl_certfile):
            missing = "ssl_certfile" if self.ssl_keyfile else "ssl_keyfile"
            raise ValueError(f"TLS needs both ssl_keyfile and ssl_certfile; {missing} is missing")
        if self.ssl_ca_certs and not self.ssl_certfile:
            raise ValueError("ssl_ca_certs needs ssl_keyfile and ssl_certfile too; they are missing")
        return self


class gRPCOptions(BaseModel):
    """Options of the gRPC gateway."""

    model_config = ConfigDict(extra="forbid")

    port: int = Field(default=9000, ge=0, le=65535)
    """On loopback; 0: any free one."""
    grpc_servicer_functions: list[str] = Field(default_factory=list)
    """Import paths of `add_…Servicer_to_server` functions. Kept; not yet effective."""
    request_timeout_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Like that of `HTTPOptions`; None: no limit. Kept; not yet effective."""
    enable_reflection: bool = True
    """Answer server reflection. Kept; reflection is always on for now."""


GrpcOptions = gRPCOptions
"""The same class under a name that Python's conventions like."""


class AggregationFunction(StrEnum):
    """How the load over the look-back period becomes one number."""

    MEAN = "mean"
    MAX = "max"
    MIN = "min"


class AutoscalingPolicy(BaseModel):
    """A function of the user's that decides the number of replicas."""

    model_config = ConfigDict(extra="forbid")

    policy_function: str
    """Import path, "module:function"."""
    policy_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Passed to it; JSON."""

    @field_validator("policy_function", mode="before")
    @classmethod
    def _as_import_path(cls, value: Any) -> Any:
        return f"{value.__module__}:{value.__qualname__}" if callable(value) else value

    @field_validator("policy_function")
    @classmethod
    def _check_import_path(cls, value: str) -> str:
        module, _ = split_import_path(value)
        if module == "__main__":
            raise ValueError(
                f"policy_function {value!r} is defined in the script itself; put it into a module that the "
                "nodes can import"
            )
        return value


class AutoscalingConfig(BaseModel):
    """How the number of replicas follows the load, that is, ongoing and queued requests."""

    model_config = ConfigDict(extra="forbid")

    min_replicas: int = Field(default=1, ge=0)
    """0: none while nobody calls."""
    initial_replicas: int | None = Field(default=None, ge=0)
    """To begin with; None: `min_replicas`."""
    max_replicas: int = Field(default=1, ge=1)
    """Never more."""
    target_ongoing_requests: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    """Ongoing and queued requests wanted on each replica."""
    metrics_interval_s: float = Field(default=10.0, gt=0)
    """Deprecated; without effect."""
    look_back_period_s: float = Field(default=30.0, gt=0)
    """Seconds that the load is aggregated over."""
    upscale_delay_s: float = Field(default=30.0, ge=0)
    """Seconds that the load must ask for more before there is more."""
    downscale_delay_s: float = Field(default=600.0, ge=0)
    """Seconds that the load must ask for less before there is less."""
    downscale_to_zero_delay_s: float | None = Field(default=None, ge=0)
    """The same for the step from 1 to 0; None: `downscale_delay_s`."""
    upscaling_factor: float | None = Field(default=None, gt=0)
    """Multiplies steps upwards; None: 1."""
    downscaling_factor: float | None = Field(default=None, gt=0)
    """Multiplies steps downwards; None: 1."""
    smoothing_factor: float = Field(default=1.0, gt=0)
    """Deprecated: both factors at once."""
    upscale_smoothing_factor: float | None = Field(default=None, gt=0)
    """Deprecated: `upscaling_factor`."""
    downscale_smoothing_factor: float | None = Field(default=None, gt=0)
    """Deprecated: `downscaling_factor`."""
    aggregation_function: AggregationFunction = AggregationFunction.MEAN
    """Of the load over the look-back period."""
    policy: AutoscalingPolicy | None = None
    """Decides instead of the formula above."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"max_replicas ({self.max_replicas}) is less than min_replicas ({self.min_replicas})"
            )
        initial = self.initial_replicas
        if initial is not None and not self.min_replicas <= initial <= self.max_replicas:
            raise ValueError(
                f"initial_replicas ({initial}) must be from min_replicas ({self.min_replicas}) "
                f"to max_replicas ({self.max_replicas})"
            )
        return self


class BackpressureConfig(BaseModel):
    """What HTTP clients hear when a deployment's queue is full."""

    model_config = ConfigDict(extra="forbid")

    status_code: Literal[503, 429] = 503
    """Service Unavailable or Too Many Requests."""
    retry_after_s: int | None = Field(default=None, ge=0)
    """Value of the Retry-After header in seconds; None: no header."""


class EncodingType(StrEnum):
    """Form of log lines."""

    TEXT = "TEXT"
    JSON = "JSON"


class LoggingConfig(BaseModel):
    """Logging of a cluster, an application or a deployment; the most specific one counts."""

    model_config = ConfigDict(extra="forbid")

    encoding: EncodingType = EncodingType.TEXT
    """Form of the lines."""
    log_level: str = "INFO"
    """Least level that is logged, by name; a number becomes its name."""
    logs_dir: str | None = None
    """Directory of the log files; None: that of the cluster."""
    enable_access_log: bool = True
    """One line for each request."""
    additional_log_standard_attrs: list[str] = Field(default_factory=list)
    """Attributes of Python's LogRecord to add to JSON lines, for example "process"."""

    @field_validator("encoding", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator("log_level", mode="before")
    @classmethod
    def _as_level_name(cls, value: Any) -> str:
        known = logging.getLevelNamesMapping()
        if isinstance(value, str) and value.upper() in known:
            return value.upper()
        if isinstance(value, int) and not isinstance(value, bool) and value in known.values():
            return logging.getLevelName(value)
        raise ValueError(f"log_level must be one of {', '.join(known)} or its number, not {value!r}")


class RequestRouterConfig(BaseModel):
    """How callers choose a replica. Kept, but not yet effective: they choose the less busy of two."""

    model_config = ConfigDict(extra="forbid")

    request_router_class: str = "slipknot_core.routing.router:Router"
    """Import path of the router's class."""
    request_router_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Passed to it; JSON."""
    request_routing_stats_period_s: float = Field(default=10.0, gt=0)
    """Seconds between two reports of a replica's statistics."""
    request_routing_stats_timeout_s: float = Field(default=30.0, gt=0)
    """Seconds a report may take."""
    initial_backoff_s: float = Field(default=0.025, gt=0)
    """First pause before a refused request is offered again."""
    backoff_multiplier: float = Field(default=2.0, ge=1)
    """Growth of the pause."""
    max_backoff_s: float = Field(default=0.5, gt=0)
    """Longest pause."""

    @field_validator("request_router_class", mode="before")
    @classmethod
    def _as_import_path(cls, value: Any) -> Any:
        return f"{value.__module__}:{value.__qualname__}" if isinstance(value, type) else value


def keep_alive_timeout_from(environ: Mapping[str, str]) -> int | None:
    """The keep-alive timeout in seconds that the environment asks for; None if it does not.

    Raises:
        ValueError: The text is no whole number of seconds.
    """
    for name in KEEP_ALIVE_VARIABLES:
        text = environ.get(name)
        if text is not None:
            if not text.strip().isdecimal():
                raise ValueError(
                    f"{name}={text!r} is not a whole number of seconds; unset it or write one like 5"
                )
            return int(text)
    return None
