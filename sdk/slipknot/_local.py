"""A cluster on this machine: controller, node agent and proxy as child processes, watched and replaced.

Whoever starts it is its parent: the children hold lifelines and die with it, even when it is killed. A child
that dies by itself is started again at the same address: the HTTP port stays open meanwhile, because the
listening socket belongs to the parent, and requests that come wait in its backlog. The controller ends with
status 0 when it was told to shut the cluster down (`slipknot shutdown`): then everything ends.
"""

import json
import logging
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any

from slipknot_core.ids import short_id
from slipknot_core.lifeline import Lifeline
from slipknot_core.output import OutputPump, Tail
from slipknot_core.role_environment import ROLE_ENVIRONMENT
from slipknot_core.runtime_dir import ClusterInfo, RuntimeDir

from ._cluster_options import DEFAULT_GATEWAY_PORT, ClusterOptions, from_json, to_json
from ._console import write_console

logger = logging.getLogger("slipknot.serve")

START_TIMEOUT_S = 30.0
"""For all children to be ready."""

STOP_TIMEOUT_S = 25.0
"""For a child to end by itself; longer than the usual drain of a replica (20 s)."""

FIRST_RESTART_DELAY_S = 0.0
MAX_RESTART_DELAY_S = 5.0
STABLE_AFTER_S = 10.0
"""A child that lived so long is started again at once."""

METRICS_PORT_OFFSETS = {"proxy": 0, "controller": 1, "node": 2}

BACKLOG = 2048


class LocalCluster:
    """The three children. `repr` tells where they are.

    Args:
        options: Of the cluster.
        is_detached: Commands without an address are for it, before those of running programs.
    """

    def __init__(self, options: ClusterOptions, *, is_detached: bool = False) -> None:
        self._options = options
        self._is_detached = is_detached
        self._runtime_dir: RuntimeDir | None = None
        self._socket: socket.socket | None = None
        self._pump: OutputPump | None = None
        self._children: dict[str, Child] = {}
        self._info: ClusterInfo | None = None
        self._ended = threading.Event()

    def __repr__(self) -> str:
        return f"<LocalCluster {self._info.http_address if self._info else 'not started'}>"

    def start(self) -> ClusterInfo:
        """Start all children and wait until they are ready.

        Raises:
            OSError: The HTTP port is taken, or the host is not one of this machine's.
            RuntimeError: A child did not come up; the message has its last words.
        """
        self._socket = _listen(self._options.http) if self._options.with_proxy else None
        try:
            self._runtime_dir = RuntimeDir.create()
            self._pump = OutputPump(write_console)
            self._pump.start()
            self._start_children(self._runtime_dir, self._pump)
            deadline_s = time.monotonic() + START_TIMEOUT_S
            words = {name: child.wait_ready(deadline_s) for name, child in self._children.items()}
        except BaseException:
            self.stop()
            raise
        http_address, gateway_address = (
            [*words["proxy"].split(), "", ""][1:3] if "proxy" in words else ("", "")
        )
        self._info = ClusterInfo(
            controller_address=self._runtime_dir.address("controller.sock"),
            http_address=http_address,
            gateway_address="" if gateway_address == "-" else gateway_address,
            runtime_dir=str(self._runtime_dir.path),
            launcher_pid=os.getpid(),
            is_detached=self._is_detached,
        )
        self._runtime_dir.publish(self._info)
        return self._info

    def stop(self) -> None:
        """End all children, each given time to finish; twice is fine."""
        for child in self._children.values():
            child.retire()
        # The controller before the node: it would replace the replicas that the node ends.
        for name in ("proxy", "controller", "node"):
            if name in self._children:
                self._children[name].terminate(STOP_TIMEOUT_S)
        if self._pump is not None:
            self._pump.stop()
        if self._socket is not None:
            self._socket.close()
        if self._runtime_dir is not None:
            self._runtime_dir.remove()
        self._ended.set()

    def is_running(self) -> bool:
        """It has been started and has not ended."""
        return self._info is not None and not self._ended.is_set()

    def wait(self) -> None:
        """Wait until the cluster has been shut down."""
        self._ended.wait()
        self.stop()

    # --- inside -------------------------------------------------------------------------------------

    def _start_children(self, runtime_dir: RuntimeDir, pump: OutputPump) -> None:
        node_id = f"node-{short_id(6)}"
        address = runtime_dir.address("controller.sock")

        def common(name: str) -> dict[str, Any]:
            admin = self._admin_address(name, runtime_dir)
            return {"logging_json": self._options.logging_json, "admin_address": admin}

        configs: dict[str, tuple[str, dict[str, Any]]] = {
            "controller": (
                "slipknot_controller",
                {
                    "address": address,
                    "store": {"kind": "sqlite", "path": str(runtime_dir.path / "state.db")},
                    "embedded": True,
                    **common("controller"),
                },
            ),
            "node": (
                "slipknot_replica.node_main",
                {
                    "controller_address": address,
                    "node_id": node_id,
                    "socket_dir": str(runtime_dir.subdirectory("r")),
                    # A laptop runs more replicas than it has CPUs, unless somebody wants them counted.
                    "num_cpus": math.inf,
                    **_node_offer(),
                    **common("node"),
                },
            ),
        }
        if self._socket is not None:
            configs["proxy"] = ("slipknot_proxy", self._proxy_config(address, node_id) | common("proxy"))
        tracing = self._options.tracing_settings
        environment = {} if tracing is None else tracing.environment()
        for name, (module, config) in configs.items():
            inherited = self._socket if name == "proxy" else None
            self._children[name] = Child(
                name,
                module,
                config,
                pump,
                inherited=inherited,
                on_shut_down=self._child_shut_down,
                environment=environment,
            )
        for child in self._children.values():
            child.start()

    def _admin_address(self, name: str, runtime_dir: RuntimeDir) -> str:
        first = self._options.metrics_port
        if first is None:
            return runtime_dir.address(f"{name}-admin.sock")
        return f"127.0.0.1:{first + METRICS_PORT_OFFSETS[name]}"

    def _proxy_config(self, address: str, node_id: str) -> dict[str, Any]:
        assert self._socket is not None
        from slipknot_proxy.config import ProxyConfig

        names = {field.name for field in fields(ProxyConfig)}
        http = {key: value for key, value in self._options.http.items() if key in names}
        port = self._options.gateway_port
        return http | {
            "controller_address": address,
            "listen_fd": self._socket.fileno(),
            "port": self._socket.getsockname()[1],
            "gateway_port": DEFAULT_GATEWAY_PORT if port is None else port,
            "gateway_port_may_change": port is None,
            "node_id": node_id,
        }

    def _child_shut_down(self) -> None:
        """The controller has ended the cluster (called in a watching thread)."""
        for child in self._children.values():
            child.retire()
        self._ended.set()


class Child:
    """One child process and the thread that watches it."""

    def __init__(
        self,
        name: str,
        module: str,
        config: dict[str, Any],
        pump: OutputPump,
        *,
        inherited: socket.socket | None,
        on_shut_down: Callable[[], None],
        environment: Mapping[str, str],
    ) -> None:
        self._name = name
        self._module = module
        self._config = config
        self._pump = pump
        self._inherited = inherited
        self._on_shut_down = on_shut_down
        self._environment = environment
        self._is_retired = False
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: Lifeline | None = None
        self._ready_fd = -1
        self._tail = Tail(8192)
        self._drained = threading.Event()

    def __repr__(self) -> str:
        return f"<Child {self._name} pid={self._process.pid if self._process else None}>"

    def start(self) -> None:
        """Start the process and watch it."""
        self._spawn()
        threading.Thread(target=self._watch, name=f"watch-{self._name}", daemon=True).start()

    def wait_ready(self, deadline_s: float) -> str:
        """Wait for the line that it writes when it is ready.

        Raises:
            RuntimeError: It has ended, or has not come so far in time.
        """
        os.set_blocking(self._ready_fd, False)
        text = b""
        while not text.endswith(b"\n"):
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not _wait_readable(self._ready_fd, left_s):
                raise RuntimeError(f"the {self._name} was not ready in time")
            chunk = os.read(self._ready_fd, 4096)
            if not chunk:
                self._drained.wait(1.0)
                raise RuntimeError(f"the {self._name} did not start:\n{self._tail.text().rstrip()}")
            text += chunk
        os.close(self._ready_fd)
        self._ready_fd = -1
        line = text.decode().strip()
        if self._name == "proxy" and not line.endswith(" -"):
            self._config["gateway_port"] = int(line.rpartition(":")[2])  # the same one after a restart
        return line

    def retire(self) -> None:
        """Do not start it again."""
        with self._lock:
            self._is_retired = True

    def terminate(self, timeout_s: float) -> None:
        """Ask it to end, and force it after `timeout_s`."""
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            logger.warning("%s_killed: it did not end within %.0f s", self._name, timeout_s)
            process.kill()
            process.wait()
        if self._lifeline is not None:
            self._lifeline.cut()

    # --- inside -------------------------------------------------------------------------------------

    def _spawn(self) -> None:
        lifeline = Lifeline()
        ready_read, ready_write = os.pipe()
        config = self._config | {"lifeline_fd": lifeline.child_fd, "ready_fd": ready_write}
        fds = [lifeline.child_fd, ready_write]
        if self._inherited is not None:
            fds.append(self._inherited.fileno())
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", self._module, "--config-json", json.dumps(config)],
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C in the console is for the parent, which then ends its children in order.
            start_new_session=True,
            env={
                "GRPC_VERBOSITY": "NONE",
                **ROLE_ENVIRONMENT,
                **os.environ,
                "PYTHONUNBUFFERED": "1",
                **self._environment,
            },
        )
        os.close(ready_write)
        lifeline.handed_over()
        if self._ready_fd >= 0:
            os.close(self._ready_fd)
        self._process, self._lifeline, self._ready_fd = process, lifeline, ready_read
        assert process.stdout is not None and process.stderr is not None
        prefix = "" if self._name == "node" else f"({self._name.capitalize()} pid={process.pid}) "
        self._pump.add(os.dup(process.stdout.fileno()), stream=1, prefix=prefix)
        self._pump.add(
            os.dup(process.stderr.fileno()),
            stream=2,
            prefix=prefix,
            tail=self._tail,
            on_end=self._drained.set,
        )
        process.stdout.close()
        process.stderr.close()

    def _watch(self) -> None:
        delay_s = FIRST_RESTART_DELAY_S
        while True:
            started_s = time.monotonic()
            process, lifeline = self._process, self._lifeline
            assert process is not None and lifeline is not None
            status = process.wait()
            with self._lock:
                if self._is_retired:
                    return
            if self._name == "controller" and status == 0:
                self._on_shut_down()
                return
            lifeline.cut()
            logger.warning("%s_restarted: it ended with status %d", self._name, status)
            if time.monotonic() - started_s > STABLE_AFTER_S:
                delay_s = FIRST_RESTART_DELAY_S
            time.sleep(delay_s)
            delay_s = min(max(delay_s * 2, 0.2), MAX_RESTART_DELAY_S)
            with self._lock:
                if self._is_retired:
                    return
                self._spawn()


def start_detached(options: ClusterOptions) -> ClusterInfo:
    """Start a cluster whose parent is a background process: it goes on when this one ends.

    Raises:
        RuntimeError: It did not come up; the message has its last words.
    """
    read_fd, write_fd = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "slipknot._local", to_json(options), str(write_fd)],
        pass_fds=(write_fd,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    os.close(write_fd)
    with os.fdopen(read_fd) as file:
        text = file.read()
    if not text:
        assert process.stderr is not None
        words = process.stderr.read().decode(errors="replace").strip()
        raise RuntimeError(words.rpartition("\n")[2] or "the cluster did not start")
    return ClusterInfo(**json.loads(text))


def main() -> None:
    """Be the parent of a detached cluster: `python -m slipknot._local OPTIONS_JSON READY_FD`."""
    import signal
    from dataclasses import asdict

    cluster = LocalCluster(from_json(sys.argv[1]), is_detached=True)
    info = cluster.start()
    with os.fdopen(int(sys.argv[2]), "w") as file:
        file.write(json.dumps(asdict(info)))
    null_fd = os.open(os.devnull, os.O_RDWR)
    os.dup2(null_fd, 2)
    signal.signal(signal.SIGTERM, lambda *_: cluster._ended.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cluster.wait()


def _listen(http: dict[str, Any]) -> socket.socket:
    host, port = http.get("host", "127.0.0.1"), int(http.get("port", 8000))
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        with suppress(UnboundLocalError):
            listening.close()
        raise OSError(
            error.errno,
            f"cannot listen on {host}:{port}: {error.strerror or error}. "
            'Choose another one with serve.start(http_options={"host": …, "port": …}), or end what uses it',
        ) from error
    listening.set_inheritable(True)
    return listening


def _node_offer(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What the environment says that this machine offers, as `NodeConfig` names it."""
    names = ("num_cpus", "num_gpus", "memory_bytes", "resources", "labels")
    variables = {f"SLIPKNOT_NODE_{name.upper()}" for name in names}
    given = {key: value for key, value in environ.items() if key in variables}
    if not given:
        return {}
    from slipknot_core.role_options import read_config_json
    from slipknot_replica.node_main import NodeConfig

    values: dict[str, Any] = json.loads(read_config_json("node", NodeConfig, [], environ=given))
    return values


def _wait_readable(fd: int, timeout_s: float) -> bool:
    import select

    return bool(select.select([fd], [], [], timeout_s)[0])


if __name__ == "__main__":
    main()
