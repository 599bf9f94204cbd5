"""Real etcd clusters on loopback whose members can be killed, frozen and started again."""

import base64
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

START_TIMEOUT_S = 30.0
PORTS = range(20_000, 32_000)
"""Below the ports that the kernel gives to clients."""

_prefixes = itertools.count()


class EtcdCluster:
    """Members are numbered from 0. A context manager; `start_etcd` makes one.

    Args:
        size: Members.
        arguments: More command line arguments for each.
    """

    def __init__(self, size: int = 1, arguments: Sequence[str] = ()) -> None:
        self.size = size
        self._arguments = tuple(arguments)
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self._directory = Path(tempfile.mkdtemp(prefix="etcd-", dir=base))
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._ports: list[tuple[int, int]] = []

    def __enter__(self) -> "EtcdCluster":
        for attempt in range(5):
            self._ports = [(_free_port(), _free_port()) for _ in range(self.size)]
            try:
                for number in range(self.size):
                    self.start(number)
                self.wait_until_healthy()
            except RuntimeError:  # a port was taken in the meantime
                self._end()
                if attempt == 4:
                    raise
            else:
                return self
        raise AssertionError

    def __exit__(self, *_: object) -> None:
        self._end()
        shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """ "host:port" of all members."""
        return tuple(f"127.0.0.1:{client}" for client, _ in self._ports)

    def start(self, number: int) -> None:
        """Start a member, with what it knew before."""
        client, peer = self._ports[number]
        scheme = "https" if any(a.startswith("--cert-file") for a in self._arguments) else "http"
        members = ",".join(f"m{n}=http://127.0.0.1:{p}" for n, (_, p) in enumerate(self._ports))
        command = [
            *(("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()),
            "etcd",
            f"--name=m{number}",
            f"--data-dir={self._directory}/{peer}",
            f"--listen-client-urls={scheme}://127.0.0.1:{client}",
            f"--advertise-client-urls={scheme}://127.0.0.1:{client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster={members}",
            f"--initial-cluster-token={self._directory.name}",
            "--heartbeat-interval=50",
            "--election-timeout=500",
            "--logger=zap",
            "--log-outputs=stderr",
            "--log-level=error",
            *self._arguments,
        ]
        with (self._directory / f"m{number}.log").open("ab") as log:
            self._processes[number] = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self, number: int) -> None:
        """End a member with SIGKILL."""
        process = self._processes[number]
        process.kill()
        process.wait()

    def freeze(self, number: int) -> None:
        """Stop a member; its connections stay open and silent."""
        self._processes[number].send_signal(signal.SIGSTOP)

    def thaw(self, number: int) -> None:
        """Let a frozen member go on."""
        self._processes[number].send_signal(signal.SIGCONT)

    def heal(self) -> None:
        """Let all go on and start those that were killed."""
        for number, process in self._processes.items():
            process.send_signal(signal.SIGCONT)
            if process.poll() is not None:
                self.start(number)
        self.wait_until_healthy()

    def fill(self) -> None:
        """Write until a single member takes no more; it needs a small `--quota-backend-bytes`."""
        number = 0
        while "error" not in self._post(
            0, "/v3/kv/put", {"key": _text("fill"), "value": _text("x" * 200_000)}
        ):
            number += 1
            assert number < 10_000, "etcd has no quota"

    def make_room(self) -> None:
        """Remove what `fill` wrote, and let the member take changes again."""
        answer = self._post(0, "/v3/kv/deleterange", {"key": _text("fill")})
        self._post(0, "/v3/kv/compaction", {"revision": answer["header"]["revision"], "physical": True})
        self._post(0, "/v3/maintenance/defragment")
        for alarm in self._post(0, "/v3/maintenance/alarm", {"action": "GET"}).get("alarms", ()):
            self._post(0, "/v3/maintenance/alarm", {**alarm, "action": "DEACTIVATE"})

    def leader(self) -> int:
        """The member that leads."""
        for number in range(self.size):
            status = self._post(number, "/v3/maintenance/status")
            if status and status.get("leader") == status["header"]["member_id"]:
                return number
        raise AssertionError("no member leads")

    def wait_until_healthy(self) -> None:
        """Wait until all members serve."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        waiting = set(range(self.size))
        while waiting:
            for number in tuple(waiting):
                if self._processes[number].poll() is not None:
                    log = (self._directory / f"m{number}.log").read_text()
                    raise RuntimeError(f"etcd ended: {log[-2000:]}")
                if self._is_healthy(number):
                    waiting.discard(number)
            if time.monotonic() > deadline_s:
                raise AssertionError(f"etcd was not healthy in time: {waiting}")
            time.sleep(0.02)

    def _is_healthy(self, number: int) -> bool:
        if any(a.startswith("--cert-file") for a in self._arguments):
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self._ports[number][0])) == 0
        status = self._post(number, "/v3/maintenance/status")
        return bool(status and status.get("leader"))

    def _post(self, number: int, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        data = json.dumps(body or {}).encode()
        request = urllib.request.Request(f"http://{self.endpoints[number]}{path}", data=data)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=10.0 if body else 1.0) as response:
                return dict(json.loads(response.read()))
        except urllib.error.HTTPError as error:
            return {"error": error.read().decode()}
        except (OSError, urllib.error.URLError, ValueError):
            return {}

    def _end(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._processes.clear()


def start_etcd(size: int = 1, arguments: Sequence[str] = ()) -> EtcdCluster:
    """A cluster to be entered; skips the test where there is no etcd."""
    if shutil.which("etcd") is None:
        pytest.skip("etcd is not installed, and nobody but root can: scripts/setup-etcd")
    return EtcdCluster(size, arguments)


def new_prefix() -> str:
    """A prefix that no other test uses."""
    return f"test-{os.getpid()}-{next(_prefixes)}/"


def _text(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _free_port() -> int:
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
