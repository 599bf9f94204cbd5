"""`slipknot build`: a config file from applications in code."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
import yaml

from slipknot_core.spec import ApplicationSpec, DeploymentSpec

from .run import build_spec

HEADER = (
    "# Written by `slipknot build`. Deploy it with `slipknot deploy FILE`, "
    "or try it with `slipknot run FILE`.\n"
)


def build_config(import_paths: Sequence[str], app_dir: Path, output: Path | None) -> int:
    """Print or write the config of `import_paths`."""
    sys.path.insert(0, str(app_dir))
    names = _names(len(import_paths))
    applications = [
        describe_application(build_spec(path, {}, app_dir, name, prefix), path)
        for path, (name, prefix) in zip(import_paths, names, strict=True)
    ]
    config = {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": 8000},
        "applications": applications,
    }
    text = HEADER + yaml.safe_dump(config, sort_keys=False)
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text)
        typer.echo(f"Wrote {output}.", err=True)
    return 0


def describe_application(spec: ApplicationSpec, import_path: str) -> dict[str, Any]:
    """An application as it stands in a config file."""
    return {
        "name": spec.name,
        "route_prefix": spec.route_prefix,
        "import_path": import_path,
        "deployments": [describe_deployment(deployment) for deployment in spec.deployments],
    }


def describe_deployment(spec: DeploymentSpec) -> dict[str, Any]:
    """A deployment with the options that are not the defaults."""
    default = DeploymentSpec(spec.name, spec.code)
    described: dict[str, Any] = {"name": spec.name, "num_replicas": spec.num_replicas}
    for option in (
        "max_ongoing_requests",
        "max_queued_requests",
        "graceful_shutdown_wait_loop_s",
        "graceful_shutdown_timeout_s",
        "health_check_period_s",
        "health_check_timeout_s",
    ):
        value = getattr(spec, option)
        if value != getattr(default, option):
            described[option] = value
    return described


def _names(count: int) -> list[tuple[str, str]]:
    if count == 1:
        return [("default", "/")]
    return [(f"app{i}", f"/app{i}") for i in range(1, count + 1)]
