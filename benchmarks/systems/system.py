"""What a system is to the benchmarks, and one that runs."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..applications import journal
from .processes import MARKER, ProcessSet

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = sys.executable


class DidNotStart(Exception):
    """The system gave no 200; the message says what it logged last."""


@dataclass(frozen=True)
class Command:
    """One process to start."""

    arguments: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int | None = None
    """A port that must accept connections before the next command is started."""


@dataclass(frozen=True)
class Setting:
    """Where a system is to listen, and with what it may play."""

    port: int
    directory: Path
    """For config files and logs; of this start alone."""
    options: Mapping[str, object]
    """Of the application: `request_timeout_s`, `num_replicas`."""


class System(Protocol):
    """A way to serve the applications."""

    name: str
    start_within_s: float
    end_within_s: float

    def missing(self) -> str | None:
        """Why it cannot run here, and what to install; None if it can."""

    def applications(self) -> frozenset[str]:
        """Names of the applications that it can serve."""

    def commands(self, application: str, setting: Setting) -> list[Command]:
        """What to start, in this order."""

    def ready_path(self, application: str) -> str:
        """A path that gives 200 on GET once the application serves."""


class Running:
    """A started system."""

    def __init__(
        self,
        system: System,
        application: str,
        directory: Path,
        options: Mapping[str, object] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.system = system
        self.application = application
        self.host = "127.0.0.1"
        self.port = free_port()
        self.start_s = 0.0
        """From the start of the first process to the first 200."""
        self.options = options or {}
        mark = uuid.uuid4().hex
        self._directory = directory / f"{system.name}-{application}-{mark[:6]}"
        self._directory.mkdir(parents=True)
        self.journal_path = self._directory / "journal"
        self.processes = ProcessSet(mark)
        self._environment = {MARKER: mark, journal.VARIABLE: str(self.journal_path)} | dict(environment or {})
        self._children: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return f"http://{self.host}:{self.port}"

    @property
    def directory(self) -> Path:
        """Where its files are, with those of other systems of the run beside it."""
        return self._directory

    @property
    def log_path(self) -> Path:
        """What all its processes print."""
        return self._directory / "log"

    def journal(self) -> journal.Journal:
        """What the application notes from now on."""
        return journal.Journal(self.journal_path)

    def start(self) -> None:
        """Start it and wait until it serves.

        Raises:
            DidNotStart: It did not, or not in time; nothing of it is left.
        """
        setting = Setting(self.port, self._directory, self.options)
        begun_s = time.monotonic()
        until_s = begun_s + self.system.start_within_s
        try:
            for command in self.system.commands(self.application, setting):
                self._spawn(command)
                if command.port is not None:
                    self._wait_for_port(command.port, until_s)
            path = self.system.ready_path(self.application)
            self._wait(until_s, lambda: status(self.port, path) == 200)
        except BaseException:
            self.stop()
            raise
        self.start_s = time.monotonic() - begun_s

    def add(self, command: Command) -> None:
        """Start one more process that ends with the system; wait until its port accepts connections."""
        self._spawn(command)
        if command.port is not None:
            self._wait_for_port(command.port, time.monotonic() + self.system.start_within_s)

    def stop(self) -> int:
        """End it with all its processes; return how many did not go by themselves."""
        self.processes.look()
        for child in reversed(self._children):
            if child.poll() is None:
                child.send_signal(signal.SIGINT)
        for child in self._children:
            try:
                child.wait(self.system.end_within_s)
            except subprocess.TimeoutExpired:
                break
        killed = self.processes.end(self.system.end_within_s if self._children else 0.0)
        for child in self._children:
            child.wait()
        self._children.clear()
        return killed

    def _spawn(self, command: Command) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        environment |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        environment |= self._environment | dict(command.environment)
        with self.log_path.open("ab") as log:
            log.write(f"$ {shlex.join(command.arguments)}\n".encode())
            log.flush()
            self._children.append(
                subprocess.Popen(
                    command.arguments,
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    def _wait_for_port(self, port: int, until_s: float) -> None:
        self._wait(until_s, lambda: _accepts(port))

    def _wait(self, until_s: float, is_there: Callable[[], bool]) -> None:
        while not is_there():
            ended = [child for child in self._children if child.poll() is not None]
            if ended or time.monotonic() > until_s:
                why = f"exit status {ended[0].returncode}" if ended else "not in time"
                raise DidNotStart(f"{self.system.name} did not start ({why}): {self._last_words()}")
            time.sleep(0.005)

    def _last_words(self) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines()
        return " | ".join(lines[-5:])[-600:]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def status(port: int, path: str, timeout_s: float = 2.0) -> int | None:
    """Of the answer to a GET; None if there was none."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout_s) as connection:
            request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
            connection.sendall(request.encode())
            return int(connection.recv(4096)[9:12])
    except (OSError, ValueError):
        return None


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 2.0).close()
    except OSError:
        return False
    return True
