"""Policies of the user's that decide on the number of replicas: what they are told, what they answered. Pure.

Their code never runs here, but on a node, in a process of its own for each evaluation, and one at a time for
each deployment.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slipknot_core.autoscaling_spec import AutoscalingSpec
from slipknot_core.ids import DeploymentId
from slipknot_core.spec import DeploymentSpec, ImportSource

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


@dataclass(frozen=True, slots=True)
class PolicyOutcome:
    """What came of it: a JSON object with `number` and `state`, or the traceback."""

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


def policy_call(
    deployment_id: DeploymentId,
    spec: DeploymentSpec,
    *,
    running: int,
    load: Load,
    history: History,
    policy_state: Mapping[str, Any],
    now_s: float,
) -> PolicyCall:
    """What the policy of a deployment is told, which must have one.

    Args:
        deployment_id: The deployment.
        spec: What is wanted of it.
        running: Replicas that run.
        load: Its requests now.
        history: And before.
        policy_state: What the policy returned last time.
        now_s: The clock.
    """
    scaling = spec.autoscaling
    assert scaling is not None
    context = {
        "app_name": deployment_id.app_name,
        "deployment_name": deployment_id.name,
        "current_num_replicas": running,
        "target_num_replicas": spec.num_replicas,
        "min_replicas": scaling.min_replicas,
        "max_replicas": scaling.max_replicas,
        "target_ongoing_requests": scaling.target_ongoing_requests,
        "total_ongoing_requests": load.ongoing,
        "total_queued_requests": load.queued,
        "total_num_requests": load.total,
        "history": [[round(sample.at_s - now_s, 3), sample.load] for sample in history.samples],
        "policy_state": dict(policy_state),
    }
    return PolicyCall(
        policy_function=scaling.policy_function,
        kwargs_json=json.dumps(dict(scaling.policy_kwargs)),
        context_json=json.dumps(context),
        source=spec.code.import_source or ImportSource(""),
        python_path=tuple(spec.code.python_path),
    )


def policy_answer(
    scaling: AutoscalingSpec, outcome: PolicyOutcome, load: int
) -> tuple[int, Mapping[str, Any]]:
    """The number within the bounds, and the policy's state. While requests wait or run it is not 0.

    Raises:
        ValueError: The policy failed, or answered something else; the message is for people.
    """
    if outcome.error:
        raise ValueError(outcome.error)
    try:
        result = json.loads(outcome.result_json)
        number, state = float(result["number"]), result["state"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"the policy's answer is not understood: {outcome.result_json[:200]!r}") from None
    if not math.isfinite(number) or not isinstance(state, dict):
        raise ValueError(f"the policy answered {number!r} and the state {state!r}")
    if len(outcome.result_json) > MAX_STATE_BYTES:
        raise ValueError(f"the policy's state is larger than {MAX_STATE_BYTES} bytes")
    return scaling.within_bounds(max(1 if load > 0 else 0, math.ceil(number))), state
