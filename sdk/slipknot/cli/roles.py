"""Single roles in the foreground: `python -m` of their packages, in the environment that suits a role."""

import importlib
import sys
from collections.abc import Sequence

from slipknot_core.role_environment import prepare


def run_controller(arguments: Sequence[str]) -> None:
    """Run a controller."""
    _run_module("slipknot_controller", arguments)


def run_proxy(arguments: Sequence[str]) -> None:
    """Run a proxy."""
    _run_module("slipknot_proxy", arguments)


def run_node(arguments: Sequence[str]) -> None:
    """Run a node agent."""
    _run_module("slipknot_replica.node_main", arguments)


def _run_module(name: str, arguments: Sequence[str]) -> None:
    prepare()
    module = importlib.import_module(name if "." in name else f"{name}.__main__")
    sys.argv = [name, *arguments]
    module.main()
