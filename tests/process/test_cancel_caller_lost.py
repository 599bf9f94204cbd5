"""Callers that are killed: what ran for them is cancelled, and told that its caller is lost."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from slipknot import _connection, serve
from slipknot.serve.handle import DeploymentHandle
from tests.support.cluster_status import application, running_replicas, wait_until
from tests.support.journal import Gate, Journal, Pen
from tests.support.processes import child_running

DRIVER = """
    import sys
    from slipknot import serve

    _, way, name = sys.argv
    handle = serve.get_deployment_handle("Stands", "default")
    if way == "items":
        for item in handle.options(stream=True).items.remote(name):
            print(item, flush=True)
    else:
        response = getattr(handle, way).remote(name)
        print("called", flush=True)
        print(response.result(), flush=True)
"""


async def stand(pen: Pen, gate: Gate, name: str) -> str:
    """Stand at the gate and note what becomes of it."""
    pen.note(f"{name} begun")
    try:
        await gate.passed()
    except BaseException as error:
        pen.note(f"{name} {type(error).__name__}")
        pen.note(f"{name} because {serve.get_request_context().cancel_reason}")
        raise
    pen.note(f"{name} ran on")
    return name


@serve.deployment(max_ongoing_requests=1)
class Stands:
    """Stands itself, and lets another stand."""

    def __init__(self, pen: Pen, gate: Gate, leaf: DeploymentHandle | None = None) -> None:
        self._pen, self._gate, self._leaf = pen, gate, leaf

    async def stand(self, name: str) -> str:
        """Stand here."""
        return await stand(self._pen, self._gate, name)

    async def deep(self, name: str) -> Any:
        """Stand at a call."""
        assert self._leaf is not None
        self._pen.note(f"{name} begun")
        try:
            return await self._leaf.stand.remote("leaf")
        except BaseException as error:
            self._pen.note(f"{name} {type(error).__name__}")
            self._pen.note(f"{name} because {serve.get_request_context().cancel_reason}")
            raise

    async def items(self, name: str) -> Any:
        """Stand in a generator."""
        yield "item"
        await stand(self._pen, self._gate, name)

    async def now(self) -> str:
        """Answer at once."""
        return "now"

    async def __call__(self) -> str:
        return await self.stand("http")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """An embedded cluster."""
    serve.start(http_options={"port": 0})
    yield serve.http_url()
    serve.shutdown()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """What handlers note."""
    with Journal(tmp_path) as open_journal:
        yield open_journal


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Opened at the end, so that no handler stays behind."""
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()


@pytest.fixture
def handle(url: str, journal: Journal, gate: Gate) -> Iterator[DeploymentHandle]:
    """Two deployments with one slot each, one calling the other."""
    leaf = Stands.options(name="Leaf").bind(journal.pen, gate)
    yield serve.run(Stands.bind(journal.pen, gate, leaf))
    gate.open()
    serve.delete("default")


StartDriver = Callable[[str, str], "subprocess.Popen[str]"]


@pytest.fixture
def start_driver(url: str, tmp_path: Path) -> Iterator[StartDriver]:
    """Start a program that makes a call, told by SLIPKNOT_ADDRESS where the cluster is."""
    file = tmp_path / "driver.py"
    file.write_text(textwrap.dedent(DRIVER))
    address = _connection.current().dispatcher.controller_address
    started: list[subprocess.Popen[str]] = []

    def start(way: str, name: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, str(file), way, name],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "SLIPKNOT_ADDRESS": address},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def kill(process: "subprocess.Popen[str]") -> None:
    """With SIGKILL: it has no chance to say anything."""
    process.kill()
    process.wait()


def is_over(*deployments: str) -> None:
    """These deployments answer; each has a single slot, so it runs nothing else any more."""
    for name in deployments:
        handle = serve.get_deployment_handle(name, "default")
        assert handle.now.remote().result(timeout_s=10) == "now"


@pytest.mark.parametrize("way", ["stand", "items"])
def test_a_killed_driver(
    handle: DeploymentHandle, journal: Journal, gate: Gate, start_driver: StartDriver, way: str
) -> None:
    driver = start_driver(way, "top")
    journal.wait_for("top begun")
    kill(driver)
    journal.wait_for("top because CALLER_LOST")
    gate.open()
    is_over("Stands")
    assert journal.notes == ["top begun", "top CancelledError", "top because CALLER_LOST"]


def test_what_a_killed_driver_had_called_indirectly(
    handle: DeploymentHandle, journal: Journal, gate: Gate, start_driver: StartDriver
) -> None:
    driver = start_driver("deep", "top")
    journal.wait_for("leaf begun")
    kill(driver)
    for name in ("top", "leaf"):
        journal.wait_for(f"{name} CancelledError")
    gate.open()
    is_over("Stands", "Leaf")
    assert sorted(note for note in journal.notes if "because" in note) == [
        "leaf because PARENT_CANCELLED",
        "top because CALLER_LOST",
    ]
    assert "leaf ran on" not in journal.notes


def test_what_a_killed_driver_had_queued(
    handle: DeploymentHandle, journal: Journal, gate: Gate, start_driver: StartDriver
) -> None:
    busy = handle.stand.remote("busy")
    journal.wait_for("busy begun")
    driver = start_driver("stand", "queued")
    assert driver.stdout is not None and driver.stdout.readline() == "called\n"
    kill(driver)
    gate.open()
    assert busy.result() == "busy"
    is_over("Stands")
    assert journal.notes == ["busy begun", "busy ran on"]


def test_another_driver_is_not_concerned(
    handle: DeploymentHandle, journal: Journal, gate: Gate, start_driver: StartDriver
) -> None:
    leaf = serve.get_deployment_handle("Leaf", "default")
    ours = leaf.stand.remote("ours")
    driver = start_driver("stand", "theirs")
    for name in ("ours", "theirs"):
        journal.wait_for(f"{name} begun")
    kill(driver)
    journal.wait_for("theirs because CALLER_LOST")
    gate.open()
    assert ours.result() == "ours"


def test_a_killed_replica(handle: DeploymentHandle, journal: Journal, gate: Gate) -> None:
    response = handle.deep.remote("top")
    journal.wait_for("leaf begun")
    (killed,) = [r for d in application().deployments if d.name == "Stands" for r in d.replicas]
    os.kill(killed.pid, signal.SIGKILL)
    journal.wait_for("leaf because CALLER_LOST")
    with pytest.raises(serve.exceptions.ReplicaUnavailableError):
        response.result(timeout_s=10)
    gate.open()
    is_over("Leaf")
    assert "leaf ran on" not in journal.notes
    wait_until(lambda: killed.replica_id not in (now := running_replicas()) and len(now) == 2)


def test_a_killed_proxy(handle: DeploymentHandle, url: str, journal: Journal, gate: Gate) -> None:
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(httpx.get, url, timeout=20)
        journal.wait_for("http begun")
        os.kill(child_running("slipknot_proxy"), signal.SIGKILL)
        journal.wait_for("http because CALLER_LOST")
        with pytest.raises(httpx.TransportError):
            asking.result()
    gate.open()
    is_over("Stands")
    assert "http ran on" not in journal.notes
    assert httpx.get(url, timeout=20).text == "http"  # the new proxy; the gate is open now
