"""From a launch to the user's code object."""

from slipknot._graph import load_deployment
from slipknot_core.spec import ReplicaLaunch

from .user_code import UserCode


def load_user_code(launch: ReplicaLaunch) -> UserCode:
    """Import or unpickle the deployment; it is not constructed yet. Raises whatever that raises."""
    loaded = load_deployment(launch.deployment, launch.app_name)
    return UserCode(
        loaded.func_or_class,
        loaded.init_args,
        loaded.init_kwargs,
        max_ongoing_requests=launch.deployment.max_ongoing_requests,
        is_ingress=launch.is_ingress,
        http_adapter=loaded.http_adapter,
        deployment_name=launch.deployment.name,
        app_name=launch.app_name,
    )
