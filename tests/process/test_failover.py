"""Two controllers and their etcd: what members and clients see when the leader dies, freezes, or is away."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from slipknot import _connection, serve
from slipknot_core.rpc.channel import LEADER_KEY, new_channel, token_metadata
from slipknot_core.spec import ApplicationSpec, CodeSource, DeploymentSpec, ImportSource
from slipknot_proto.v1 import controller_pb2, controller_pb2_grpc, registry_pb2, registry_pb2_grpc
from tests.support.cluster_status import cluster_status, running_replicas, wait_for_status, wait_until
from tests.support.etcd import EtcdCluster, new_prefix, start_etcd
from tests.support.journal import Gate, Journal
from tests.support.load import Load
from tests.support.tcp_cluster import TcpCluster

pytestmark = pytest.mark.timeout(120)

WAIT_S = 40.0


@serve.deployment(num_replicas=2)
class Says:
    async def __call__(self) -> str:
        return serve.get_replica_context().replica_id


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdCluster]:
    with start_etcd(1) as running:
        yield running


@pytest.fixture(scope="module")
def cluster(etcd: EtcdCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TcpCluster]:
    store = {"kind": "etcd", "endpoints": etcd.endpoints, "prefix": new_prefix()}
    directory = tmp_path_factory.mktemp("failover")
    with TcpCluster(
        directory,
        controllers=2,
        nodes=1,
        controller_options={"store": store},
        node_options={"num_cpus": 16},  # room for all replicas, however small this machine is
    ) as running:
        serve.run(Says.bind())
        yield running


@pytest.fixture
def load(cluster: TcpCluster) -> Iterator[Load]:
    with Load(cluster.url, clients=2) as clients:
        yield clients


def ask(address: str, name: str, request: Any) -> Any:
    """Call one controller, whether it leads or not."""
    connection = _connection.current()

    async def call() -> Any:
        channel = new_channel(address, connection.dispatcher.credentials)
        try:
            return await getattr(controller_pb2_grpc.ControllerServiceStub(channel), name)(request, timeout=5)
        finally:
            await channel.close(None)

    return connection.run(call())


def leads(address: str) -> bool:
    try:
        return bool(ask(address, "GetLeader", controller_pb2.GetLeaderRequest()).is_leader)
    except grpc.RpcError:
        return False


def leader_and_standby(cluster: TcpCluster) -> tuple[int, int]:
    """Numbers of both controllers, once one leads and both answer."""

    def found() -> tuple[int, int] | None:
        states = [leads(address) for address in cluster.addresses]
        return (states.index(True), states.index(False)) if sorted(states) == [False, True] else None

    return wait_until(found, WAIT_S)


def has_taken_over(cluster: TcpCluster, number: int, replicas: dict[str, int]) -> bool:
    """This controller leads and knows all replicas as they were."""
    return leads(cluster.addresses[number]) and running_replicas() == replicas


def new_leader_after(cluster: TcpCluster, number: int, fault_s: float) -> float:
    wait_until(lambda: leads(cluster.addresses[number]), WAIT_S)
    return time.monotonic() - fault_s


def test_a_killed_leader_is_replaced_and_nobody_is_restarted(cluster: TcpCluster, load: Load) -> None:
    """The standby leads soon, adopts all replicas, takes deploys; clients see nothing of it."""
    replicas, epoch = running_replicas(), cluster_status().epoch
    leader, standby = leader_and_standby(cluster)
    killed_s = time.monotonic()
    cluster.controllers[leader].kill()
    print(f"killed: new leader after {new_leader_after(cluster, standby, killed_s):.2f} s")  # noqa: T201
    wait_until(lambda: has_taken_over(cluster, standby, replicas), WAIT_S)
    assert cluster_status().epoch > epoch
    assert cluster_status().leader_address == cluster.addresses[standby]
    load.wait_for_more(20)
    assert load.failures == []
    cluster.controllers[leader].start()
    leader_and_standby(cluster)
    serve.run(Says.options(num_replicas=1).bind())
    load.wait_for_more(20)
    assert load.failures == []
    serve.run(Says.bind())


def test_a_frozen_leader_changes_nothing_when_it_wakes_up(
    cluster: TcpCluster, load: Load, tmp_path: Path
) -> None:
    """While it is frozen the other one leads, and changes what runs; woken up, the old one is a standby that
    stops and starts nobody.
    """
    leader, standby = leader_and_standby(cluster)
    replicas = running_replicas()
    frozen_s = time.monotonic()
    cluster.controllers[leader].signal(signal.SIGSTOP)
    try:
        print(f"frozen: new leader after {new_leader_after(cluster, standby, frozen_s):.2f} s")  # noqa: T201
        wait_until(lambda: has_taken_over(cluster, standby, replicas), WAIT_S)
        print(f"frozen: all replicas adopted after {time.monotonic() - frozen_s:.2f} s")  # noqa: T201
        serve.run(Says.options(num_replicas=3).bind())
        replicas = running_replicas()
        assert len(replicas) == 3
        epoch = cluster_status().epoch
    finally:
        cluster.controllers[leader].signal(signal.SIGCONT)
    leader_and_standby(cluster)
    load.wait_for_more(20)
    assert cluster_status().epoch >= epoch
    wait_until(lambda: running_replicas() == replicas, WAIT_S)
    assert load.failures == []
    serve.run(Says.bind())


def test_a_standby_answers_reads_and_points_to_the_leader(cluster: TcpCluster) -> None:
    leader, standby = leader_and_standby(cluster)
    address = cluster.addresses[standby]
    status = ask(address, "GetStatus", controller_pb2.GetStatusRequest()).status
    assert [a.name for a in status.applications] == ["default"]
    assert (status.leader_address, status.answered_by) == (cluster.addresses[leader], address)
    assert ask(address, "GetConfig", controller_pb2.GetConfigRequest()).config_json == ""
    with pytest.raises(grpc.RpcError) as refusal:
        ask(address, "DeleteApplication", controller_pb2.DeleteApplicationRequest(name="default"))
    assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert dict(refusal.value.trailing_metadata())[LEADER_KEY] == cluster.addresses[leader]
    assert running_replicas()


def test_the_health_of_controllers(cluster: TcpCluster) -> None:
    """One line for each; the exit status tells whether all serve."""
    leader, standby = leader_and_standby(cluster)
    both = [cluster.addresses[leader], cluster.addresses[standby]]
    healthy = controller_health(cluster, ",".join(both))
    assert healthy.returncode == 0, healthy.stderr
    lines = sorted(line.partition(": ")[2] for line in healthy.stdout.splitlines())
    assert lines[0].startswith("leader (epoch ") and lines[1].startswith("standby, the leader is at ")
    assert controller_health(cluster, "127.0.0.1:1").returncode == 1


def controller_health(cluster: TcpCluster, address: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "slipknot", "controller-health", "--address", address],
        env={**os.environ, **cluster.credentials.environment()},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_deploy_under_way_is_finished_by_the_next_leader(cluster: TcpCluster, tmp_path: Path) -> None:
    """Whoever deploys waits on, and hears that it worked; the constructor ran once."""
    gate = Gate(tmp_path / "gate")
    with Journal(tmp_path) as journal:
        pen = journal.pen

        @serve.deployment
        class Slow:
            async def __init__(self) -> None:
                pen.note("constructing")
                await gate.passed()

            def __call__(self) -> str:
                return "ready"

        leader, standby = leader_and_standby(cluster)
        with ThreadPoolExecutor(1) as pool:
            deploy = pool.submit(serve.run, Slow.bind(), name="slow", route_prefix="/slow")
            journal.wait_for("constructing")
            cluster.controllers[leader].kill()
            wait_until(lambda: leads(cluster.addresses[standby]), WAIT_S)
            gate.open()
            assert deploy.result(WAIT_S).remote().result() == "ready"
        assert journal.notes == ["constructing"]
    serve.delete("slow")
    cluster.controllers[leader].start()


def test_a_deploy_that_is_asked_for_again_is_made_once(cluster: TcpCluster) -> None:
    """The same id gives the same generation, also from the next leader; another id is another deploy."""
    leader, standby = leader_and_standby(cluster)
    deployment = DeploymentSpec("None", CodeSource(import_source=ImportSource("nowhere:nothing")))
    spec = ApplicationSpec("again", "None", (deployment,), "/again").to_proto()
    first = controller_pb2.DeployApplicationRequest(application=spec, deploy_id="one")
    other = controller_pb2.DeployApplicationRequest(application=spec, deploy_id="two")
    address = cluster.addresses[leader]
    generation = ask(address, "DeployApplication", first).generation
    assert ask(address, "DeployApplication", first).generation == generation
    cluster.controllers[leader].terminate()
    wait_until(lambda: leads(cluster.addresses[standby]), WAIT_S)
    address = cluster.addresses[standby]
    assert ask(address, "DeployApplication", first).generation == generation
    assert ask(address, "DeployApplication", other).generation > generation
    serve.delete("again")
    cluster.controllers[leader].start()


def test_without_controllers_requests_go_on_and_new_ones_adopt_all(cluster: TcpCluster, load: Load) -> None:
    """All controllers are killed; when they are back nothing was restarted."""
    wait_for_status("RUNNING")
    replicas = running_replicas()
    for controller in cluster.controllers:
        controller.kill()
    load.wait_for_more(50)
    for controller in cluster.controllers:
        controller.start()
    wait_until(lambda: running_replicas() == replicas, WAIT_S)
    leader, _ = leader_and_standby(cluster)
    assert cluster_status().leader_address == cluster.addresses[leader]
    load.wait_for_more(20)
    assert load.failures == []


def test_without_etcd_requests_go_on(cluster: TcpCluster, etcd: EtcdCluster, load: Load) -> None:
    """Nobody leads while etcd does not answer; when it does, somebody does, and nothing was restarted."""
    replicas = running_replicas()
    etcd.freeze(0)
    try:
        wait_until(lambda: not any(map(leads, cluster.addresses)), WAIT_S)
        load.wait_for_more(50)
    finally:
        etcd.thaw(0)
    leader_and_standby(cluster)
    wait_until(lambda: running_replicas() == replicas, WAIT_S)
    load.wait_for_more(20)
    assert load.failures == []


def test_a_member_that_has_seen_a_larger_epoch_is_obeyed_again(cluster: TcpCluster) -> None:
    """A leader whose epoch is outrun, by members of a store that is no more, goes on with a larger one."""
    leader, _ = leader_and_standby(cluster)
    seen = cluster_status().epoch + 1000
    connection = _connection.current()

    async def join(epoch: int) -> registry_pb2.JoinNodeResponse:
        channel = new_channel(cluster.addresses[leader], cluster.credentials)
        call = registry_pb2_grpc.RegistryServiceStub(channel).JoinNode(
            metadata=token_metadata(cluster.credentials)
        )
        try:
            hello = registry_pb2.NodeHello(node_id="from-before", seen_epoch=epoch)
            await call.write(registry_pb2.JoinNodeRequest(hello=hello))
            return await asyncio.wait_for(call.read(), 10)
        finally:
            call.cancel()
            await channel.close(None)

    replicas = running_replicas()
    with pytest.raises(grpc.RpcError) as refusal:
        connection.run(join(2**64 - 1))
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    response = connection.run(join(seen))
    assert response.epoch == response.welcome.epoch > seen
    wait_until(lambda: connection.dispatcher.snapshot.epoch > seen, WAIT_S)
    assert running_replicas() == replicas
