"""The form without a single point of failure, under load: whatever part is lost, clients notice nothing they
need not notice. The figures are shown at the end of the run.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import yaml

from tests.support.compose import (
    ROOT,
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
def load(full: Compose, stream_s: float, pytestconfig: pytest.Config) -> Iterator[MixedLoad]:
    wait_until(lambda: len(full.replicas()) == REPLICAS, "the demo runs")
    wait_until(lambda: len(nodes_of(full)) == 3, "all nodes have joined")
    streams = pytestconfig.getoption("streams", 2)
    with MixedLoad(full.urls, streams=streams, stream_s=stream_s) as load:
        yield load


@pytest.fixture
def drill(full: Compose, load: MixedLoad, figures: list[str]) -> Drill:
    result = Drill(full, load, figures)
    wait_until(result.is_full, "the demo runs with all replicas")
    return result


def nodes_of(full: Compose) -> set[str]:
    status = full.status()
    return set() if status is None else {node.node_id for node in status.nodes}


def agents_of(full: Compose) -> dict[str, int]:
    """Process ids of the node agents, as their containers count, by node id."""
    status = full.status()
    return {} if status is None else {node.node_id: node.pid for node in status.nodes}


def send(signal: str, container: str, pid: int) -> None:
    docker("exec", container, "sh", "-c", f"kill -{signal} {pid}")


def leads_store(full: Compose, service: str) -> bool:
    """This member of etcd leads, as far as it knows."""
    (member,) = json.loads(
        full("exec", "-T", service, "etcdctl", "endpoint", "status", "--write-out", "json")
    )
    return bool(member["Status"]["leader"] == member["Status"]["header"]["member_id"])


def deploy_changed(full: Compose) -> None:
    """Deploy the application with another environment, which is another version of all deployments."""
    config = yaml.safe_load((ROOT / full.environ.get("SLIPKNOT_DEMO", "examples/demo/demo.yaml")).read_text())
    for deployment in config["applications"][0]["deployments"]:
        deployment["ray_actor_options"] = {"num_cpus": 0.1, "runtime_env": {"env_vars": {"RELEASE": "2"}}}
    write = f"cat >/tmp/changed.yaml <<'END'\n{yaml.safe_dump(config)}END\n"
    deploy = "slipknot deploy /tmp/changed.yaml --app-dir /app/examples/demo"
    full("exec", "-T", "controller-1", "sh", "-c", write + deploy)


def leader(full: Compose) -> str:
    """The container of the controller that leads."""
    # It fails while another controller is away; here it is enough that one leads.
    words = full("exec", "-T", "proxy-1", "sh", "-c", "slipknot controller-health 2>&1 || true")
    name = next(line.split(":")[0] for line in words.splitlines() if "leader (epoch" in line)
    return full.one(name)


def busiest_node(full: Compose) -> tuple[str, str]:
    """Container and node id of the node whose replicas work on most requests."""
    of_node = {hostname_of(container): container for container in full.containers("node")}
    work = Counter({node_id: 0 for node_id in of_node})
    for replica in full.running():
        work[replica.node_id] += replica.ongoing
    node_id = max(of_node, key=work.__getitem__)
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


def test_a_node_is_frozen(drill: Drill) -> None:
    """With all that runs on it; woken up, what was replaced meanwhile ends."""
    container, node_id = busiest_node(drill.full)
    drill("node frozen", lambda: docker("pause", container), lambda: drill.is_full(without=node_id))
    drill(
        "node wakes up",
        lambda: docker("unpause", container),
        lambda: node_id in nodes_of(drill.full) and drill.is_full(),
    )


@pytest.mark.parametrize(("name", "how"), [("killed", "KILL"), ("frozen", "STOP")])
def test_a_replica_is_lost(drill: Drill, name: str, how: str) -> None:
    """Its node is well, and ends one that is frozen; others take its place. What it had accepted is lost."""
    lost = max(drill.full.running(), key=lambda replica: replica.ongoing)
    container = next(c for c in drill.full.containers("node") if hostname_of(c) == lost.node_id)
    drill(
        f"replica {name}",
        lambda: send(how, container, lost.pid),
        lambda: drill.is_full() and lost.replica_id not in drill.full.replicas(),
    )


def test_a_node_agent_is_killed(drill: Drill) -> None:
    """Its successor takes its replicas over; nobody notices."""
    container, node_id = busiest_node(drill.full)
    pid = agents_of(drill.full)[node_id]
    before = drill.full.replicas()
    drill(
        "node agent killed",
        lambda: send("KILL", container, pid),
        lambda: agents_of(drill.full).get(node_id, pid) != pid and drill.full.replicas() == before,
    )
    assert not drill.load.failures()


def test_a_node_agent_is_frozen(drill: Drill) -> None:
    """Its replicas are well, and go on; nobody notices, then or when it wakes up."""
    container, node_id = busiest_node(drill.full)
    pid = agents_of(drill.full)[node_id]
    drill(
        "node agent frozen",
        lambda: send("STOP", container, pid),
        lambda: node_id not in nodes_of(drill.full) and drill.is_full(),
    )
    drill(
        "node agent wakes up",
        lambda: send("CONT", container, pid),
        lambda: node_id in nodes_of(drill.full) and drill.is_full(),
    )
    assert not drill.load.failures()


def test_a_proxy_is_killed(drill: Drill) -> None:
    container = drill.full.one("proxy-2")
    drill("proxy killed", lambda: docker("kill", container), lambda: True)
    docker("start", container)
    wait_until(lambda: health_of(container) == "healthy", "the proxy is back")


def test_a_proxy_is_frozen(drill: Drill) -> None:
    """Until it wakes up, those who had asked it wait; new connections go to the other one."""
    container = drill.full.one("proxy-2")
    drill("proxy frozen", lambda: docker("pause", container), lambda: not drill.load.is_well(1))
    drill("proxy wakes up", lambda: docker("unpause", container), lambda: drill.load.is_well(1))


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


def test_the_leading_member_of_the_store_is_frozen(drill: Drill) -> None:
    """The other two have a majority."""
    leading = next(s for s in ("etcd-1", "etcd-2", "etcd-3") if leads_store(drill.full, s))
    container = drill.full.one(leading)
    others = [s for s in ("etcd-1", "etcd-2", "etcd-3") if s != leading]

    def has_successor() -> bool:
        return any(leads_store(drill.full, s) for s in others) and drill.is_full()

    drill("leading etcd frozen", lambda: docker("pause", container), has_successor)
    drill("leading etcd wakes up", lambda: docker("unpause", container), drill.is_full)
    assert not drill.load.failures()


def test_the_application_is_updated(drill: Drill) -> None:
    """All replicas are replaced, one after another."""
    before = drill.full.replicas()
    drill(
        "application updated",
        lambda: deploy_changed(drill.full),
        lambda: drill.is_full() and not before.keys() & drill.full.replicas().keys(),
    )
    assert not drill.load.failures()


def test_every_role_may_be_told_to_end(drill: Drill) -> None:
    """Replaced one after the other, as in an upgrade: no client sees anything."""
    full = drill.full
    for service in ("controller-1", "controller-2", "proxy-1"):
        container = full.one(service)
        drill(f"{service} told to end", lambda c=container: docker("stop", c), drill.is_full)  # type: ignore[misc]
        assert not drill.load.failures()
        docker("start", container)
        wait_until(lambda c=container: health_of(c) == "healthy", f"{service} is healthy")  # type: ignore[misc]
    for container in full.containers("node"):
        drill("node told to end", lambda c=container: docker("stop", c), drill.is_full)  # type: ignore[misc]
        assert not drill.load.failures()
        docker("start", container)
        wait_until(lambda c=container: hostname_of(c) in nodes_of(full), "the node is back")  # type: ignore[misc]
