"""Routing state as it comes from the controller."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipknot_core.ids import DeploymentId
from slipknot_core.routing.snapshot import EMPTY, ApplicationRoute, DeploymentRoute, ReplicaRoute, Snapshot
from slipknot_proto.v1 import discovery_pb2

UINT64 = st.integers(0, 2**64 - 1)
SNAPSHOTS = st.builds(Snapshot, UINT64, UINT64)


def _message(
    *deployments: discovery_pb2.DeploymentRoute, route_prefix: str = "/shop"
) -> discovery_pb2.Snapshot:
    application = discovery_pb2.ApplicationRoute(
        name="shop", route_prefix=route_prefix, ingress_deployment="Front", deployments=deployments
    )
    return discovery_pb2.Snapshot(epoch=3, version=7, applications=[application])


@given(SNAPSHOTS, SNAPSHOTS, SNAPSHOTS)
def test_newer_is_a_strict_order(a: Snapshot, b: Snapshot, c: Snapshot) -> None:
    """Of two different snapshots exactly one is newer, and whoever follows the newer ones never goes back."""
    assert not a.is_newer_than(a)
    if (a.epoch, a.version) != (b.epoch, b.version):
        assert a.is_newer_than(b) != b.is_newer_than(a)
    if a.is_newer_than(b) and b.is_newer_than(c):
        assert a.is_newer_than(c)


@given(st.integers(1, 2**32), UINT64, UINT64)
def test_a_new_term_wins_over_any_version(epoch: int, version: int, other_version: int) -> None:
    """What a deposed controller still says is ignored, and anything is newer than nothing."""
    assert Snapshot(epoch + 1, version).is_newer_than(Snapshot(epoch, other_version))
    assert Snapshot(epoch, version).is_newer_than(EMPTY)


def test_a_snapshot_is_read_with_all_its_parts() -> None:
    """Applications, deployments and replicas arrive as the controller wrote them."""
    replica = discovery_pb2.ReplicaRoute(
        replica_id="shop#Model#1", address="unix:/r1", node_id="n1", max_ongoing_requests=4
    )
    model = discovery_pb2.DeploymentRoute(
        name="Model",
        max_ongoing_requests=4,
        max_queued_requests=10,
        backpressure_status_code=429,
        backpressure_retry_after_s=2,
        replicas=[replica],
    )
    front = discovery_pb2.DeploymentRoute(
        name="Front",
        max_ongoing_requests=5,
        max_queued_requests=-1,
        backpressure_retry_after_s=-1,
        unavailable=True,
    )
    model_id, front_id = DeploymentId("shop", "Model"), DeploymentId("shop", "Front")
    expected_model = DeploymentRoute(
        model_id, 4, 10, 429, 2, (ReplicaRoute("shop#Model#1", "unix:/r1", "n1", 4),)
    )
    expected_front = DeploymentRoute(front_id, 5, -1, 503, None, (), unavailable=True)
    snapshot = Snapshot.from_proto(_message(model, front))
    assert snapshot == Snapshot(
        3,
        7,
        {
            "shop": ApplicationRoute(
                "shop", "/shop", "Front", {"Model": expected_model, "Front": expected_front}
            )
        },
    )
    assert snapshot.deployment(model_id) == expected_model


@pytest.mark.parametrize("deployment_id", [DeploymentId("shop", "Nobody"), DeploymentId("nowhere", "Model")])
def test_what_is_not_there_is_not_found(deployment_id: DeploymentId) -> None:
    """Asking for an unknown application or deployment is answered, not raised."""
    snapshot = Snapshot.from_proto(_message(discovery_pb2.DeploymentRoute(name="Model")))
    assert snapshot.deployment(deployment_id) is None
    assert EMPTY.deployment(deployment_id) is None


def test_an_application_without_a_prefix_is_not_reachable_over_http() -> None:
    """The wire has an empty text for that, we have None."""
    snapshot = Snapshot.from_proto(_message(route_prefix=""))
    assert snapshot.applications["shop"].route_prefix is None
