"""Policies of the user's that decide on numbers of replicas: what they are told, what they answered. Pure.

A policy decides on one deployment, or on all autoscaled deployments of an application at once. Its code never
runs here, but on a node, in a process of its own for each evaluation, and one at a time for each of these.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from slipknot_core.autoscaling_spec import AutoscalingSpec
from slipknot_core.ids import DeploymentId
from slipknot_core.spec import ApplicationSpec, DeploymentSpec, ImportSource

from .autoscaling import History

POLICY_PERIOD_S = 2.0
"""Between the end of an evaluation and the next one."""
POLICY_TIMEOUT_S = 10.0
"""For an evaluation, with the import of the policy's module."""
MAX_STATE_BYTES = 64 * 1024
"""Of what a policy wants to find again next time, as JSON."""


@dataclass(frozen=True, slots=True)
class PolicyCall:
    """One evaluation, as a node needs it."""

    policy_function: str
    kwargs_json: str
    context_json: str
    source: ImportSource
    python_path: tuple[str, ...] = ()
    timeout_s: float = POLICY_TIMEOUT_S
    for_application: bool = False


@dataclass(frozen=True, slots=True)
class PolicyOutcome:
    """What came of it: a JSON object, or the traceback."""

    result_json: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Load:
    """Requests to a deployment now."""

    ongoing: int
    queued: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.ongoing + self.queued


@dataclass(frozen=True, slots=True)
class Situation:
    """What a policy is told of one deployment."""

    id: DeploymentId
    spec: DeploymentSpec
    """With `autoscaling`."""
    load: Load
    running: Sequence[str] = ()
    """Replicas that run."""
    history: History = field(default_factory=History)
    state: Mapping[str, Any] = field(default_factory=dict)
    """What the policy returned for it last time."""

    def context(self, now_s: float) -> dict[str, Any]:
        """As the node needs it to make an `AutoscalingContext`."""
        scaling = _scaling(self.spec)
        return {
            "app_name": self.id.app_name,
            "deployment_name": self.id.name,
            "current_num_replicas": len(self.running),
            "target_num_replicas": self.spec.num_replicas,
            "min_replicas": scaling.min_replicas,
            "max_replicas": scaling.max_replicas,
            "target_ongoing_requests": scaling.target_ongoing_requests,
            "total_ongoing_requests": self.load.ongoing,
            "total_queued_requests": self.load.queued,
            "total_num_requests": self.load.total,
            "history": [[round(sample.at_s - now_s, 3), sample.load] for sample in self.history.samples],
            "policy_state": dict(self.state),
            "running_replicas": list(self.running),
            "config": _config(scaling),
        }


def deployment_policy_call(situation: Situation, now_s: float) -> PolicyCall:
    """The call of a deployment's own policy, which it must have."""
    spec = situation.spec
    scaling = _scaling(spec)
    return PolicyCall(
        policy_function=scaling.policy_function,
        kwargs_json=json.dumps(dict(scaling.policy_kwargs)),
        context_json=json.dumps(situation.context(now_s)),
        source=spec.code.import_source or ImportSource(""),
        python_path=tuple(spec.code.python_path),
    )


def application_policy_call(
    application: ApplicationSpec, situations: Sequence[Situation], now_s: float
) -> PolicyCall:
    """The call of an application's policy, which it must have, with its autoscaled deployments."""
    policy = application.autoscaling_policy
    assert policy is not None
    code = application.deployments[0].code
    return PolicyCall(
        policy_function=policy.policy_function,
        kwargs_json=json.dumps(dict(policy.policy_kwargs)),
        context_json=json.dumps([situation.context(now_s) for situation in situations]),
        source=application.import_source or code.import_source or ImportSource(""),
        python_path=tuple(code.python_path),
        for_application=True,
    )


def deployment_policy_answer(
    scaling: AutoscalingSpec, outcome: PolicyOutcome, load: int
) -> tuple[int, Mapping[str, Any]]:
    """The number within the bounds, and the policy's state. While requests wait or run it is not 0.

    Raises:
        ValueError: The policy failed, or answered something else; the message is for people.
    """
    result = _result(outcome)
    try:
        number, state = float(result["number"]), result["state"]
    except (KeyError, TypeError, ValueError):
        raise _not_understood(outcome) from None
    if not isinstance(state, dict):
        raise ValueError(f"the policy answered {number!r} and the state {state!r}")
    return allowed_number(scaling, number, load), state


def application_policy_answer(outcome: PolicyOutcome) -> tuple[Mapping[str, float], Mapping[str, Any]]:
    """The numbers as they were answered, and the states, both by the deployment's name.

    Raises:
        ValueError: As `deployment_policy_answer`.
    """
    result = _result(outcome)
    try:
        numbers = {str(name): float(number) for name, number in result["numbers"].items()}
        states = {str(name): dict(state) for name, state in result["states"].items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise _not_understood(outcome) from None
    return numbers, states


def allowed_number(scaling: AutoscalingSpec, number: float, load: int) -> int:
    """What a policy's number means: within the bounds, and not 0 while requests wait or run.

    Raises:
        ValueError: It is not finite.
    """
    if not math.isfinite(number):
        raise ValueError(f"the policy answered {number!r}")
    return scaling.within_bounds(max(1 if load > 0 else 0, math.ceil(number)))


def _result(outcome: PolicyOutcome) -> Mapping[str, Any]:
    if outcome.error:
        raise ValueError(outcome.error)
    if len(outcome.result_json) > MAX_STATE_BYTES:
        raise ValueError(f"the policy's state is larger than {MAX_STATE_BYTES} bytes")
    try:
        result = json.loads(outcome.result_json)
    except ValueError:
        raise _not_understood(outcome) from None
    if not isinstance(result, dict):
        raise _not_understood(outcome)
    return result


def _not_understood(outcome: PolicyOutcome) -> ValueError:
    return ValueError(f"the policy's answer is not understood: {outcome.result_json[:200]!r}")


def _scaling(spec: DeploymentSpec) -> AutoscalingSpec:
    assert spec.autoscaling is not None
    return spec.autoscaling


def _config(scaling: AutoscalingSpec) -> dict[str, Any]:
    return {
        "min_replicas": scaling.min_replicas,
        "max_replicas": scaling.max_replicas,
        "initial_replicas": scaling.initial_replicas,
        "target_ongoing_requests": scaling.target_ongoing_requests,
        "look_back_period_s": scaling.look_back_period_s,
        "upscale_delay_s": scaling.upscale_delay_s,
        "downscale_delay_s": scaling.downscale_delay_s,
        "downscale_to_zero_delay_s": scaling.downscale_to_zero_delay_s,
        "upscaling_factor": scaling.upscaling_factor,
        "downscaling_factor": scaling.downscaling_factor,
        "aggregation_function": scaling.aggregation_function,
    }
