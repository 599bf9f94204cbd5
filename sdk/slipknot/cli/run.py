"""`slipknot run`: bring an application up, stay with it, take it down."""

import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from slipknot_core.ids import short_id
from slipknot_core.spec import ApplicationSpec, ImportSource

from .. import _api, _connection, _control
from .._console import hear_interrupts, raise_if_interrupted
from .._user_code import user_traceback
from .progress import Progress

if TYPE_CHECKING:
    from ..serve.schema import ServeDeploySchema

logger = logging.getLogger("slipknot.serve")

RELOAD_POLL_S = 0.5
RELOADED = (".py", ".yaml", ".yml", ".json")
"""Endings of the files whose changes count."""
VERSION_VARIABLE = "SLIPKNOT_CODE_VERSION"
"""Environment variable of replicas that makes equal applications different versions."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The command line of `slipknot run`."""

    target: str
    arguments: Sequence[str]
    app_dir: Path
    name: str = "default"
    route_prefix: str = "/"
    blocking: bool = True
    reload: bool = False
    host: str | None = None
    port: int | None = None
    address: str | None = None


def run_target(options: RunOptions) -> int:
    """Run it; returns the exit status."""
    if options.blocking:
        hear_interrupts()
    sys.path.insert(0, str(options.app_dir))
    # Before the code is read: a change while it starts is a change.
    stamp = _newest_change(options.app_dir) if options.reload else 0.0
    try:
        _run_until_interrupted(options, stamp)
    except KeyboardInterrupt:  # once more, wherever the first one had got to
        _api.abandon()
        raise
    return 0


def is_config_file(target: str) -> bool:
    """It names a file rather than a module."""
    return target.endswith((".yaml", ".yml")) or (target.endswith(".json") and Path(target).exists())


def parse_arguments(arguments: Sequence[str]) -> dict[str, str]:
    """Read KEY=VALUE pairs.

    Raises:
        ValueError: One has no "=", names the argument.
    """
    pairs = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key:
            raise ValueError(
                f"{argument!r} is not KEY=VALUE; arguments of a builder function look like model=small"
            )
        pairs[key] = value
    return pairs


def build_spec(
    target: str, arguments: Mapping[str, Any], app_dir: Path, name: str, route_prefix: str
) -> ApplicationSpec:
    """Import the application here; its replicas import it again, nothing is pickled."""
    from .._graph import build_from_import_path

    # The code may have changed since the last time, and nobody could tell: each time is a new version.
    source = ImportSource(target, dict(arguments), str(app_dir), {VERSION_VARIABLE: short_id()})
    return build_from_import_path(source, name=name, route_prefix=route_prefix, overrides=[])


def with_archive(spec: ApplicationSpec, archive: str) -> ApplicationSpec:
    """The same application, whose code the nodes find in an archive."""

    def moved(source: ImportSource | None) -> ImportSource | None:
        return None if source is None else replace(source, working_dir="", archive=archive)

    deployments = [
        replace(d, code=replace(d.code, import_source=moved(d.code.import_source), python_path=()))
        for d in spec.deployments
    ]
    return replace(spec, deployments=tuple(deployments), import_source=moved(spec.import_source))


def apply_config(config_json: str) -> None:
    """Make what runs equal to a config, and wait until it serves."""
    connection = _connection.current()
    with Progress() as progress:
        connection.run(_control.apply_config(connection, config_json, on_status=progress.show))


# --- inside -----------------------------------------------------------------------------------------


def _run_until_interrupted(options: RunOptions, stamp: float) -> None:
    try:
        _bring_up(options)
        if options.blocking:
            _stay(options, stamp)
    except KeyboardInterrupt:
        typer.echo("Shutting down.", err=True)
    except BaseException:
        _shut_down_own(options)
        raise
    if options.blocking:
        _shut_down_own(options)


def _bring_up(options: RunOptions, *, is_reload: bool = False) -> None:
    if is_config_file(options.target):
        from ..serve.schema import load_config_file

        if options.arguments:
            raise ValueError(
                "arguments (KEY=VALUE) go with an import path; a config file has `args:` of its own"
            )
        config = load_config_file(options.target)
        _start(options, config.http_options.model_dump(exclude_unset=True), **_start_options(config))
        values = config.model_dump(mode="json", exclude_unset=True)
        apply_config(_with_app_dir(values, options.app_dir, is_new_code=is_reload))
        for application in config.applications:
            _say_where(application.name, application.route_prefix)
        return
    spec = build_spec(
        options.target,
        parse_arguments(options.arguments),
        options.app_dir,
        options.name,
        options.route_prefix,
    )
    _start(options, {})
    _deploy(spec)


def _with_app_dir(config: dict[str, Any], app_dir: Path, *, is_new_code: bool) -> str:
    for application in config["applications"]:
        environment = application.setdefault("runtime_env", {})
        environment.setdefault("working_dir", str(app_dir))
        if is_new_code:
            environment.setdefault("env_vars", {})[VERSION_VARIABLE] = short_id()
    return json.dumps(config)


def _start_options(config: "ServeDeploySchema") -> dict[str, Any]:
    """What a config file says of the cluster's processes, besides HTTP; what it does not say is left to the
    environment and the defaults."""
    names = ("proxy_location", "grpc_options", "logging_config")
    found = {name: getattr(config, name) for name in names if name in config.model_fields_set}
    if config.tracing_config is not None:
        found["tracing_config"] = config.tracing_config.model_dump(exclude_unset=True)
    return found


def _start(options: RunOptions, http_options: dict[str, Any], **others: Any) -> None:
    if options.blocking:
        raise_if_interrupted()  # the user's modules have been imported since
    http_options.update({k: v for k, v in (("host", options.host), ("port", options.port)) if v is not None})
    _api.start(http_options=http_options, address=options.address, **others)


def _deploy(spec: ApplicationSpec) -> None:
    connection = _connection.current()
    with Progress() as progress:
        connection.run(_control.deploy_all(connection, [spec], on_status=progress.show))
    _say_where(spec.name, spec.route_prefix)


def _say_where(name: str, route_prefix: str | None) -> None:
    url = "" if route_prefix is None else _api.http_url()
    where = f"at {url}{route_prefix}" if url else "handle calls only, it has no HTTP"
    typer.echo(f"Application {name!r} serves {where}", err=True)


def _stay(options: RunOptions, stamp: float) -> None:
    while _api.is_cluster_alive():
        raise_if_interrupted()
        time.sleep(RELOAD_POLL_S)
        if options.reload and (newest := _newest_change(options.app_dir)) != stamp:
            stamp = newest
            _reload(options)
    raise RuntimeError("the cluster has ended")


def _reload(options: RunOptions) -> None:
    typer.echo("A file has changed: deploying again.", err=True)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and Path(file).is_relative_to(options.app_dir) and "site-packages" not in file:
            del sys.modules[name]
    try:
        _bring_up(options, is_reload=True)
    except Exception as error:  # noqa: BLE001 - the edited module may raise anything; the next change is another chance
        shown = user_traceback(error) or f"Error: {type(error).__name__}: {error}"
        typer.echo(f"{shown}\nThe version before it still serves.", err=True)


def _newest_change(directory: Path) -> float:
    """When a file the application may be made of was last changed."""
    newest = 0.0
    for parent, directories, names in os.walk(directory):
        directories[:] = [name for name in directories if not name.startswith(".")]
        for name in names:
            if name.endswith(RELOADED) and not name.startswith("."):
                newest = max(newest, _changed_at(os.path.join(parent, name)))
    return newest


def _changed_at(path: str) -> float:
    """0 if it is gone by now, as the temporary file of an editor, or a link to nothing."""
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def _shut_down_own(options: RunOptions) -> None:
    if options.address is None:
        _api.shutdown()
