"""From what the user gives `serve.start` (or a config file) to the options of an embedded cluster."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from slipknot_core.tracing import TracingSettings

if TYPE_CHECKING:
    from .serve.config import HTTPOptions

DEFAULT_GATEWAY_PORT = 9000


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Options of an embedded cluster.

    Args:
        http: Options of the HTTP proxy as plain values; the keys are those of `serve.config.HTTPOptions`.
        gateway_port: Port of the gRPC gateway on loopback; None: the default if it is free, else any free
        one. logging_json: Logging of the cluster's processes as JSON; empty: the defaults. with_proxy: Start
        a proxy.
    """

    http: dict[str, Any]
    gateway_port: int | None = None
    logging_json: str = ""
    with_proxy: bool = True
    metrics_port: int | None = None
    """Port on loopback for the proxy's metrics; the controller has the next, the node the one after. None:
    all have Unix sockets in the cluster's private directory."""
    tracing: dict[str, Any] | None = None
    """Fields of `TracingSettings`; None: what the environment says."""

    @property
    def tracing_settings(self) -> TracingSettings | None:
        """Whether and how spans are made; None: what the environment says."""
        return None if self.tracing is None else TracingSettings(**self.tracing)


def cluster_options(
    proxy_location: Any = None,
    http_options: Any = None,
    grpc_options: Any = None,
    logging_config: Any = None,
    *,
    tracing_config: Any = None,
) -> ClusterOptions:
    """Validate what was given.

    Raises:
        TypeError: One is neither a dict nor of its class.
        ValueError: Names the option, its value and what is allowed.
    """
    from .serve.config import ProxyLocation, gRPCOptions
    from .serve.schema import LoggingConfig

    location = ProxyLocation.EveryNode if proxy_location is None else ProxyLocation(proxy_location)
    gateway_port = None
    if grpc_options is not None:
        values = (
            grpc_options
            if isinstance(grpc_options, gRPCOptions)
            else gRPCOptions(**_as_dict("grpc_options", grpc_options))
        )
        gateway_port = values.port
    logging_json = ""
    if logging_config is not None:
        config = (
            logging_config
            if isinstance(logging_config, LoggingConfig)
            else LoggingConfig(**_as_dict("logging_config", logging_config))
        )
        logging_json = config.model_dump_json()
    return ClusterOptions(
        http=_validated(http_options).model_dump(mode="json"),
        gateway_port=gateway_port,
        logging_json=logging_json,
        with_proxy=location is not ProxyLocation.Disabled,
        tracing=tracing_config_as_dict(tracing_config),
    )


def tracing_config_as_dict(tracing_config: Any) -> dict[str, Any] | None:
    """What was given, validated; None: what the environment says."""
    if tracing_config is None:
        return None
    try:
        return asdict(TracingSettings(**dict(tracing_config)))
    except TypeError as error:
        names = ", ".join(field.name for field in fields(TracingSettings))
        raise ValueError(f"tracing_config: {error}; the keys are {names}") from None


def http_options_as_dict(http_options: "Mapping[str, Any] | HTTPOptions") -> dict[str, Any]:
    """The options that were given, validated, without the defaults."""
    values: dict[str, Any] = _validated(http_options).model_dump(mode="json", exclude_unset=True)
    return values


def _validated(http_options: Any) -> "HTTPOptions":
    from .serve.config import HTTPOptions

    if isinstance(http_options, HTTPOptions):
        return http_options
    return HTTPOptions(**_as_dict("http_options", http_options))


def _as_dict(name: str, value: Any) -> dict[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict or an object of its class, not {value!r}")
    return dict(value or {})


def to_json(options: ClusterOptions) -> str:
    """For a child process."""
    return json.dumps(
        {
            "http": options.http,
            "gateway_port": options.gateway_port,
            "logging_json": options.logging_json,
            "with_proxy": options.with_proxy,
            "metrics_port": options.metrics_port,
            "tracing": options.tracing,
        }
    )


def from_json(text: str) -> ClusterOptions:
    """Back from `to_json`."""
    return ClusterOptions(**json.loads(text))
