"""Autoscaling in config files: options go before those in the code, and change in place."""

from typing import Any

import httpx
import pytest

from slipknot.serve.exceptions import SlipknotServeException
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


def pair(policy: str, /, **kwargs: Any) -> dict[str, Any]:
    """Two deployments that an application's policy scales; their own ones do not count."""
    own = {"policy_function": "tests.behaviour.scaling_policies:broken"}
    scaling = {"min_replicas": 1, "max_replicas": 4, "policy": own}
    policy = f"tests.behaviour.scaling_policies:{policy}"
    return {
        "import_path": "tests.behaviour.config_apps:pair",
        "autoscaling_policy": {"policy_function": policy, "policy_kwargs": kwargs},
        "deployments": [{"name": name, "autoscaling_config": scaling} for name in ("Front", "Says")],
    }


def targets() -> dict[str, int]:
    return {d.name: d.target_num_replicas for d in application().deployments}


def test_a_policy_of_the_application_scales_all_its_deployments(
    cluster: RunningCluster, apply: Apply
) -> None:
    """It is asked once for all of them, keeps a state for each, and can be changed and removed in place."""
    apply(pair("two_in_front_of_each", behind=2))
    before = running_replicas()
    wait_until(lambda: targets() == {"Front": 3, "Says": 2} and len(running_replicas()) == 5)
    assert {d.message for d in application().deployments} == {""}
    apply(pair("two_in_front_of_each", behind=9))
    wait_until(lambda: targets() == {"Front": 4, "Says": 4})  # the most that is allowed
    assert before.items() <= running_replicas().items()
    without = pair("two_in_front_of_each") | {"autoscaling_policy": None}
    apply(without)
    wait_until(lambda: "ZeroDivisionError" in application().deployments[0].message)  # now they decide


def test_a_policy_of_the_application_that_fails_changes_nothing(
    cluster: RunningCluster, apply: Apply
) -> None:
    """And the status of each deployment says why."""
    apply(pair("of_a_stranger"))
    words = "the deployments that are scaled are Front, Says"
    wait_until(lambda: all(words in d.message for d in application().deployments))
    assert targets() == {"Front": 1, "Says": 1}
    assert {d.status for d in application().deployments} == {"HEALTHY"}


@pytest.mark.parametrize(
    ("policy", "path"),
    [
        ({"policy_kwargs": {}}, "autoscaling_policy.policy_function"),
        ({"policy_function": 3}, "autoscaling_policy.policy_function"),
        ({"policy_function": "m:f", "policy_kwargs": [1]}, "autoscaling_policy.policy_kwargs"),
        ("m:f", "autoscaling_policy"),
    ],
)
def test_a_policy_that_is_none_is_refused(apply: Apply, policy: Any, path: str) -> None:
    """With the path of the key."""
    with pytest.raises(SlipknotServeException, match=rf"applications\[0\]\.{path}"):
        apply(says() | {"autoscaling_policy": policy})
