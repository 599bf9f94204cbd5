"""`serve.run` and its sisters: they bring applications into a cluster and tell what became of them.

A process has at most one cluster: the one it was told to use (`SLIPKNOT_ADDRESS`, `serve.start(address=…)`),
the one it runs in (a replica), or an embedded one that the first call starts and that ends with this process.
"""

import asyncio
import atexit
import logging
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slipknot_core.errors import ApplicationNotFoundError, SlipknotServeException

from . import _connection, _control
from ._console import hear_interrupts, raise_if_interrupted

if TYPE_CHECKING:
    from ._deployment import Application
    from ._local import LocalCluster
    from .serve.config import HTTPOptions
    from .serve.handle import DeploymentHandle
    from .serve.schema import LoggingConfig, ServeStatus, TracingConfig

logger = logging.getLogger("slipknot.serve")

DEFAULT_APP_NAME = "default"

_lock = threading.RLock()
_local: "LocalCluster | None" = None
_local_http_options: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class RunTarget:
    """One application for `run_many`.

    Args:
        target: The bound deployment that receives the application's requests.
        name: The application's name.
        route_prefix: Where it is reachable over HTTP; None: nowhere.
        logging_config: Defaults for its deployments.
        external_scaler_enabled: Accepted for compatibility; without effect.
    """

    target: "Application"
    name: str = DEFAULT_APP_NAME
    route_prefix: str | None = "/"
    logging_config: "Mapping[str, Any] | LoggingConfig | None" = None
    external_scaler_enabled: bool = False


def start(  # noqa: PLR0917 - the signature that users know
    proxy_location: Any = None,
    http_options: "Mapping[str, Any] | HTTPOptions | None" = None,
    grpc_options: Mapping[str, Any] | Any = None,
    logging_config: "Mapping[str, Any] | LoggingConfig | None" = None,
    tracing_config: "Mapping[str, Any] | TracingConfig | None" = None,
    controller_options: Any = None,
    *,
    address: str | None = None,
) -> None:
    """Make sure that this process has a cluster; start an embedded one if there is none.

    A second call is a no-op; it warns if it asks for other HTTP options than those in effect.

    Args:
        proxy_location: "EveryNode", "HeadOnly" or "Disabled" (no HTTP).
        http_options: Host, port, timeouts, TLS; see `serve.config.HTTPOptions`.
        grpc_options: Port of the gateway; see `serve.config.gRPCOptions`.
        logging_config: Of the cluster's processes; see `serve.schema.LoggingConfig`.
        tracing_config: Spans of OpenTelemetry: enabled, exporter_import_path, sampling_ratio; see
            docs/tracing.md. Default: what `SLIPKNOT_TRACING_…` says.
        controller_options: Accepted for compatibility; without effect.
        address: Controller of an existing cluster, "host:port" or "unix:/path"; default `SLIPKNOT_ADDRESS`.

    Raises:
        TypeError: An option is of the wrong type.
        ValueError: An option is not valid.
        OSError: The HTTP port is taken, or the host is not one of this machine's.
        SlipknotServeException: The existing cluster cannot be reached.
    """
    with _lock:
        if _connection.current_or_none() is not None:
            _warn_about_options(http_options)
            return
        tracing_dict = _configure_tracing(tracing_config)
        if address is not None or _connection.connect_from_environment() is None:
            _start_cluster(
                address, (proxy_location, http_options, grpc_options, logging_config), tracing_dict
            )


def run(  # noqa: PLR0917 - the signature that users know
    target: "Application",
    blocking: bool = False,
    name: str = DEFAULT_APP_NAME,
    route_prefix: str | None = "/",
    logging_config: "Mapping[str, Any] | LoggingConfig | None" = None,
    _local_testing_mode: bool = False,
    external_scaler_enabled: bool = False,
    controller_options: Any = None,
) -> "DeploymentHandle":
    """Deploy an application, replacing the one of this name, and wait until it serves.

    Args:
        target: The bound deployment that receives the application's requests.
        blocking: Stay here until Ctrl-C or SIGTERM, then shut the cluster down.
        name: The application's name, unique in the cluster.
        route_prefix: Where it is reachable over HTTP; None: nowhere.
        logging_config: Defaults for its deployments.
        _local_testing_mode: Run everything in this process, without HTTP and cluster: the constructors at
            once, and what they raise is raised here. See `slipknot.testing` for clusters in one process.
        external_scaler_enabled: Accepted for compatibility; without effect.
        controller_options: Accepted for compatibility; without effect.

    Returns:
        A handle to the ingress deployment.

    Raises:
        TypeError: `target` is not an Application, or something in it cannot be pickled.
        ValueError: A name or prefix is not valid.
        SlipknotServeException: Another application has this route prefix.
        RuntimeError: The application failed to deploy; the message has the traceback.
    """
    targets = [RunTarget(target, name, route_prefix, logging_config)]
    return run_many(targets, blocking, _local_testing_mode=_local_testing_mode)[0]


def run_many(
    targets: Sequence[RunTarget],
    blocking: bool = False,
    wait_for_ingress_deployment_creation: bool = True,
    wait_for_applications_running: bool = True,
    _local_testing_mode: bool = False,
    controller_options: Any = None,
) -> "list[DeploymentHandle]":
    """Deploy several applications; like `run` for each, waiting for all together.

    Args:
        targets: The applications.
        blocking: As for `run`.
        wait_for_ingress_deployment_creation: Accepted for compatibility: handles can be used at once.
        wait_for_applications_running: Wait until all of them serve.
        _local_testing_mode: As for `run`.
        controller_options: Accepted for compatibility; without effect.

    Raises:
        ValueError: Two of them have the same name or route prefix; none is deployed.
    """
    _check_distinct(targets)
    if _local_testing_mode:
        from . import _local_testing

        return [_local_testing.run(target.target, target.name) for target in targets]
    if blocking:
        hear_interrupts()
    handles = _deploy(targets, wait=wait_for_applications_running)
    if blocking:
        _block()
    return handles


def delete(name: str, _blocking: bool = True) -> None:
    """Delete an application after its requests have ended; a missing one is no error.

    Args:
        name: The application's name.
        _blocking: Wait until it is gone.
    """
    local_testing = _local_testing_module()
    if local_testing is not None and local_testing.delete(name):
        return
    connection = _connection.current_or_none()
    if connection is not None:
        connection.run(_control.delete(connection, name, wait=_blocking))


def status() -> "ServeStatus":
    """Tell what runs; empty when there is no cluster."""
    from slipknot_proto.v1 import controller_pb2

    from .serve.schema import status_from_proto

    connection = _connection.current_or_none() or _connection.connect_from_environment()
    if connection is None:
        return status_from_proto(controller_pb2.ClusterStatus())
    return status_from_proto(connection.run(_control.status(connection)))


def shutdown() -> None:
    """Delete all applications, and end the cluster if this process started it. Twice is fine.

    A `slipknot.testing.Cluster` that is open loses its applications only: it stays this process's cluster.
    """
    global _local
    local_testing = _local_testing_module()
    if local_testing is not None:
        local_testing.shutdown()
    with _lock:
        connection, local = _connection.current_or_none(), _local
        _local = None
        if connection is None:
            return
        if local is None:
            connection.run(_control.delete_all(connection))
        if connection.is_own:
            _connection.disconnect()
        if local is not None:
            local.stop()


def abandon() -> None:
    """Let the cluster that this process started end with it, at once, instead of in order at exit."""
    global _local
    _local = None


async def shutdown_async() -> None:
    """The same, for callers with a running event loop."""
    await asyncio.to_thread(shutdown)


def get_app_handle(name: str) -> "DeploymentHandle":
    """Make a handle to the ingress deployment of an application.

    Raises:
        SlipknotServeException: There is no application of that name.
    """
    from .serve.handle import DeploymentHandle

    application = _need_connection().snapshot().applications.get(name)
    if application is None:
        raise SlipknotServeException(f"Application '{name}' does not exist.")
    return DeploymentHandle(application.ingress_deployment, name)


def get_deployment_handle(
    deployment_name: str, app_name: str | None = None, _check_exists: bool = True
) -> "DeploymentHandle":
    """Make a handle to a deployment by its name.

    Args:
        deployment_name: The deployment's name.
        app_name: Its application; inside a replica the default is the replica's own.
        _check_exists: Look it up now.

    Raises:
        SlipknotServeException: No `app_name`, and this is no replica; or there is no such deployment.
    """
    from .serve.handle import DeploymentHandle

    connection = _need_connection()
    app = connection.app_name if app_name is None else app_name
    if not app:
        raise SlipknotServeException(
            f"get_deployment_handle({deployment_name!r}) needs app_name=… outside a deployment, "
            "for example 'default'."
        )
    application = connection.snapshot().applications.get(app)
    if _check_exists and application is None:
        raise _NoSuchDeploymentError(f"Application '{app}' does not exist.")
    if _check_exists and application is not None and deployment_name not in application.deployments:
        known = ", ".join(sorted(application.deployments))
        raise _NoSuchDeploymentError(
            f"Deployment '{deployment_name}' in application '{app}' does not exist; its deployments: {known}."
        )
    return DeploymentHandle(deployment_name, app)


class _NoSuchDeploymentError(ApplicationNotFoundError, KeyError):
    """Also a KeyError, which applications written for Ray Serve catch."""

    def __str__(self) -> str:
        return self.message


def http_url() -> str:
    """Root URL of this process's cluster, without a slash at the end; empty if it has no HTTP."""
    connection = _connection.current()
    addresses = [proxy.http_address for proxy in connection.run(_control.status(connection)).proxies]
    scheme = "https" if _local_http_options.get("ssl_keyfile") else "http"
    return f"{scheme}://{addresses[0]}" if addresses else ""


def is_cluster_alive() -> bool:
    """The embedded cluster of this process runs, or the cluster is not embedded."""
    return _local is None or _local.is_running()


# --- inside -----------------------------------------------------------------------------------------


def _deploy(targets: Sequence[RunTarget], *, wait: bool) -> "list[DeploymentHandle]":
    from ._graph import build_application
    from .serve.handle import DeploymentHandle

    specs = [
        build_application(t.target, name=t.name, route_prefix=t.route_prefix, logging_config=t.logging_config)
        for t in targets
    ]
    start()
    connection = _connection.current()
    connection.run(_control.deploy_all(connection, specs, wait=wait))
    return [DeploymentHandle(spec.ingress_deployment, spec.name) for spec in specs]


def _check_distinct(targets: Sequence[RunTarget]) -> None:
    for kind, values in (
        ("name", [t.name for t in targets]),
        ("route prefix", [t.route_prefix for t in targets if t.route_prefix is not None]),
    ):
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise ValueError(f"several of the applications have the {kind} {twice!r}; it must be unique")


def _local_testing_module() -> Any:
    """The module, if an application was run in local testing mode; importing it is expensive."""
    return sys.modules.get(f"{__package__}._local_testing")


def _need_connection() -> "_connection.Connection":
    connection = _connection.current_or_none() or _connection.connect_from_environment()
    if connection is None:
        raise SlipknotServeException(
            "there is no cluster: call serve.run or serve.start first, or set SLIPKNOT_ADDRESS"
        )
    return connection


def _configure_tracing(tracing_config: "Mapping[str, Any] | TracingConfig | None") -> dict[str, Any] | None:
    """Handle calls of this process have spans too."""
    from slipknot_core import tracing
    from slipknot_core.settings import tracing_settings

    from ._cluster_options import tracing_config_as_dict

    values = tracing_config_as_dict(tracing_config)
    settings = tracing_settings() if values is None else tracing.TracingSettings(**values)
    if settings.enabled:
        tracing.configure(settings)
        atexit.register(tracing.stop)  # which sends the last spans
    return values


def _start_cluster(
    address: str | None, given: tuple[Any, Any, Any, Any], tracing_config: dict[str, Any] | None
) -> None:
    global _local, _local_http_options
    if address is not None:
        _connection.connect(address)
        return
    from ._cluster_options import cluster_options
    from ._local import LocalCluster

    options = cluster_options(*given, tracing_config=tracing_config)
    local = LocalCluster(options)
    info = local.start()
    _local, _local_http_options = local, options.http
    _connection.connect(info.controller_address)
    atexit.register(_end_at_exit, local)


def _end_at_exit(local: "LocalCluster") -> None:
    if local is _local:
        shutdown()


def _warn_about_options(http_options: Any) -> None:
    if http_options is None or _local is None:
        return
    from ._cluster_options import http_options_as_dict

    asked = http_options_as_dict(http_options)
    different = sorted(key for key, value in asked.items() if _local_http_options.get(key, value) != value)
    if different:
        logger.warning(
            "serve.start: the cluster runs already, so these HTTP options stay as they are: %s. "
            "Call serve.shutdown() before to change them.",
            ", ".join(different),
        )


def _block() -> None:
    try:
        while is_cluster_alive():
            raise_if_interrupted()
            time.sleep(0.5)
    except KeyboardInterrupt:
        logger.info("shutting down")
    finally:
        shutdown()
