"""Evaluates an autoscaling policy of the user's, in a process that is thrown away afterwards."""

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from slipknot_core.spec import ImportSource
from slipknot_proto.v1 import registry_pb2

if TYPE_CHECKING:
    from slipknot.serve.config import AutoscalingContext, DeploymentID


def evaluate(command: registry_pb2.EvaluatePolicy) -> registry_pb2.PolicyResult:
    """Call the policy; a failure becomes a result with the traceback."""
    result = registry_pb2.PolicyResult(evaluation_id=command.evaluation_id)
    try:
        result.result_json = _call(command)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code may raise anything
        from slipknot._user_code import explained

        result.error = explained(error)
    return result


def evaluate_from_fds(command_fd: int, result_fd: int) -> None:
    """Read the command from one file and write the result to another."""
    with os.fdopen(command_fd, "rb") as file:
        command = registry_pb2.EvaluatePolicy.FromString(file.read())
    with os.fdopen(result_fd, "wb") as file:
        file.write(evaluate(command).SerializeToString())


def _call(command: registry_pb2.EvaluatePolicy) -> str:
    from slipknot._builder import use_directory
    from slipknot._import_path import import_attribute
    from slipknot._modules import extend_python_path
    from slipknot._user_code import call_user_code

    extend_python_path(list(command.python_path))
    use_directory(ImportSource.from_proto(command.source).working_dir)
    policy = partial(call_user_code, import_attribute(command.policy_function))
    told, kwargs = json.loads(command.context_json), json.loads(command.kwargs_json or "{}")
    if command.for_application:
        return json.dumps(_for_application(policy, [_context(values) for values in told], kwargs))
    return json.dumps(_for_deployment(policy, _context(told), kwargs))


def _context(values: dict[str, Any]) -> "AutoscalingContext":
    from slipknot.serve.config import AutoscalingConfig, AutoscalingContext

    values["history"] = tuple((age_s, load) for age_s, load in values["history"])
    values["running_replicas"] = tuple(values["running_replicas"])
    values["config"] = AutoscalingConfig(**values["config"])
    return AutoscalingContext(**values, current_time=time.time())


def _for_deployment(
    policy: Callable[..., Any], context: "AutoscalingContext", kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    answer, state = _with_state(policy(context, **kwargs))
    if not _is_number(answer):
        raise TypeError(f"a policy returns a number of replicas, or a tuple of it and a dict; not {answer!r}")
    return {"number": answer, "state": state}


def _for_application(
    policy: Callable[..., Any], contexts: list["AutoscalingContext"], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    by_id = {context.deployment_id: context for context in contexts}
    answer, state = _with_state(policy(by_id, **kwargs))
    if not isinstance(answer, dict) or not all(map(_is_number, answer.values())):
        raise TypeError(
            "the policy of an application returns a dict of numbers of replicas by DeploymentID, or a tuple "
            f"of it and a dict; not {answer!r}"
        )
    names = {context.deployment_name for context in contexts}
    numbers = {_name(key, names): number for key, number in answer.items()}
    is_by_deployment = bool(state) and not any(isinstance(key, str) for key in state)
    states = (
        {_name(key, names): value for key, value in state.items()}
        if is_by_deployment
        else dict.fromkeys(names, state)
    )
    if not all(isinstance(value, dict) for value in states.values()):
        raise TypeError(f"the state of each deployment is a dict of JSON values, not {state!r}")
    return {"numbers": numbers, "states": states}


def _with_state(answer: Any) -> tuple[Any, dict[Any, Any]]:
    answer, state = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, {})
    if not isinstance(state, dict):
        raise TypeError(f"the state that a policy returns is a dict of JSON values, not {state!r}")
    return answer, state


def _name(key: "DeploymentID | str", names: set[str]) -> str:
    name = key if isinstance(key, str) else getattr(key, "name", None)
    if name not in names:
        raise ValueError(
            f"the policy decided on {key!r}; the deployments that are scaled are {', '.join(sorted(names))}"
        )
    return str(name)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
