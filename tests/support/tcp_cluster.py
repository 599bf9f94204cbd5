"""A cluster as it runs on several machines: each role a process of its own, TCP between them, credentials.

The nodes pretend to be machines: node i listens on 127.0.0.(i+1). Use it as a context manager; within it,
`serve.run` and handles of this process go to this cluster.

    with TcpCluster(tmp_path, nodes=2) as cluster:
        serve.run(app)
        cluster.nodes[0].kill()
        cluster.nodes[0].start()
"""

import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from slipknot import _connection
from slipknot_core.lifeline import Lifeline
from slipknot_core.role_environment import ROLE_ENVIRONMENT
from slipknot_core.rpc.credentials import Credentials

READY_TIMEOUT_S = 40.0
STOP_TIMEOUT_S = 20.0
CONTROLLER, NODE, PROXY = "slipknot_controller", "slipknot_replica.node_main", "slipknot_proxy"


class Role:
    """One process of the cluster. It dies with this one; what it writes is in `log`.

    Args:
        module: What `python -m` runs.
        config: Its options; the descriptors are added here.
        log: File for its output.
        environment: Variables on top of this process's own.
    """

    def __init__(
        self, module: str, config: Mapping[str, Any], log: Path, environment: Mapping[str, str]
    ) -> None:
        self.config = dict(config)
        self.log = log
        self.ready_line = ""
        self._module = module
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: Lifeline | None = None

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def start(self, *, wait: bool = True) -> Self:
        """Start it (again), and wait until it says that it is ready."""
        lifeline = self._lifeline = Lifeline()
        ready_read, ready_write = os.pipe()
        config = self.config | {"lifeline_fd": lifeline.child_fd, "ready_fd": ready_write}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", self._module, "--config-json", json.dumps(config)],
                pass_fds=[lifeline.child_fd, ready_write],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={
                    "GRPC_VERBOSITY": "NONE",
                    **ROLE_ENVIRONMENT,
                    **os.environ,
                    **self._environment,
                    "PYTHONUNBUFFERED": "1",
                },
            )
        os.close(ready_write)
        lifeline.handed_over()
        if wait:
            self.ready_line = self._read_ready(ready_read)
        os.close(ready_read)
        return self

    def kill(self) -> None:
        """SIGKILL; the replicas of a node die with it."""
        self.signal(signal.SIGKILL)
        self._wait()

    def terminate(self) -> int:
        """SIGTERM, and its exit status."""
        self.signal(signal.SIGTERM)
        return self._wait()

    def signal(self, number: int) -> None:
        """Send a signal, for example SIGSTOP."""
        assert self._process is not None
        self._process.send_signal(number)

    def end(self) -> None:
        """Let it end, and force it to if it does not; twice and before `start` is fine."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        self._wait()

    def _wait(self) -> int:
        assert self._process is not None and self._lifeline is not None
        try:
            return self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            self._lifeline.cut()

    def _read_ready(self, fd: int) -> str:
        text, deadline_s = b"", time.monotonic() + READY_TIMEOUT_S
        while not text.endswith(b"\n"):
            is_readable = select.select([fd], [], [], max(0.0, deadline_s - time.monotonic()))[0]
            chunk = os.read(fd, 4096) if is_readable else b""
            assert chunk, f"{self._module} did not become ready:\n{self.log.read_text()[-4000:]}"
            text += chunk
        return text.decode().strip()


class TcpCluster:
    """Controller, nodes and proxies. Entering starts all of them; `repr` tells where the controller is.

    Args:
        directory: For logs and the controller's state.
        controllers: How many; several need an etcd store in `controller_options`.
        nodes: How many node agents.
        proxies: How many proxies.
        credentials: Of all roles and of this process; a token is made if None.
        controller_options: Added to the controller's options.
        node_options: Added to those of each node.
        proxy_options: Added to those of each proxy.
        environment: Variables of all roles.
    """

    def __init__(
        self,
        directory: Path,
        *,
        controllers: int = 1,
        nodes: int = 2,
        proxies: int = 1,
        credentials: Credentials | None = None,
        controller_options: Mapping[str, Any] | None = None,
        node_options: Mapping[str, Any] | None = None,
        proxy_options: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.credentials = Credentials(secrets.token_urlsafe()) if credentials is None else credentials
        self.addresses = [f"127.0.0.1:{free_port()}" for _ in range(controllers)]
        self.address = ",".join(self.addresses)
        self._directory = directory
        self._environment = {**self.credentials.environment(), **(environment or {})}
        store = {"kind": "sqlite", "path": str(directory / "state.db")}
        options = {"store": store, **(controller_options or {})}
        self.controllers = [
            self.role(CONTROLLER, f"controller-{i}", {"address": address, **options})
            for i, address in enumerate(self.addresses)
        ]
        self.controller = self.controllers[0]
        self.nodes = [
            self.role(NODE, f"node-{i}", self.node_config(i) | dict(node_options or {})) for i in range(nodes)
        ]
        self.proxies = [
            self.role(PROXY, f"proxy-{i}", self.proxy_config(i) | dict(proxy_options or {}))
            for i in range(proxies)
        ]
        self._before: _connection.Connection | None = None

    def __repr__(self) -> str:
        return f"<TcpCluster at {self.address}>"

    def __enter__(self) -> Self:
        try:
            for controller in self.controllers:
                controller.start()
            others = [*self.nodes, *self.proxies]
            for role in others:
                role.start()
            self._before = _connection.install(None)
            _connection.connect(self.address, self.credentials)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def roles(self) -> list[Role]:
        """In the order in which they end: the controller before the nodes, or it would replace replicas."""
        return [*self.proxies, *self.controllers, *self.nodes]

    @property
    def urls(self) -> list[str]:
        """HTTP of each proxy."""
        return [f"http://{proxy.ready_line.split()[1]}" for proxy in self.proxies]

    @property
    def url(self) -> str:
        """HTTP of the first proxy."""
        return self.urls[0]

    def role(self, module: str, name: str, config: Mapping[str, Any]) -> Role:
        """Make another process of this cluster; whoever makes it starts and ends it."""
        return Role(module, config, self._directory / f"{name}.log", self._environment)

    def node_config(self, index: int) -> dict[str, Any]:
        """Options of the node with this number."""
        host = f"127.0.0.{index + 1}"
        return {
            "controller_address": self.address,
            "node_id": f"node-{index}",
            "listen_host": host,
            # Once a name, else addresses: what others are told need not be what is listened on.
            "advertise_host": "localhost" if index == 0 else host,
        }

    def proxy_config(self, index: int) -> dict[str, Any]:
        """Options of the proxy with this number."""
        return {
            "controller_address": self.address,
            "proxy_id": f"proxy-{index}",
            "port": 0,
            "gateway_port": 0,
        }

    def stop(self) -> None:
        """End everything; twice is fine."""
        connection = _connection.install(self._before)
        if connection is not None and connection is not self._before:
            connection.close()
        self._before = None
        for role in self.roles:
            role.end()

    def logs(self) -> str:
        """The ends of all logs, for the message of a failed test."""
        files = sorted(self._directory.glob("*.log"))
        return "\n".join(f"--- {file.name}\n{file.read_text()[-2000:]}" for file in files)


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now."""
    with socket.create_server((host, 0)) as free:
        port: int = free.getsockname()[1]
        return port
