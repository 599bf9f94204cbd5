"""Single roles in the foreground, each the same as `python -m` of its package."""

import importlib
import sys


def run_controller(config_json: str) -> None:
    """Run a controller."""
    _run_module("slipknot_controller", config_json)


def run_proxy(config_json: str) -> None:
    """Run a proxy."""
    _run_module("slipknot_proxy", config_json)


def run_node(config_json: str) -> None:
    """Run a node agent."""
    _run_module("slipknot_replica.node_main", config_json)


def _run_module(name: str, config_json: str) -> None:
    module = importlib.import_module(name if "." in name else f"{name}.__main__")
    sys.argv = [name, "--config-json", config_json]
    module.main()
