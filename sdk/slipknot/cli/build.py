"""`slipknot build`: a config file from applications in code."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
import yaml

from slipknot_core.spec import ImportSource

from .._graph import options_of_import_path

HEADER = (
    "# Written by `slipknot build`. Deploy it with `slipknot deploy FILE`, "
    "or try it with `slipknot run FILE`.\n"
)


def build_config(import_paths: Sequence[str], app_dir: Path, output: Path | None) -> int:
    """Print or write the config of `import_paths`."""
    sys.path.insert(0, str(app_dir))
    names = _names(len(import_paths))
    applications = [
        describe_application(path, app_dir, name, prefix)
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


def describe_application(import_path: str, app_dir: Path, name: str, route_prefix: str) -> dict[str, Any]:
    """An application as it stands in a config file."""
    deployments = options_of_import_path(ImportSource(import_path, working_dir=str(app_dir)))
    described = {
        "name": name,
        "route_prefix": route_prefix,
        "import_path": import_path,
        "deployments": [options.described() for options in deployments],
    }
    plain: dict[str, Any] = json.loads(json.dumps(described))  # YAML has no words for tuples and the like
    return plain


def _names(count: int) -> list[tuple[str, str]]:
    if count == 1:
        return [("default", "/")]
    return [(f"app{i}", f"/app{i}") for i in range(1, count + 1)]
