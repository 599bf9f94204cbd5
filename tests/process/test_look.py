"""Looking at processes: status, metrics, log files, stalls of an event loop, health under load."""

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.journal import Gate, Journal
from tests.support.metrics import Metrics
from tests.support.raw_http import RawClient

pytestmark = pytest.mark.timeout(90)

WAIT_S = 30.0
"""Nothing that is waited for takes this long; a bound, not an expectation."""
SLEEPERS = 64
COMMAND = (sys.executable, "-m", "slipknot")

DRIVER = """
    import json, os, sys, time
    from fastapi import FastAPI
    from slipknot import _connection, serve
    from tests.support.journal import Gate, Pen

    api = FastAPI()

    @serve.deployment(max_ongoing_requests=100)
    @serve.ingress(api)
    class Looked:
        def __init__(self, pen, gate):
            self.pen, self.gate = pen, gate

        @api.get("/sleep/{name}")
        def sleep(self, name: str) -> str:
            self.pen.note("asleep")
            self.gate.wait()
            return name

        @api.get("/block/{name}")
        async def block(self, name: str) -> str:
            self.gate.wait()
            return name

        @api.get("/trace")
        async def trace(self) -> str:
            return serve.get_request_context().traceparent

    directory = sys.argv[1]
    serve.start(
        http_options={"port": 0},
        logging_config={"encoding": "JSON", "logs_dir": directory + "/logs"},
        tracing_config={"enabled": True},
    )
    from pathlib import Path
    serve.run(Looked.bind(Pen(directory + "/journal"), Gate(Path(directory + "/gate"))), name="looked")
    address = _connection.current().dispatcher.controller_address
    print(json.dumps({"url": serve.http_url(), "address": address}), flush=True)
    sys.stdin.read()
    serve.shutdown()
"""


@dataclass
class Running:
    """The cluster, from outside."""

    url: str
    address: str
    logs_dir: Path
    journal: Journal
    gate: Gate

    def command(self, *arguments: str) -> str:
        done = subprocess.run(
            [*COMMAND, *arguments, "--address", self.address], capture_output=True, text=True, timeout=WAIT_S
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def metrics(self, part: str = "") -> Metrics:
        return Metrics(self.command("metrics", part))

    def lines(self, prefix: str) -> list[dict[str, Any]]:
        (file,) = self.logs_dir.glob(f"{prefix}*.log")
        return [json.loads(line) for line in file.read_text().splitlines()]

    def wait_for_line(self, prefix: str, is_it: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        deadline_s = time.monotonic() + WAIT_S
        while not (found := [line for line in self.lines(prefix) if is_it(line)]):
            assert time.monotonic() < deadline_s, self.lines(prefix)
            time.sleep(0.02)
        return found[-1]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("look")
    (directory / "driver.py").write_text(textwrap.dedent(DRIVER))
    with Journal(directory) as journal:
        driver = subprocess.Popen(
            [sys.executable, str(directory / "driver.py"), str(directory)],
            env={**os.environ, "PYTHONPATH": os.getcwd(), "SLIPKNOT_ADDRESS": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert driver.stdout is not None and driver.stdin is not None
        try:
            gate = Gate(directory / "gate")
            # What replicas print goes to the driver's standard output, too.
            line = next(line for line in driver.stdout if line.startswith('{"url"'))
            yield Running(**json.loads(line), logs_dir=directory / "logs", journal=journal, gate=gate)
            gate.open()
        finally:
            driver.stdin.close()
            assert driver.wait(WAIT_S) == 0
            driver.stdout.close()


def test_health_while_threads_sleep(running: Running) -> None:
    """`/-/healthz`, the admin ports and async handlers answer while all sync handlers of a replica sleep."""

    async def look() -> None:
        clients = [await RawClient.connect(running.url.removeprefix("http://")) for _ in range(SLEEPERS)]
        for client in clients:
            client.get("/sleep/x")
        await running.journal.wait_for_async("asleep", SLEEPERS, WAIT_S)
        async with httpx.AsyncClient(base_url=running.url, timeout=WAIT_S) as other:
            for _ in range(20):
                assert (await other.get("/-/healthz")).text == "success"
            assert (await other.get("/trace")).status_code == 200
        metrics = await asyncio.to_thread(running.metrics, "ongoing")
        assert metrics.sum("slipknot_replica_ongoing_requests", application="looked") == SLEEPERS
        running.gate.open()
        for client in clients:
            assert (await client.read()).status == 200
            client.close()
        running.gate.close()

    asyncio.run(look())


def test_a_blocked_loop_is_named(running: Running) -> None:
    """With deployment, route, request id, file and line; and again, with its length, when it is over."""
    with httpx.Client(base_url=running.url, timeout=WAIT_S) as client:
        asyncio.run(_block(running))
        assert client.get("/trace").status_code == 200
    line = running.wait_for_line("replica_", lambda line: line["message"].startswith("loop_blocked"))
    assert re.search(
        r"of looked/Looked for \d+\.\d s by GET /block/\{name\} of request blocker, at", line["message"]
    )
    assert re.search(r"/journal\.py:\d+ in wait: others wait", line["message"])
    assert "in block" in line["message"]
    assert line["blocked_request_id"] == "blocker"
    running.wait_for_line(
        "replica_", lambda line: line["message"].startswith("loop_unblocked of looked/Looked")
    )
    metrics = running.metrics("slipknot_replica_loop")
    assert metrics.sum("slipknot_replica_loop_stalls_total", deployment="Looked") == 1
    assert metrics.sum("slipknot_replica_loop_stalled_seconds_total", deployment="Looked") >= 1


async def _block(running: Running) -> None:
    client = await RawClient.connect(running.url.removeprefix("http://"))
    client.get("/block/it", x_request_id="blocker")
    await asyncio.to_thread(
        running.wait_for_line, "replica_", lambda line: line["message"].startswith("loop_blocked")
    )
    running.gate.open()
    assert (await client.read()).status == 200
    client.close()
    running.gate.close()


def test_files_and_fields_of_the_log(running: Running) -> None:
    """Each role has a file; the lines of a request say who, what, where, and which trace."""
    traceparent = httpx.get(f"{running.url}/trace", headers={"x-request-id": "logged"}).json()
    _, trace_id, span_id, _ = traceparent.split("-")
    names = sorted(path.name for path in running.logs_dir.iterdir())
    assert [re.sub(r"(node-)?[a-z0-9]+\.log$", "*", name) for name in names] == [
        "controller_*",
        "node_*",
        "proxy_*",
        "replica_looked_Looked_*",
    ]
    own = running.wait_for_line("replica_looked", lambda line: line.get("request_id") == "logged")
    proxys = running.wait_for_line("proxy_", lambda line: line.get("request_id") == "logged")
    for line in (own, proxys):
        assert re.fullmatch(r"GET /trace 200 \d+\.\dms", line["message"])
        assert (line["application"], line["deployment"], line["route"]) == ("looked", "Looked", "/trace")
        assert line["trace_id"] == trace_id
        assert line["timestamp"] and line["levelname"] == "INFO"
    assert own["span_id"] == span_id != proxys["span_id"]
    assert own["component_name"] == "looked_Looked" and proxys["component_name"] == "proxy"
    assert own["replica"] == own["component_id"]
    running.wait_for_line("controller_", lambda line: "looked" in line["message"])
    httpx.get(f"{running.url}/nowhere", headers={"x-request-id": "lost"})
    lost = running.wait_for_line("proxy_", lambda line: line.get("request_id") == "lost")
    assert lost["message"].startswith("GET / 404")


def test_status_for_programs_and_for_people(running: Running) -> None:
    """YAML where it is read by programs, tables on a terminal, and after each change until Ctrl-C."""
    assert yaml.safe_load(running.command("status"))["applications"]["looked"]["status"] == "RUNNING"
    terminal = Terminal([*COMMAND, "status", "--address", running.address])
    shown = terminal.wait_for("Nodes")
    assert terminal.wait() == 0
    assert re.search(r"looked/Looked\s+HEALTHY\s+1/1", shown)
    assert "Replicas by node" in shown and "looked#Looked#" in shown and "admin.sock" in shown
    terminal = Terminal([*COMMAND, "status", "--yaml", "--address", running.address])
    assert "applications:" in terminal.wait_for("target_capacity")
    assert terminal.wait() == 0
    terminal = Terminal([*COMMAND, "status", "--watch", "--address", running.address])
    terminal.wait_for("Nodes")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.wait() == 0


def test_metrics_of_all_members(running: Running) -> None:
    """Each with its name; one part of the names if that is asked for."""
    metrics = running.metrics()
    names = {sample.name for sample in metrics.samples}
    for role in ("proxy", "controller", "node", "replica"):
        assert f"slipknot_{role}_loop_lag_seconds" in names
    assert metrics.sum("slipknot_node_replicas") == 1
    assert metrics.sum("slipknot_node_unread_replicas") == 0
    assert metrics.sum("slipknot_node_joined") == 1
    members = metrics.label_values("slipknot_router_controller_connected", "member")
    assert len(members) == 2
    assert all("loop_lag" in sample.name for sample in running.metrics("loop_lag").samples)


class Terminal:
    """A command whose standard output is a terminal."""

    def __init__(self, command: list[str]) -> None:
        self._fd, theirs = pty.openpty()
        environment = {**os.environ, "COLUMNS": "200", "LINES": "60", "TERM": "xterm", "NO_COLOR": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE, env=environment
        )
        os.close(theirs)
        self._shown = b""

    def wait_for(self, text: str) -> str:
        """Read until it was shown, or to the end."""
        while text.encode() not in self._shown:
            try:
                chunk = os.read(self._fd, 4096)
            except OSError:  # the other end is closed
                chunk = b""
            if not chunk:
                raise AssertionError(f"{text!r} was not shown: {self._shown.decode()}")
            self._shown += chunk
        return self._shown.decode()

    def wait(self) -> int:
        """Read to the end; returns the exit status."""
        try:
            while chunk := os.read(self._fd, 4096):
                self._shown += chunk
        except OSError:
            pass
        os.close(self._fd)
        status = self.process.wait(WAIT_S)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return status
