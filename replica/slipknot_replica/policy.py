"""Evaluates an autoscaling policy of the user's, in a process that is thrown away afterwards."""

import json
import math
import os

from slipknot_core.failures import format_traceback
from slipknot_core.spec import ImportSource
from slipknot_proto.v1 import registry_pb2


def evaluate(command: registry_pb2.EvaluatePolicy) -> registry_pb2.PolicyResult:
    """Call the policy; a failure becomes a result with the traceback."""
    result = registry_pb2.PolicyResult(evaluation_id=command.evaluation_id)
    try:
        result.result_json = _call(command)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code may raise anything
        result.error = format_traceback(error)
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
    from slipknot.serve.config import AutoscalingContext

    extend_python_path(list(command.python_path))
    use_directory(ImportSource.from_proto(command.source).working_dir)
    policy = import_attribute(command.policy_function)
    values = json.loads(command.context_json)
    values["history"] = tuple((age_s, load) for age_s, load in values["history"])
    answer = policy(AutoscalingContext(**values), **json.loads(command.kwargs_json or "{}"))
    number, state = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, {})
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise TypeError(f"a policy returns a number of replicas, or a tuple of it and a dict; not {answer!r}")
    if not isinstance(state, dict):
        raise TypeError(f"the state that a policy returns is a dict of JSON values, not {state!r}")
    return json.dumps({"number": number, "state": state})
