"""Autoscaling in config files: options go before those in the code, and change in place."""

from typing import Any

import httpx

from tests.support.cluster_status import application, running_replicas, wait_until

from .conftest import RunningCluster
from .test_deploy_config import Apply, apply, says

__all__ = ["apply"]  # the fixture


def test_autoscaling_and_user_config_change_in_place(cluster: RunningCluster, apply: Apply) -> None:
    """Neither replaces a replica; new bounds move the number into them."""
    scaling: dict[str, Any] = {"num_replicas": "auto", "autoscaling_config": {"initial_replicas": 2}}
    apply(says(**scaling, user_config={"a": 1}, rolling_update_percentage=0.5, max_surge_percent=0.5))
    before = running_replicas()
    assert application().deployments[0].target_num_replicas == len(before) == 2
    apply(says(**scaling, user_config={"a": 2}))
    assert running_replicas() == before
    assert httpx.get(cluster.url).json()[1] == {"a": 2}
    apply(says(num_replicas="auto", autoscaling_config={"max_replicas": 1}, user_config={"a": 2}))
    wait_until(lambda: len(running_replicas()) == 1)
    assert running_replicas().items() <= before.items()
    assert application().deployments[0].target_num_replicas == 1
