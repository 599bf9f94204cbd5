"""A cluster over TCP: controller, two nodes and a proxy as they run on several machines, with a token."""

import asyncio
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from slipknot import serve
from slipknot_core.rpc.channel import new_channel, token_metadata
from slipknot_proto.v1 import registry_pb2, registry_pb2_grpc
from tests.support.cluster_status import application, cluster_status, wait_until
from tests.support.processes import descendants, wait_until_gone
from tests.support.tcp_cluster import NODE, PROXY, TcpCluster

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]


@serve.deployment
class Inner:
    def __call__(self, text: str) -> str:
        return f"{text} through {serve.get_replica_context().replica_id}"


@serve.deployment
class Outer:
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def __call__(self) -> str:
        return await self._inner.remote("from one node to the other")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TcpCluster]:
    with TcpCluster(tmp_path_factory.mktemp("tcp"), nodes=2) as running:
        serve.run(Outer.bind(Inner.bind()))
        yield running


def replica_of(deployment: str) -> Any:
    return next(d for d in application().deployments if d.name == deployment).replicas[0]


def test_a_request_goes_through_replicas_of_two_nodes(cluster: TcpCluster) -> None:
    outer, inner = replica_of("Outer"), replica_of("Inner")
    assert {outer.node_id, inner.node_id} == {"node-0", "node-1"}
    assert {r.address.rpartition(":")[0] for r in (outer, inner)} == {"localhost", "127.0.0.2"}
    expected = f"from one node to the other through {inner.replica_id}"
    assert httpx.get(cluster.url).text == expected
    # And from this process, which is on no node.
    assert serve.get_app_handle("default").remote().result() == expected


def test_a_new_controller_at_the_old_address_finds_everybody_again(cluster: TcpCluster) -> None:
    before = (replica_of("Outer").replica_id, replica_of("Inner").replica_id)
    cluster.controller.kill()
    assert httpx.get(cluster.url).status_code == 200
    cluster.controller.start()
    wait_until(lambda: cluster_status().epoch > 1 and len(cluster_status().nodes) == 2)
    wait_until(lambda: application() is not None and application().status == "RUNNING")
    assert (replica_of("Outer").replica_id, replica_of("Inner").replica_id) == before
    assert httpx.get(cluster.url).status_code == 200


async def test_a_replica_that_was_given_up_does_not_come_back(cluster: TcpCluster) -> None:
    """Its registration is played again, by somebody who has all credentials."""
    old = await asyncio.to_thread(replica_of, "Inner")
    os.kill(old.pid, signal.SIGKILL)
    await asyncio.to_thread(
        wait_until,
        lambda: application().status == "RUNNING" and replica_of("Inner").replica_id != old.replica_id,
    )
    before = await asyncio.to_thread(replica_of, "Inner")
    hello = registry_pb2.ReplicaHello(
        replica_id=old.replica_id,
        app_name="default",
        deployment_name="Inner",
        address=old.address,
        node_id=old.node_id,
        state=registry_pb2.ReplicaState(state=registry_pb2.ReplicaState.STATE_RUNNING),
    )
    async with new_channel(cluster.address, cluster.credentials) as channel:
        stub = registry_pb2_grpc.RegistryServiceStub(channel)
        call = stub.JoinReplica(metadata=token_metadata(cluster.credentials))
        await call.write(registry_pb2.JoinReplicaRequest(hello=hello))
        welcome = (await call.read()).welcome
        assert (welcome.accepted, "given up" in welcome.message) == (False, True)
        call.cancel()
    after = [r.replica_id for d in application().deployments if d.name == "Inner" for r in d.replicas]
    assert after == [before.replica_id]


def test_two_agents_with_one_name_do_not_take_turns(cluster: TcpCluster) -> None:
    """The newer one holds it; the older one says so, and is not let in again."""
    config = cluster.node_config(6) | {"node_id": "twin"}
    first, second = (cluster.role(NODE, f"twin-{i}", config) for i in range(2))
    try:
        first.start()
        second.start()
        wait_until(lambda: "another agent has joined" in first.log.read_text())
        (twin,) = (n for n in cluster_status().nodes if n.node_id == "twin")
        assert psutil.Process(twin.pid).ppid() == second.pid  # the agent of the process we started
    finally:
        first.end()
        second.end()
    wait_until(lambda: len(cluster_status().nodes) == 2)


def test_the_token_is_in_no_log(cluster: TcpCluster) -> None:
    assert cluster.credentials.token not in cluster.logs()


@pytest.mark.parametrize("module", [NODE, PROXY])
def test_a_role_with_a_wrong_token_stays_outside(cluster: TcpCluster, module: str) -> None:
    """It says why, and nothing of it shows in the status."""
    config = cluster.node_config(7) if module == NODE else cluster.proxy_config(7)
    stranger = cluster.role(module, f"stranger-{module}", config | {"token": "the-token-of-another-cluster"})
    stranger.start(wait=False)
    try:
        wait_until(lambda: "SLIPKNOT_CLUSTER_TOKEN" in stranger.log.read_text())
        assert {node.node_id for node in cluster_status().nodes} == {"node-0", "node-1"}
        assert [proxy.proxy_id for proxy in cluster_status().proxies] == ["proxy-0"]
    finally:
        stranger.kill()


def test_what_a_killed_node_left_behind_is_removed_by_the_next(tmp_path: Path) -> None:
    """The directory with the sockets on which its replicas show their metrics."""
    with (
        tempfile.TemporaryDirectory(prefix="slipknot-test-") as base,
        TcpCluster(
            tmp_path,
            nodes=1,
            proxies=0,
            node_options={"admin_address": "127.0.0.1:0"},
            environment={"SLIPKNOT_RUNTIME_DIR": f"{base}/run", "TMPDIR": base},
        ) as cluster,
    ):
        (node,) = cluster.nodes
        killed = list(Path(base).glob("run/*"))
        children = descendants(node.pid)
        node.kill()
        wait_until_gone(children)
        node.start()
        assert len(killed) == len(list(Path(base).glob("run/*"))) == 1
        assert not killed[0].exists()
        cluster.stop()
        assert not list(Path(base).glob("*slipknot*")) + list(Path(base).glob("run/*"))
