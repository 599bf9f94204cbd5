"""The tables of `slipknot status`."""

import io

import yaml
from rich.console import Console

from slipknot.cli.status import rendered, status_yaml
from slipknot.cli.status_tables import last_line, status_tables
from slipknot_proto.v1 import controller_pb2

STATUS = controller_pb2.ClusterStatus(
    epoch=3,
    snapshot_version=7,
    applications=[
        controller_pb2.ApplicationStatus(
            name="chat",
            status="DEPLOYING",
            route_prefix="/chat",
            message="Traceback\n  File\nValueError: no luck\n",
            deployments=[
                controller_pb2.DeploymentStatus(
                    name="Model",
                    status="UPDATING",
                    status_trigger="CONFIG_UPDATE_STARTED",
                    message="no node has 2 GPU free",
                    target_num_replicas=3,
                    replica_states={"RUNNING": 2, "STARTING": 1},
                    replicas=[
                        controller_pb2.ReplicaStatus(
                            replica_id="b", state="RUNNING", node_id="n2", ongoing=2
                        ),
                        controller_pb2.ReplicaStatus(replica_id="a", state="RUNNING", node_id="n1", pid=9),
                    ],
                )
            ],
        ),
        controller_pb2.ApplicationStatus(name="other", status="RUNNING"),
    ],
    proxies=[controller_pb2.ProxyStatus(proxy_id="p1", status="HEALTHY", gateway_is_open=True)],
    nodes=[controller_pb2.NodeStatus(node_id="n1", hostname="host", admin_address="127.0.0.1:9102")],
)


def test_everything_has_its_place() -> None:
    """Replicas stand by node; what has no column of its own stands in MORE."""
    tables = {table.title: table for table in status_tables(STATUS)}
    assert list(tables) == ["Cluster", "Applications", "Deployments", "Replicas by node", "Proxies", "Nodes"]
    assert tables["Cluster"].rows == [("3.7", "2 applications, 1 proxies, 1 nodes")]
    assert tables["Applications"].rows[0] == ("chat", "DEPLOYING", "/chat", "ValueError: no luck")
    (deployment,) = tables["Deployments"].rows
    assert deployment == ("chat/Model", "UPDATING", "2/3, 1 starting", "2", "no node has 2 GPU free")
    assert [row[:2] for row in tables["Replicas by node"].rows] == [("n1", "a"), ("n2", "b")]
    assert tables["Proxies"].rows[0][-1] == "gateway_is_open=True"
    assert "127.0.0.1:9102" in tables["Nodes"].rows[0]


def test_one_application() -> None:
    tables = status_tables(STATUS, "other")
    assert [table.title for table in tables] == ["Applications"]
    assert tables[0].columns == ("APPLICATION", "STATUS")


def test_drawn_and_as_yaml() -> None:
    """On a terminal, and for programs."""
    out = io.StringIO()
    Console(file=out, width=200).print(rendered(STATUS, None))
    assert "Replicas by node" in out.getvalue() and "no node has 2 GPU free" in out.getvalue()
    assert yaml.safe_load(status_yaml(STATUS, None))["applications"]["chat"]["status"] == "DEPLOYING"
    assert yaml.safe_load(status_yaml(STATUS, "other"))["status"] == "RUNNING"


def test_the_line_that_says_it() -> None:
    assert last_line("") == ""
    assert last_line("one\n\n  two  \n") == "two"
    assert len(last_line("x" * 1000)) == 200
