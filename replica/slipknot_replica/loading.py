"""From a launch to the user's code object."""

from slipknot._graph import load_deployment
from slipknot_core.errors import SerializationError
from slipknot_core.spec import ReplicaLaunch

from .user_code import UserCode


def load_user_code(launch: ReplicaLaunch) -> UserCode:
    """Import or unpickle the deployment; it is not constructed yet. Raises whatever that raises."""
    if launch.refuse_pickle and launch.deployment.code.import_source is None:
        raise SerializationError(
            "this application came by value, and no pickle is read here (allow_pickle is false); deploy it "
            "by its import path"
        )
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
