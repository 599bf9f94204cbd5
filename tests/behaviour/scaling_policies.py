"""Autoscaling policies, imported on the node by their path."""

from typing import Any

from slipknot.serve.config import AutoscalingContext, DeploymentID


def one_more(context: AutoscalingContext, *, up_to: int) -> tuple[int, dict[str, Any]]:
    """One more each time it is asked, by the state that it keeps."""
    assert (context.app_name, context.deployment_name) == ("default", "Says")
    assert (context.min_replicas, context.max_replicas) == (1, 3)
    assert context.total_num_requests == context.total_ongoing_requests + context.total_queued_requests
    asked = context.policy_state.get("asked", 0) + 1
    return min(up_to, 1 + 2 * asked), {"asked": asked}


def broken(_context: AutoscalingContext) -> int:
    """Raises."""
    return 1 // 0


def two_in_front_of_each(
    contexts: dict[DeploymentID, AutoscalingContext], *, behind: int
) -> tuple[dict[DeploymentID, int], dict[DeploymentID, Any]]:
    """As many of one as it is told, once it has been asked before, and one more of the other."""
    by_name = {deployment.name: deployment for deployment in contexts}
    assert sorted(by_name) == ["Front", "Says"]
    back = contexts[by_name["Says"]]
    assert back.config is not None and back.config.max_replicas == back.capacity_adjusted_max_replicas == 4
    asked = back.policy_state.get("asked", 0)
    number = behind if asked else 1
    return {by_name["Says"]: number, by_name["Front"]: number + 1}, {by_name["Says"]: {"asked": asked + 1}}


def of_a_stranger(contexts: dict[DeploymentID, AutoscalingContext]) -> dict[DeploymentID, int]:
    """Decides on what is not there."""
    return {DeploymentID("Nobody"): len(contexts)}
