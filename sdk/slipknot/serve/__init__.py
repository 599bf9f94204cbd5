"""The public API. Importing it costs next to nothing: a name is fetched from its module at its first use."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .._api import (
        RunTarget,
        delete,
        get_app_handle,
        get_deployment_handle,
        http_url,
        run,
        run_many,
        shutdown,
        shutdown_async,
        start,
        status,
    )
    from .._batching import batch
    from .._deployment import Application, Deployment, deployment
    from .._ingress import ingress
    from .._multiplexed import multiplexed
    from . import config, context, exceptions, handle, http_adapters, metrics, schema
    from .config import ControllerOptions, HTTPOptions
    from .context import cancelled, get_multiplexed_model_id, get_replica_context, get_request_context
    from .schema import TracingConfig

__all__ = [
    "Application",
    "ControllerOptions",
    "Deployment",
    "HTTPOptions",
    "RunTarget",
    "TracingConfig",
    "batch",
    "cancelled",
    "config",
    "context",
    "delete",
    "deployment",
    "exceptions",
    "get_app_handle",
    "get_deployment_handle",
    "get_multiplexed_model_id",
    "get_replica_context",
    "get_request_context",
    "handle",
    "http_adapters",
    "http_url",
    "ingress",
    "metrics",
    "multiplexed",
    "run",
    "run_many",
    "schema",
    "shutdown",
    "shutdown_async",
    "start",
    "status",
]

_HOME = {
    "slipknot._api": (
        "RunTarget",
        "delete",
        "get_app_handle",
        "get_deployment_handle",
        "http_url",
        "run",
        "run_many",
        "shutdown",
        "shutdown_async",
        "start",
        "status",
    ),
    "slipknot._batching": ("batch",),
    "slipknot._deployment": ("Application", "Deployment", "deployment"),
    "slipknot._ingress": ("ingress",),
    "slipknot._multiplexed": ("multiplexed",),
    "slipknot.serve.config": ("ControllerOptions", "HTTPOptions"),
    "slipknot.serve.context": (
        "cancelled",
        "get_multiplexed_model_id",
        "get_replica_context",
        "get_request_context",
    ),
    "slipknot.serve.schema": ("TracingConfig",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
_ALIASES = {"api", "grpc_util"}
"""Modules that applications written for Ray Serve import; there is nothing in them that is not elsewhere."""
_MODULES = frozenset(__all__) - _MODULE_OF.keys() | _ALIASES


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _MODULE_OF:
        value = getattr(importlib.import_module(_MODULE_OF[name]), name)
        globals()[name] = value  # the next access does not come here
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
