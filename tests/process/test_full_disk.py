"""The controller's state cannot be written: what was asked for before goes on, deploys are refused in words,
and once there is room again they work.
"""

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from slipknot import _connection, _control, serve
from slipknot.serve.exceptions import StateNotStoredError
from tests.support.cluster_status import (
    application,
    cluster_status,
    running_replicas,
    wait_for_status,
    wait_until,
)
from tests.support.etcd import new_prefix, start_etcd
from tests.support.journal import Gate
from tests.support.load import Load
from tests.support.processes import child_running, is_alive
from tests.support.tcp_cluster import TcpCluster

pytestmark = pytest.mark.timeout(120)

SCALING = {
    "min_replicas": 1,
    "max_replicas": 2,
    "target_ongoing_requests": 1,
    "upscale_delay_s": 0,
    "downscale_delay_s": 600,
}


@serve.deployment(ray_actor_options={"num_cpus": 0})
class Says:
    """Answers with its word."""

    def __init__(self, word: str) -> None:
        self._word = word

    async def __call__(self) -> str:
        return self._word


@serve.deployment(ray_actor_options={"num_cpus": 0}, autoscaling_config=SCALING, max_ongoing_requests=10)
class Holds:
    """Holds each request until the gate opens."""

    async def __call__(self, gate: Gate) -> None:
        await gate.passed()


class Disk:
    """Where the state is, and how to fill it."""

    def __init__(self, name: str, fill: Callable[[], None], make_room: Callable[[], None]) -> None:
        self.name, self.fill, self.make_room = name, fill, make_room


@contextmanager
def small_disk(directory: Path) -> Iterator[Disk]:
    """A file system of its own below `directory`, with room for little."""
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a file system of its own needs root, and the right to mount")
    ballast = directory / "ballast"

    def fill() -> None:
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass

    try:
        yield Disk(str(directory / "state.db"), fill, ballast.unlink)
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


@contextmanager
def full_etcd() -> Iterator[tuple[Disk, dict[str, Any]]]:
    """An etcd with a small quota; the options of a store in it."""
    with start_etcd(1, ["--quota-backend-bytes=4194304"]) as etcd:
        store = {"kind": "etcd", "endpoints": etcd.endpoints, "prefix": new_prefix()}
        yield Disk("space exceeded", etcd.fill, etcd.make_room), store


def one_node(directory: Path, store: dict[str, Any]) -> TcpCluster:
    """A cluster whose controller has this store, and whose node has room however small this machine is."""
    return TcpCluster(directory, nodes=1, controller_options={"store": store}, node_options={"num_cpus": 16})


def goes_on(url: str, controller: Callable[[], int], disk: Disk, directory: Path) -> None:
    """The story, for a cluster that can be deployed to."""
    gate = Gate(directory / "gate")
    holds = serve.run(Holds.bind(), name="holds", route_prefix=None)
    serve.run(Says.bind("first"), name="first", route_prefix="/first")
    serve.run(Says.bind("leaves"), name="leaves", route_prefix="/leaves")
    pid, epoch = controller(), cluster_status().epoch
    with Load(f"{url}/first") as load:
        disk.fill()
        with pytest.raises(StateNotStoredError, match=disk.name):
            serve.run(Says.bind("second"), name="second", route_prefix="/second")
        with pytest.raises(StateNotStoredError, match=disk.name):
            serve.run(Says.bind("other"), name="first", route_prefix="/first")
        with pytest.raises(StateNotStoredError, match=disk.name):
            serve.delete("leaves")
        assert application("second") is None
        assert {app.name: app.status for app in cluster_status().applications} == {
            "first": "RUNNING",
            "holds": "RUNNING",
            "leaves": "RUNNING",
        }
        # What needs no change of what is wanted goes on: a replica that dies is replaced.
        (killed, victim), *_ = running_replicas("leaves").items()
        os.kill(victim, 9)
        wait_until(lambda: (now := running_replicas("leaves")) and killed not in now)
        # What the controller wants to change by itself waits for room.
        waiting = [holds.remote(gate) for _ in range(4)]
        wait_until(lambda: disk.name in application("holds").deployments[0].message)
        load.wait_for_more(20)

        disk.make_room()
        wait_until(lambda: len(running_replicas("holds")) == 2)
        gate.open()
        for response in waiting:
            response.result(timeout_s=20)
        serve.run(Says.bind("second"), name="second", route_prefix="/second")
        assert httpx.get(f"{url}/second", timeout=20).text == "second"
        serve.delete("leaves")
        load.wait_for_more(20)
    assert load.failures == []
    assert (controller(), cluster_status().epoch) == (pid, epoch)
    assert is_alive(pid)


def test_embedded_cluster(tmp_path: Path) -> None:
    """Nothing at all can be written to a file by the controller, not even its log."""
    serve.start(http_options={"port": 0})
    try:
        pid = child_running("slipknot_controller")
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        disk = Disk(
            "state store",
            lambda: resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1])) and None,
            lambda: resource.prlimit(pid, resource.RLIMIT_FSIZE, before) and None,
        )
        goes_on(serve.http_url(), lambda: child_running("slipknot_controller"), disk, tmp_path)
    finally:
        serve.shutdown()


def test_state_that_was_deleted() -> None:
    """Of an embedded cluster: a deploy would be lost at the controller's next start; requests go on."""
    serve.start(http_options={"port": 0})
    try:
        serve.run(Says.bind("first"), name="first")
        files = [
            Path(link.readlink())
            for link in Path(f"/proc/{child_running('slipknot_controller')}/fd").iterdir()
        ]
        (state,) = {file for file in files if file.name == "state.db"}
        state.unlink()
        with pytest.raises(StateNotStoredError, match=r"state\.db' was deleted"):
            serve.run(Says.bind("other"), name="first")
        assert httpx.get(serve.http_url(), timeout=20).text == "first"
    finally:
        serve.shutdown()


def test_cluster_of_processes(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        store = {"kind": "sqlite", "path": disk.name}
        with one_node(tmp_path, store) as cluster:
            goes_on(cluster.url, lambda: cluster.controller.pid, disk, tmp_path)
            before = {app.name: app.generation for app in cluster_status().applications}
            cluster.controller.kill()
            cluster.controller.start()
            wait_for_status("RUNNING", "second")
            assert {app.name: app.generation for app in cluster_status().applications} == before


def test_removal_waits_for_room(tmp_path: Path) -> None:
    """An application whose end was stored, and whose replicas end while nothing can be."""
    gate = Gate(tmp_path / "gate")
    with small_disk(tmp_path / "disk") as disk:
        store = {"kind": "sqlite", "path": disk.name}
        with one_node(tmp_path, store):
            holds = serve.run(Holds.bind(), name="holds", route_prefix=None)
            response = holds.remote(gate)
            connection = _connection.current()
            wait_until(lambda: any(r.ongoing for r in application("holds").deployments[0].replicas))
            connection.run(_control.delete(connection, "holds", wait=False))
            wait_for_status("DELETING", "holds")
            disk.fill()
            gate.open()
            response.result(timeout_s=20)
            wait_until(lambda: not any(d.replicas for d in application("holds").deployments))
            disk.make_room()
            wait_until(lambda: application("holds") is None)
            serve.run(Says.bind("again"), name="holds", route_prefix="/")


def test_etcd_without_space(tmp_path: Path) -> None:
    with full_etcd() as (disk, store), one_node(tmp_path, store) as cluster:
        goes_on(cluster.url, lambda: cluster.controller.pid, disk, tmp_path)
