"""Processes are killed while clients ask: what the clients see, and how the cluster comes back."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from slipknot import _connection, serve
from slipknot._api import RunTarget, run_many
from slipknot_core.rpc.channel import new_channel
from slipknot_proto.v1 import discovery_pb2, discovery_pb2_grpc
from tests.support.cluster_status import (
    application,
    cluster_status,
    running_replicas,
    wait_for_status,
    wait_until,
)
from tests.support.journal import Gate, Journal
from tests.support.load import Load
from tests.support.processes import child_running, descendants, is_alive, wait_until_gone

CLIENTS = 4


@serve.deployment(num_replicas=2)
class Says:
    """Names the replica that answers."""

    async def __call__(self) -> str:
        """Say it."""
        return serve.get_replica_context().replica_id


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """An embedded cluster."""
    serve.start(http_options={"port": 0})
    yield serve.http_url()
    serve.shutdown()


@pytest.fixture
def load(url: str) -> Iterator[Load]:
    """Clients of an application with two replicas."""
    serve.run(Says.bind())
    with Load(url, clients=CLIENTS) as clients:
        yield clients
    serve.delete("default")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """What handlers note."""
    with Journal(tmp_path) as open_journal:
        yield open_journal


def test_a_killed_replica_costs_no_more_than_what_it_had_at_hand(load: Load) -> None:
    (killed, pid), _ = running_replicas().items()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: killed not in (now := running_replicas()) and len(now) == 2)
    load.wait_for_more(20)
    assert len(load.failures) <= CLIENTS
    assert all(500 <= answer.status <= 503 for answer in load.failures)
    wait_for_status("RUNNING")


def test_all_replicas_killed_come_back(load: Load) -> None:
    before = running_replicas()
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(now := running_replicas()) == 2 and not now.keys() & before.keys())
    load.wait_for_more(20)
    assert len(load.failures) <= 2 * CLIENTS


def test_a_killed_proxy_comes_back_at_its_port(load: Load, url: str) -> None:
    pid = child_running("slipknot_proxy")
    os.kill(pid, signal.SIGKILL)
    assert httpx.get(url, timeout=20).status_code == 200  # connected after the end of the old one
    load.wait_for_more(20)
    # Each client had one connection; the next one waits in the backlog.
    assert len(load.failures) <= CLIENTS
    assert all(answer.status == 0 for answer in load.failures)
    wait_until(lambda: [p.pid for p in cluster_status().proxies] not in ([], [pid]))


def test_a_killed_controller_is_not_noticed(load: Load) -> None:
    before, epoch = running_replicas(), cluster_status().epoch
    os.kill(child_running("slipknot_controller"), signal.SIGKILL)
    wait_until(lambda: cluster_status().epoch > epoch and len(running_replicas()) == 2)
    load.wait_for_more(20)
    assert running_replicas() == before
    assert all(is_alive(pid) for pid in before.values())
    serve.run(Says.options(num_replicas=1).bind())
    load.wait_for_more(20)
    assert load.failures == []


def test_a_restarted_controller_publishes_nothing_before_it_knows_its_replicas(load: Load) -> None:
    address = _connection.current().dispatcher.controller_address
    epoch = cluster_status().epoch
    seen: list[discovery_pb2.Snapshot] = []
    is_restarted = threading.Event()

    async def watch() -> None:
        while not is_restarted.is_set():
            channel = new_channel(address)
            try:
                call = discovery_pb2_grpc.DiscoveryServiceStub(channel).Watch(
                    discovery_pb2.WatchRequest(watcher="test")
                )
                async for response in call:
                    seen.append(response.snapshot)
                    if response.snapshot.epoch > epoch:
                        is_restarted.set()
                        break
            except Exception:  # noqa: BLE001 - the controller is away
                await asyncio.sleep(0.005)
            finally:
                await channel.close(None)

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(asyncio.run, asyncio.wait_for(watch(), 20))
        wait_until(lambda: seen)
        os.kill(child_running("slipknot_controller"), signal.SIGKILL)
        watching.result()
    deployment = seen[-1].applications[0].deployments[0]
    assert {replica.replica_id for replica in deployment.replicas} == running_replicas().keys()
    assert len(deployment.replicas) == 2
    assert load.failures == []


def test_a_deploy_is_finished_by_the_next_controller(url: str, journal: Journal, tmp_path: Path) -> None:
    pen, gate = journal.pen, Gate(tmp_path / "gate")

    @serve.deployment
    class Slow:
        async def __init__(self) -> None:
            pen.note("constructing")
            await gate.passed()

        def __call__(self) -> str:
            return "ready"

    with ThreadPoolExecutor(1) as pool:
        deploy = pool.submit(serve.run, Slow.bind())
        journal.wait_for("constructing")
        os.kill(child_running("slipknot_controller"), signal.SIGKILL)
        gate.open()
        deploy.result()
    assert httpx.get(url).text == "ready"
    assert journal.notes == ["constructing"]
    serve.delete("default")


def test_a_delete_is_finished_by_the_next_controller(url: str, journal: Journal, tmp_path: Path) -> None:
    pen, gate = journal.pen, Gate(tmp_path / "gate")

    @serve.deployment
    class Held:
        async def __call__(self) -> str:
            pen.note("in")
            await gate.passed()
            return "done"

    serve.run(Held.bind())
    with ThreadPoolExecutor(2) as pool:
        response = pool.submit(httpx.get, url, timeout=20)
        journal.wait_for("in")
        deletion = pool.submit(serve.delete, "default")
        wait_for_status("DELETING")
        os.kill(child_running("slipknot_controller"), signal.SIGKILL)
        wait_for_status("DELETING")
        gate.open()
        deletion.result()
        assert (response.result().status_code, response.result().text) == (200, "done")
    assert application() is None


def test_what_an_update_let_go_is_not_started_again_by_the_next_controller(
    url: str, journal: Journal, tmp_path: Path
) -> None:
    """While it drains, it counts as neither wanted nor gone."""
    pen, gate = journal.pen, Gate(tmp_path / "gate")

    @serve.deployment
    class Back:
        def __init__(self) -> None:
            pen.note("back")

        async def hold(self) -> str:
            pen.note("in")
            await gate.passed()
            return "done"

    @serve.deployment
    class Front:
        def __init__(self, _back: Any = None) -> None:
            pass

        def __call__(self) -> str:
            return "front"

    serve.run(Front.bind(Back.bind()))
    held = serve.get_deployment_handle("Back", "default").hold.remote()
    journal.wait_for("in")
    serve.run(Front.bind())
    wait_until(lambda: [d.name for d in application().deployments] == ["Front"])
    epoch = cluster_status().epoch
    os.kill(child_running("slipknot_controller"), signal.SIGKILL)
    wait_until(lambda: cluster_status().epoch > epoch and application().deployments[0].status == "HEALTHY")
    gate.open()
    assert held.result() == "done"
    wait_until(lambda: [node.replica_count for node in cluster_status().nodes] == [1])
    assert journal.notes == ["back", "in"]
    serve.delete("default")


def agent_pid() -> int:
    """Of the node agent; 0 while there is none."""
    return next((node.pid for node in cluster_status().nodes), 0)


def test_a_killed_node_agent_is_not_noticed(load: Load) -> None:
    before, pid = running_replicas(), agent_pid()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: agent_pid() not in (0, pid))
    load.wait_for_more(20)
    assert running_replicas() == before
    assert all(is_alive(replica) for replica in before.values())
    serve.run(Says.options(num_replicas=3).bind())  # the successor stops the old ones and starts new ones
    assert not running_replicas().keys() & before.keys()
    wait_until(lambda: not any(is_alive(replica) for replica in before.values()))
    load.wait_for_more(20)
    assert load.failures == []


def test_what_an_adopted_replica_writes_is_carried_on_and_its_end_is_told(
    url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    @serve.deployment(logging_config={"enable_access_log": False})
    class Ends:
        async def __call__(self) -> str:
            sys.stderr.write("an adopted replica's last words\n")
            os._exit(7)

    serve.run(Ends.bind())
    ((replica_id, pid),) = running_replicas().items()
    before = agent_pid()
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: agent_pid() not in (0, before))
    assert httpx.get(url).status_code >= 500
    message = wait_until(lambda: "ended with status 7" in (m := application().deployments[0].message) and m)
    assert replica_id in message and "an adopted replica's last words" in message
    shown: list[str] = []

    def is_shown() -> bool:
        shown.extend(capfd.readouterr())
        return f"pid={pid}) an adopted replica's last words" in "".join(shown)

    wait_until(is_shown)
    serve.delete("default")


def test_replicas_that_end_while_there_is_no_agent_are_replaced(load: Load) -> None:
    before, pid = running_replicas(), agent_pid()
    os.kill(pid, signal.SIGSTOP)  # it neither reports nor stops anything any more
    for replica in before.values():
        os.kill(replica, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(now := running_replicas()) == 2 and not now.keys() & before.keys())
    load.wait_for_more(20)
    assert len(load.failures) <= 2 * CLIENTS


def test_a_killed_node_takes_its_replicas_along_and_all_come_back(load: Load) -> None:
    before = running_replicas()
    os.kill(child_running("slipknot_replica.node_main"), signal.SIGKILL)
    wait_until(lambda: not any(is_alive(pid) for pid in before.values()))
    wait_until(lambda: len(now := running_replicas()) == 2 and not now.keys() & before.keys())
    load.wait_for_more(20)
    assert len(load.failures) <= 2 * CLIENTS


def test_a_wedged_replica_is_replaced(url: str) -> None:
    @serve.deployment(
        num_replicas=2, health_check_period_s=0.1, health_check_timeout_s=0.1, graceful_shutdown_timeout_s=0.1
    )
    class Checked:
        async def __call__(self) -> str:
            return "here"

        async def check_health(self) -> None:
            pass

    serve.run(Checked.bind())
    (wedged, pid), _ = running_replicas().items()
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: wedged not in (now := running_replicas()) and len(now) == 2)
    wait_until(lambda: not is_alive(pid))
    with Load(url) as clients:
        clients.wait_for_more(10)
    assert clients.failures == []
    serve.delete("default")


def test_replicas_that_crash_on_each_request_do_not_stop_the_others(url: str) -> None:
    @serve.deployment
    class Crashes:
        async def __call__(self) -> str:
            os._exit(3)

    serve.run(Says.bind())
    run_many([RunTarget(Crashes.bind(), "crashes", "/crashes")])
    with Load(url, clients=2) as load:
        for _ in range(3):
            assert httpx.get(f"{url}/crashes", timeout=20).status_code in (500, 502, 503)
        load.wait_for_more(10)
    assert load.failures == []
    for name in ("crashes", "default"):
        serve.delete(name)


# --- Other clusters ---

SCRIPT = """
    import sys, time
    from slipknot import serve

    @serve.deployment
    class Says:
        def __call__(self):
            return sys.argv[1]

    text = sys.argv[1]

    @serve.deployment
    def says():
        return text

    serve.start(http_options={"port": 0})
    serve.run(says.bind())
    print("URL", serve.http_url(), flush=True)
    time.sleep(60)
"""


@pytest.fixture
def start_script(tmp_path: Path) -> Iterator[Any]:
    """Start a program with a cluster of its own; gives the process and its URL."""
    file = tmp_path / "program.py"
    file.write_text(textwrap.dedent(SCRIPT))
    started: list[subprocess.Popen[str]] = []

    def start(text: str) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen([sys.executable, str(file), text], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("URL "):
                return process, line.split()[1]
        raise AssertionError("the program ended early")

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_two_clusters_on_one_machine_do_not_disturb_each_other(start_script: Any) -> None:
    first, first_url = start_script("first")
    _, second_url = start_script("second")
    assert [httpx.get(first_url).text, httpx.get(second_url).text] == ["first", "second"]
    first.kill()
    first.wait()
    assert httpx.get(second_url).text == "second"


def test_children_die_with_a_parent_that_is_killed(start_script: Any) -> None:
    parent, url = start_script("here")
    children = descendants(parent.pid)
    assert len(children) >= 5  # controller, proxy, node, its agent, replica
    parent.kill()
    parent.wait()
    wait_until_gone(children)
    host, _, port = url.removeprefix("http://").partition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))
