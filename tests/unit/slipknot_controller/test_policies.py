"""What a policy is told, and what is made of its answer."""

import json

import pytest

from slipknot_controller.autoscaling import History, Sample
from slipknot_controller.policies import MAX_STATE_BYTES, Load, PolicyOutcome, policy_answer, policy_call
from slipknot_core.autoscaling_spec import AutoscalingSpec
from slipknot_core.ids import DeploymentId
from slipknot_core.spec import CodeSource, DeploymentSpec, ImportSource
from slipknot_proto.v1 import registry_pb2
from slipknot_replica.policy import evaluate

SCALING = AutoscalingSpec(
    min_replicas=0,
    max_replicas=4,
    policy_function="tests.behaviour.scaling_policies:broken",
    policy_kwargs={"a": 1},
)


def outcome(number: object, state: object = None) -> PolicyOutcome:
    return PolicyOutcome(json.dumps({"number": number, "state": {} if state is None else state}))


@pytest.mark.parametrize(
    ("number", "load", "expected"), [(2, 0, 2), (9, 0, 4), (-1, 0, 0), (0, 3, 1), (1.2, 0, 2), (0, 0, 0)]
)
def test_the_number_is_clipped(number: float, load: int, expected: int) -> None:
    """To the bounds, and to one while there are requests."""
    assert policy_answer(SCALING, outcome(number, {"x": 1}), load) == (expected, {"x": 1})


@pytest.mark.parametrize(
    "bad",
    [
        PolicyOutcome(error="Traceback: no"),
        PolicyOutcome("no JSON"),
        PolicyOutcome("{}"),
        outcome("many"),
        outcome(float("nan")),
        outcome(1, []),
        outcome(1, {"x": "y" * MAX_STATE_BYTES}),
    ],
)
def test_other_answers_are_refused(bad: PolicyOutcome) -> None:
    """The number then stays what it is."""
    with pytest.raises(ValueError, match=r"."):
        policy_answer(SCALING, bad, 1)


def test_what_a_policy_is_told() -> None:
    """Everything that the built-in formula knows."""
    code = CodeSource(import_source=ImportSource("module:app", working_dir="/code"), python_path=("/lib",))
    spec = DeploymentSpec("Model", code, num_replicas=2, autoscaling=SCALING)
    call = policy_call(
        DeploymentId("app", "Model"),
        spec,
        running=1,
        load=Load(ongoing=3, queued=4),
        history=History((Sample(90.0, 5), Sample(98.0, 7))),
        policy_state={"seen": True},
        now_s=100.0,
    )
    assert (call.source.working_dir, call.python_path, json.loads(call.kwargs_json)) == (
        "/code",
        ("/lib",),
        {"a": 1},
    )
    context = json.loads(call.context_json)
    assert context["history"] == [[-10.0, 5], [-2.0, 7]]
    assert (context["current_num_replicas"], context["target_num_replicas"]) == (1, 2)
    assert (context["total_ongoing_requests"], context["total_queued_requests"]) == (3, 4)
    assert (context["total_num_requests"], context["policy_state"]) == (7, {"seen": True})


@pytest.mark.parametrize("answer", ["many", True, None, (1, []), float("inf")])
def test_an_answer_that_is_no_number_is_an_error(answer: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, with the traceback."""
    from tests.behaviour import scaling_policies

    monkeypatch.setattr(scaling_policies, "broken", lambda context, **kwargs: answer)
    call = policy_call(
        DeploymentId("app", "Model"),
        DeploymentSpec("Model", CodeSource(), autoscaling=SCALING),
        running=1,
        load=Load(0, 0),
        history=History(),
        policy_state={},
        now_s=0.0,
    )
    result = evaluate(
        registry_pb2.EvaluatePolicy(
            policy_function=call.policy_function, kwargs_json=call.kwargs_json, context_json=call.context_json
        )
    )
    assert "TypeError" in result.error and not result.result_json
