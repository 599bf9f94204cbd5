"""What a policy is told, and what is made of its answer."""

import json
from collections.abc import Callable

import pytest

from slipknot.serve.config import AutoscalingContext, DeploymentID
from slipknot_controller.autoscaling import History, Sample
from slipknot_controller.policies import (
    MAX_STATE_BYTES,
    Load,
    PolicyCall,
    PolicyOutcome,
    Situation,
    application_policy_answer,
    application_policy_call,
    deployment_policy_answer,
    deployment_policy_call,
)
from slipknot_core.autoscaling_spec import AutoscalingSpec, PolicySpec
from slipknot_core.ids import DeploymentId
from slipknot_core.spec import ApplicationSpec, CodeSource, DeploymentSpec, ImportSource
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


def situation_of(spec: DeploymentSpec) -> Situation:
    return Situation(DeploymentId("app", spec.name), spec, Load(0, 0))


def command(call: PolicyCall) -> registry_pb2.EvaluatePolicy:
    """As the node gets it."""
    return registry_pb2.EvaluatePolicy(
        policy_function=call.policy_function,
        kwargs_json=call.kwargs_json,
        context_json=call.context_json,
        for_application=call.for_application,
    )


@pytest.mark.parametrize(
    ("number", "load", "expected"), [(2, 0, 2), (9, 0, 4), (-1, 0, 0), (0, 3, 1), (1.2, 0, 2), (0, 0, 0)]
)
def test_the_number_is_clipped(number: float, load: int, expected: int) -> None:
    """To the bounds, and to one while there are requests."""
    assert deployment_policy_answer(SCALING, outcome(number, {"x": 1}), load) == (expected, {"x": 1})


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
        deployment_policy_answer(SCALING, bad, 1)


def test_what_a_policy_is_told() -> None:
    """Everything that the built-in formula knows."""
    code = CodeSource(import_source=ImportSource("module:app", working_dir="/code"), python_path=("/lib",))
    spec = DeploymentSpec("Model", code, num_replicas=2, autoscaling=SCALING)
    situation = Situation(
        DeploymentId("app", "Model"),
        spec,
        Load(ongoing=3, queued=4),
        running=["a"],
        history=History((Sample(90.0, 5), Sample(98.0, 7))),
        state={"seen": True},
    )
    call = deployment_policy_call(situation, now_s=100.0)
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
    deployment = DeploymentSpec("Model", CodeSource(), autoscaling=SCALING)
    result = evaluate(command(deployment_policy_call(situation_of(deployment), 0.0)))
    assert "TypeError" in result.error and not result.result_json


def application_call(function: str = "broken") -> PolicyCall:
    deployments = tuple(DeploymentSpec(name, CodeSource(), autoscaling=SCALING) for name in ("One", "Two"))
    policy = PolicySpec(f"tests.behaviour.scaling_policies:{function}", {"each": 2})
    application = ApplicationSpec("app", "One", deployments, autoscaling_policy=policy)
    return application_policy_call(application, [situation_of(d) for d in deployments], 0.0)


def answered(
    call: PolicyCall, answer: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> PolicyOutcome:
    from tests.behaviour import scaling_policies

    monkeypatch.setattr(scaling_policies, "broken", answer)
    result = evaluate(command(call))
    return PolicyOutcome(result.result_json, result.error)


def test_an_application_s_policy_is_told_of_all_and_decides_on_some(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their ids or names; a state by id is each deployment's own."""
    one, two = DeploymentID("One", "app"), DeploymentID(name="Two", app_name="app")

    def policy(contexts: dict[DeploymentID, AutoscalingContext], *, each: int) -> object:
        assert list(contexts) == [one, two] and contexts[two].deployment_id == two
        config = contexts[one].config
        assert config is not None and config.max_replicas == contexts[one].capacity_adjusted_max_replicas == 4
        return {one: each, "Two": 1.5}, {one: {"seen": 1}}

    outcome = answered(application_call(), policy, monkeypatch)
    assert application_policy_answer(outcome) == ({"One": 2.0, "Two": 1.5}, {"One": {"seen": 1}})
    outcome = answered(application_call(), lambda contexts, each: ({one: 1}, {"all": 2}), monkeypatch)
    assert application_policy_answer(outcome) == ({"One": 1.0}, {"One": {"all": 2}, "Two": {"all": 2}})
    outcome = answered(application_call(), lambda contexts, each: {}, monkeypatch)
    assert application_policy_answer(outcome) == ({}, {"One": {}, "Two": {}})


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (3, "returns a dict of numbers"),
        ({"One": "many"}, "returns a dict of numbers"),
        (({"One": 1}, []), "state that a policy returns is a dict"),
        (({"One": 1}, {DeploymentID("One", "app"): 1}), "state of each deployment is a dict"),
        ({"Three": 1}, "the deployments that are scaled are One, Two"),
        ({7: 1}, "the deployments that are scaled are One, Two"),
    ],
)
def test_other_answers_of_an_application_s_policy_are_named(
    answer: object, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is scaled by them."""
    outcome = answered(application_call(), lambda contexts, each: answer, monkeypatch)
    with pytest.raises(ValueError, match=words):
        application_policy_answer(outcome)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"numbers": 1, "states": {}}', '{"numbers": {}, "states": {"a": 1}}']
)
def test_what_no_node_of_ours_answers_is_refused(text: str) -> None:
    """As from a node of another version."""
    with pytest.raises(ValueError, match="not understood"):
        application_policy_answer(PolicyOutcome(text))
