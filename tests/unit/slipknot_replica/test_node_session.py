"""What a node knows of its replicas."""

import pytest

from slipknot_core.spec import CodeSource, DeploymentSpec, ReplicaLaunch
from slipknot_replica.node_session import AFTER_DRAIN_S, held_by, stop_grace_s


@pytest.mark.parametrize("timeout_s", [0.0, 20.0, 300.0])
def test_a_replica_of_a_node_that_ends_has_the_time_of_its_deployment(timeout_s: float) -> None:
    """And what it takes to clean up after its drain; it was killed after 28 s, whatever it was promised."""
    spec = DeploymentSpec("Model", CodeSource(pickle=b"x"), graceful_shutdown_timeout_s=timeout_s)
    held = held_by(ReplicaLaunch("Model#1", "default", spec, "controller:7000", "node-1"))
    assert stop_grace_s(held) == timeout_s + AFTER_DRAIN_S
