"""The functions of `slipknot.serve` under the module name that applications written for Ray Serve import."""

from .._api import (
    RunTarget,
    delete,
    get_app_handle,
    get_deployment_handle,
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
from .context import get_multiplexed_model_id, get_replica_context

__all__ = [
    "Application",
    "Deployment",
    "RunTarget",
    "batch",
    "delete",
    "deployment",
    "get_app_handle",
    "get_deployment_handle",
    "get_multiplexed_model_id",
    "get_replica_context",
    "ingress",
    "multiplexed",
    "run",
    "run_many",
    "shutdown",
    "shutdown_async",
    "start",
    "status",
]
