"""Autoscaling policies, imported on the node by their path."""

from typing import Any

from slipknot.serve.config import AutoscalingContext


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
