"""The status of a cluster."""

import pytest

from slipknot.serve.schema import (
    ApplicationStatus,
    DeploymentStatus,
    DeploymentStatusTrigger,
    ProxyStatus,
    ReplicaState,
    ServeStatus,
    status_from_proto,
)
from slipknot_proto.v1 import controller_pb2


def test_nothing_runs() -> None:
    """An empty answer is an empty status."""
    assert status_from_proto(controller_pb2.ClusterStatus()) == ServeStatus()


def test_everything() -> None:
    """All that the controller tells."""
    message = controller_pb2.ClusterStatus(
        proxies=[controller_pb2.ProxyStatus(proxy_id="p1", status="HEALTHY")],
        applications=[
            controller_pb2.ApplicationStatus(
                name="chat",
                status="DEPLOY_FAILED",
                message="Traceback",
                deployed_time_s=12.5,
                route_prefix="/chat",
                docs_path="/docs",
                deployments=[
                    controller_pb2.DeploymentStatus(
                        name="Model",
                        status="DEPLOY_FAILED",
                        status_trigger="REPLICA_STARTUP_FAILED",
                        message="Traceback",
                        replica_states={"RUNNING": 2, "DRAINING": 1, "STOPPING": 1, "STARTING": 0},
                    )
                ],
            ),
            controller_pb2.ApplicationStatus(name="plain", status="RUNNING"),
        ],
    )
    status = status_from_proto(message)
    assert status.proxies == {"p1": ProxyStatus.HEALTHY}
    chat, plain = status.applications["chat"], status.applications["plain"]
    assert (chat.status, chat.message, chat.last_deployed_time_s) == ("DEPLOY_FAILED", "Traceback", 12.5)
    assert (chat.route_prefix, chat.docs_path) == ("/chat", "/docs")
    assert (plain.route_prefix, plain.docs_path, plain.deployments) == (None, None, {})
    model = chat.deployments["Model"]
    assert model.status is DeploymentStatus.DEPLOY_FAILED
    assert model.status_trigger is DeploymentStatusTrigger.REPLICA_STARTUP_FAILED
    assert model.replica_states == {ReplicaState.RUNNING: 2, ReplicaState.STOPPING: 2}
    dumped = status.model_dump(mode="json")
    assert dumped["applications"]["chat"]["deployments"]["Model"]["replica_states"] == {
        "RUNNING": 2,
        "STOPPING": 2,
    }


def test_words_of_a_newer_controller() -> None:
    """They do not break an older client."""
    message = controller_pb2.ClusterStatus(
        proxies=[controller_pb2.ProxyStatus(proxy_id="p1", status="NEW")],
        applications=[
            controller_pb2.ApplicationStatus(
                name="a",
                status="NEW",
                deployments=[controller_pb2.DeploymentStatus(name="M", status="NEW", status_trigger="NEW")],
            )
        ],
    )
    status = status_from_proto(message)
    assert status.applications["a"].status is ApplicationStatus.DEPLOYING
    assert status.applications["a"].deployments["M"].status_trigger == "UNSPECIFIED"


@pytest.mark.parametrize(
    ("enum", "names"),
    [
        (ApplicationStatus, "NOT_STARTED DEPLOYING RUNNING DEPLOY_FAILED UNHEALTHY DELETING"),
        (DeploymentStatus, "UPDATING HEALTHY UNHEALTHY DEPLOY_FAILED UPSCALING DOWNSCALING"),
        (ReplicaState, "PENDING STARTING UPDATING RECOVERING RUNNING STOPPING STOPPED PENDING_MIGRATION"),
        (ProxyStatus, "STARTING HEALTHY UNHEALTHY DRAINING DRAINED"),
    ],
)
def test_names(enum: type[ApplicationStatus], names: str) -> None:
    """Those that Ray Serve's users know; each is its own text."""
    assert [member.value for member in enum] == [str(member) for member in enum] == names.split()
