"""The form without a single point of failure, under load: whatever part is lost, clients notice nothing they
need not notice. The figures are shown at the end of the run.
"""

import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.compose import (
    Compose,
    docker,
    drop_packets,
    health_of,
    hostname_of,
    network_of,
    wait_until,
)
from tests.support.mixed_load import MixedLoad

REPLICAS = 6
"""Of the demo: two of each deployment."""
AFTER_S = 2.0
"""How long the load goes on after all is well again."""


class Drill:
    """One fault under load, and what the clients saw of it."""

    def __init__(self, full: Compose, load: MixedLoad, figures: list[str]) -> None:
        self.full = full
        self.load = load
        self._figures = figures

    def __call__(self, name: str, hurt: Callable[[], object], is_well: Callable[[], object]) -> None:
        """Hurt the cluster and wait until it is well; the seconds that took are shown with the figures."""
        self.load.mark()
        self.load.wait_for_more(10)
        began_s = time.monotonic()
        hurt()
        wait_until(is_well, f"the cluster is well again after: {name}")
        well_s = time.monotonic() - began_s
        self.load.wait_for_more(10)
        time.sleep(AFTER_S)
        failures = self.load.failures()
        counts = ", ".join(
            f"{kind} {len(self.load.outcomes(kind))}/{len(self.load.failures(kind))}"
            for kind in ("short", "stream", "socket")
        )
        wait_ms, gap_ms = self.load.longest_wait_s() * 1000, self.load.longest_gap_s() * 1000
        self._figures.append(
            f"{name}: well after {well_s:.1f} s; sent/failed: {counts}; "
            f"longest wait {wait_ms:.0f} ms, longest gap {gap_ms:.0f} ms"
        )
        self._figures.extend(f"    {outcome.kind}: {outcome.failure[:200]}" for outcome in failures[:6])

    def is_full(self, *, without: str = "") -> bool:
        """All replicas run, none of them on the node `without`."""
        replicas = self.full.replicas()
        return len(replicas) == REPLICAS and without not in replicas.values()


@pytest.fixture(scope="module")
def load(full: Compose) -> Iterator[MixedLoad]:
    wait_until(lambda: len(full.replicas()) == REPLICAS, "the demo runs")
    wait_until(lambda: len(nodes_of(full)) == 3, "all nodes have joined")
    with MixedLoad(full.urls) as load:
        yield load


@pytest.fixture
def drill(full: Compose, load: MixedLoad, figures: list[str]) -> Drill:
    result = Drill(full, load, figures)
    wait_until(result.is_full, "the demo runs with all replicas")
    return result


def nodes_of(full: Compose) -> set[str]:
    status = full.status()
    return set() if status is None else {node.node_id for node in status.nodes}


def leader(full: Compose) -> str:
    """The container of the controller that leads."""
    words = full("exec", "-T", "proxy-1", "slipknot", "controller-health")
    name = next(line.split(":")[0] for line in words.splitlines() if "leader (epoch" in line)
    return full.one(name)


def busiest_node(full: Compose) -> tuple[str, str]:
    """Container and node id of the node with the most replicas."""
    of_node = {hostname_of(container): container for container in full.containers("node")}
    placed = list(full.replicas().values())
    node_id = max(of_node, key=placed.count)
    return of_node[node_id], node_id


def test_a_node_is_killed(drill: Drill) -> None:
    container, node_id = busiest_node(drill.full)
    drill("node killed", lambda: docker("kill", container), lambda: drill.is_full(without=node_id))
    docker("start", container)
    wait_until(lambda: node_id in nodes_of(drill.full), "the node is back")


def test_a_node_is_cut_off_and_comes_back_with_its_replicas(drill: Drill) -> None:
    container, node_id = busiest_node(drill.full)
    network = network_of(container)
    drill(
        "node cut off",
        lambda: docker("network", "disconnect", network, container),
        lambda: drill.is_full(without=node_id),
    )
    drill(
        "node connected again",
        lambda: docker("network", "connect", network, container),
        lambda: node_id in nodes_of(drill.full) and drill.is_full(),
    )
    assert not drill.load.failures()


def test_a_node_falls_silent(drill: Drill) -> None:
    container, node_id = busiest_node(drill.full)
    drill("node silent", lambda: drop_packets(container), lambda: drill.is_full(without=node_id))
    drill(
        "node speaks again",
        lambda: drop_packets(container, is_on=False),
        lambda: node_id in nodes_of(drill.full) and drill.is_full(),
    )
    assert not drill.load.failures()


def test_a_replica_is_frozen(drill: Drill) -> None:
    """Its node is well and ends it; others take its place. What it had accepted is lost."""
    container, node_id = busiest_node(drill.full)
    frozen = next(replica for replica, node in drill.full.replicas().items() if node == node_id)
    pid = drill.full.pids()[frozen]
    drill(
        "replica frozen",
        lambda: docker("exec", container, "sh", "-c", f"kill -STOP {pid}"),
        lambda: drill.is_full() and frozen not in drill.full.replicas(),
    )


def test_a_node_agent_is_frozen(drill: Drill) -> None:
    """Its replicas are well, and go on; nobody notices, then or when it wakes up."""
    container, node_id = busiest_node(drill.full)
    status = drill.full.status()
    pid = next(node.pid for node in status.nodes if node.node_id == node_id)
    drill(
        "node agent frozen",
        lambda: docker("exec", container, "sh", "-c", f"kill -STOP {pid}"),
        lambda: node_id not in nodes_of(drill.full) and drill.is_full(),
    )
    drill(
        "node agent wakes up",
        lambda: docker("exec", container, "sh", "-c", f"kill -CONT {pid}"),
        lambda: node_id in nodes_of(drill.full) and drill.is_full(),
    )
    assert not drill.load.failures()


def test_a_proxy_is_killed(drill: Drill) -> None:
    container = drill.full.one("proxy-2")
    drill("proxy killed", lambda: docker("kill", container), lambda: True)
    docker("start", container)


def test_the_leading_controller_is_killed(drill: Drill) -> None:
    old = leader(drill.full)
    epoch = drill.full.status().epoch

    def has_successor() -> bool:
        status = drill.full.status()
        return status is not None and status.epoch > epoch and drill.is_full()

    drill("leading controller killed", lambda: docker("kill", old), has_successor)
    assert not drill.load.failures()
    docker("start", old)


def test_the_leading_controller_is_frozen(drill: Drill) -> None:
    old = leader(drill.full)
    epoch = drill.full.status().epoch

    def has_successor() -> bool:
        status = drill.full.status()
        return status is not None and status.epoch > epoch and drill.is_full()

    drill("leading controller frozen", lambda: docker("pause", old), has_successor)
    drill("leading controller wakes up", lambda: docker("unpause", old), drill.is_full)
    assert not drill.load.failures()


def test_members_of_the_store_are_killed(drill: Drill) -> None:
    for service in ("etcd-1", "etcd-2", "etcd-3"):
        container = drill.full.one(service)
        drill(f"{service} killed", lambda c=container: docker("kill", c), drill.is_full)  # type: ignore[misc]
        docker("start", container)
        wait_until(lambda s=service: drill.full.containers(s), f"{service} runs")  # type: ignore[misc]
        drill.full("exec", "-T", service, "sh", "-c", "until etcdctl endpoint health; do sleep 0.2; done")
    assert not drill.load.failures()


def test_every_role_may_be_told_to_end(drill: Drill) -> None:
    """Replaced one after the other, as in an upgrade: no client sees anything."""
    full = drill.full
    for service in ("controller-1", "controller-2", "proxy-1"):
        container = full.one(service)
        drill(f"{service} told to end", lambda c=container: docker("stop", "--time", "40", c), drill.is_full)  # type: ignore[misc]
        assert not drill.load.failures()
        docker("start", container)
        wait_until(lambda c=container: health_of(c) == "healthy", f"{service} is healthy")  # type: ignore[misc]
    for container in full.containers("node"):
        drill("node told to end", lambda c=container: docker("stop", "--time", "40", c), drill.is_full)  # type: ignore[misc]
        assert not drill.load.failures()
        docker("start", container)
        wait_until(lambda c=container: hostname_of(c) in nodes_of(full), "the node is back")  # type: ignore[misc]
