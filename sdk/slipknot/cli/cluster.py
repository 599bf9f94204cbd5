"""Commands that speak to a running cluster, and the one that starts it."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer
import yaml

from slipknot_core.errors import SlipknotServeException
from slipknot_core.runtime_dir import ClusterInfo, find_clusters
from slipknot_core.settings import cluster_settings
from slipknot_proto.v1 import controller_pb2

from .. import _connection, _control
from .._upload import is_remote, upload_directory
from .progress import Progress
from .run import apply_config, build_spec, is_config_file, parse_arguments, with_archive

START_OPTIONS = ("proxy_location", "http_options", "grpc_options", "logging_config", "tracing_config")
"""Keys of a config that cannot be changed while a cluster runs."""

END_TIMEOUT_S = 30.0
"""For the processes of a cluster without applications to end."""
END_POLL_S = 0.02

NO_CLUSTER = (
    "no cluster runs here: start one with `slipknot start` or `slipknot run`, or name one with --address"
)


def start_cluster(
    http_host: str, http_port: int, grpc_port: int | None, proxy_location: str, metrics_port: int | None
) -> int:
    """Start a cluster in the background."""
    from .._cluster_options import cluster_options
    from .._local import start_detached

    grpc_options = None if grpc_port is None else {"port": grpc_port}
    options = cluster_options(proxy_location, {"host": http_host, "port": http_port}, grpc_options)
    info = start_detached(replace(options, metrics_port=metrics_port))
    typer.echo(f"The cluster runs. HTTP: {info.http_address or '-'}, gateway: {info.gateway_address or '-'}")
    typer.echo("Deploy to it: slipknot deploy module:app        End it: slipknot shutdown")
    return 0


def deploy_target(
    target: str,
    arguments: Sequence[str],
    app_dir: Path,
    name: str,
    route_prefix: str,
    wait: bool,
    address: str | None,
    *,
    has_code: bool = False,
) -> int:
    """Deploy a config file or an import path; `has_code`: what is in `app_dir` is all that the nodes need."""
    sys.path.insert(0, str(app_dir))
    if is_config_file(target):
        from ..serve.schema import load_config_file

        config = load_config_file(target).model_dump(mode="json", exclude_unset=True)
        _warn_about_start_options(config)
        connection = _connect(address)
        for application in config["applications"]:
            environment = application.setdefault("runtime_env", {})
            _settle_directory(connection, environment, app_dir, has_code=has_code)
        if wait:
            apply_config(json.dumps(config))
        else:
            connection.run(_control.apply_config(connection, json.dumps(config), wait=False))
    else:
        spec = build_spec(target, parse_arguments(arguments), app_dir, name, route_prefix)
        connection = _connect(address)
        if has_code and is_remote(connection.dispatcher.controller_address):
            spec = with_archive(spec, connection.run(upload_directory(connection, app_dir)))
        with Progress() as progress:
            connection.run(_control.deploy_all(connection, [spec], wait=wait, on_status=progress.show))
    typer.echo("Deployed." if wait else "The deployment has begun; see `slipknot status`.")
    return 0


def show_config(name: str | None, address: str | None) -> int:
    """Print the config that was last deployed as YAML."""
    connection = _connect(address)
    response = connection.run(
        _control.call(connection, "GetConfig", controller_pb2.GetConfigRequest(), again=True)
    )
    if not response.config_json:
        typer.echo("No config has been deployed.")
        return 0
    config = json.loads(response.config_json)
    if name is not None:
        found = [a for a in config["applications"] if a.get("name", "default") == name]
        if not found:
            raise SlipknotServeException(f"the config has no application '{name}'")
        config = found[0]
    typer.echo(yaml.safe_dump(config, sort_keys=False), nl=False)
    return 0


def shut_down(yes: bool, address: str | None) -> int:
    """Delete all applications and end the cluster; of several on this machine one must be named."""
    found = find_controller(address, only=True)
    if not found:
        typer.echo("No cluster runs here.")
        return 0
    if not yes and not typer.confirm(f"End the cluster at {found} with all its applications?"):
        return 1
    ends_itself = any(cluster.controller_address == found for cluster in find_clusters())
    connection = _connect(address)
    connection.run(_control.shutdown_cluster(connection))
    _connection.disconnect()
    if ends_itself:
        _wait_until_ended(found)
        typer.echo("The cluster has ended.")
    else:
        typer.echo(
            "All applications have ended. The controllers, proxies and nodes go on: end them where they run."
        )
    return 0


def find_controller(address: str | None, *, only: bool = False) -> str:
    """The address of the controller, or of several; empty if there is none.

    Without an address the newest that `slipknot start` has started, or else the newest that runs here.

    Raises:
        SlipknotServeException: There are several of these, and it must be the only one.
    """
    if address or cluster_settings().address:
        return address or cluster_settings().address
    clusters: list[ClusterInfo] = find_clusters()
    clusters = [cluster for cluster in clusters if cluster.is_detached] or clusters
    if only and len(clusters) > 1:
        known = "".join(
            f"\n  {one.controller_address}  (HTTP {one.http_address or '-'}, pid {one.launcher_pid})"
            for one in clusters
        )
        raise SlipknotServeException(f"{len(clusters)} clusters run here; name one with --address:{known}")
    return clusters[-1].controller_address if clusters else ""


# --- inside -----------------------------------------------------------------------------------------


def _settle_directory(
    connection: _connection.Connection, environment: dict[str, Any], app_dir: Path, *, has_code: bool
) -> None:
    """Let a config's `runtime_env` say where the nodes find the code: uploaded to a cluster elsewhere, in its
    place for one on this machine, and as it is if this machine has no such directory.
    """
    excludes = environment.pop("excludes", [])
    named = environment.get("working_dir")
    if environment.get("archive"):
        return
    directory = (app_dir / named).resolve() if named else app_dir
    if named and directory.is_file():
        raise ValueError(
            f"the working_dir {named!r} ({directory}) is a file; give the directory, or unpack the archive"
        )
    if named and not directory.exists() and not Path(named).is_absolute():
        raise ValueError(f"the working_dir {named!r} ({directory}) does not exist")
    is_here = (bool(named) or has_code) and directory.is_dir()
    if is_here and is_remote(connection.dispatcher.controller_address):
        environment["archive"] = connection.run(upload_directory(connection, directory, excludes))
        environment["working_dir"] = ""
    elif is_here or not named:
        environment["working_dir"] = str(directory)


def _warn_about_start_options(config: Mapping[str, Any]) -> None:
    given = [key for key in START_OPTIONS if key in config]
    if given:
        typer.echo(
            f"Warning: {', '.join(given)}: ignored, since the cluster runs already; "
            "they count when a cluster starts (`slipknot run`, `slipknot start`).",
            err=True,
        )


def _wait_until_ended(controller_address: str) -> None:
    """Wait until the processes on this machine are gone and their ports are free."""
    deadline_s = time.monotonic() + END_TIMEOUT_S
    while any(cluster.controller_address == controller_address for cluster in find_clusters()):
        if time.monotonic() > deadline_s:
            raise RuntimeError("the applications are gone, but the cluster's processes have not ended")
        time.sleep(END_POLL_S)


def _connect(address: str | None) -> _connection.Connection:
    found = find_controller(address)
    if not found:
        raise SlipknotServeException(NO_CLUSTER)
    return _connection.connect(found)
