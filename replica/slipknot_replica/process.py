"""Replica processes of one machine: forked by the zygote, their output carried to the console, their end
noticed.
"""

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from slipknot_core.ids import posix_safe, short_id
from slipknot_core.lifeline import Lifeline
from slipknot_core.logs import completed_json
from slipknot_core.output import OutputPump, Tail
from slipknot_core.spec import ReplicaLaunch
from slipknot_proto.v1 import registry_pb2

from .node_session import OnExit
from .zygote import MAX_MESSAGE_BYTES

logger = logging.getLogger("slipknot.serve")

TAIL_BYTES = 8 * 1024
"""Last words of a replica that the controller gets."""

STATUS_WAIT_S = 0.2
"""Between the end of a process and the zygote's word on how it ended."""


class ZygoteLink:
    """The agent's end of the zygote; a zygote that dies is replaced at the next request."""

    def __init__(self, connection: socket.socket, lifeline: Lifeline) -> None:
        self._connection = connection
        self._lifeline = lifeline
        self._pids: dict[str, asyncio.Future[int]] = {}
        self.statuses: dict[int, int] = {}
        """Exit codes by pid, of processes that have ended; taken by whoever needs them."""

    def listen(self) -> None:
        """Take the zygote's messages on the running loop."""
        self._connection.setblocking(False)
        asyncio.get_running_loop().add_reader(self._connection.fileno(), self._on_readable)

    def close(self) -> None:
        """Let the zygote end."""
        with suppress(ValueError, OSError):
            asyncio.get_running_loop().remove_reader(self._connection.fileno())
        self._connection.close()
        self._lifeline.cut()

    async def fork(self, kind: str, fds: list[int], env: dict[str, str]) -> int:
        """Have a child forked; returns its pid. The descriptors stay the caller's.

        Raises:
            OSError: The zygote is not there, and could not be replaced.
        """
        request_id = short_id()
        data = json.dumps({"kind": kind, "id": request_id, "env": env}).encode()
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pids[request_id] = answer
        try:
            try:
                socket.send_fds(self._connection, [data], fds)
            except OSError:
                self._replace()
                socket.send_fds(self._connection, [data], fds)
            return await answer
        finally:
            self._pids.pop(request_id, None)

    def _replace(self) -> None:
        logger.warning("zygote_replaced")
        self.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lifeline = Lifeline()
        command = [sys.executable, "-P", "-m", "slipknot_replica.zygote"]
        subprocess.Popen(
            [*command, str(theirs.fileno()), str(self._lifeline.child_fd)],
            pass_fds=(theirs.fileno(), self._lifeline.child_fd),
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self._lifeline.handed_over()
        self._connection = ours
        self.listen()

    def _on_readable(self) -> None:
        try:
            data = self._connection.recv(MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._connection.fileno())
            for answer in self._pids.values():
                if not answer.done():
                    answer.set_exception(OSError("the zygote has died"))
            return
        message = json.loads(data)
        if "status" in message:
            self.statuses[message["pid"]] = message["status"]
            return
        waiting = self._pids.get(message["id"])
        if waiting is not None and not waiting.done():
            waiting.set_result(message["pid"])


@dataclass(eq=False, slots=True)
class ReplicaProcess:
    """One child."""

    pid: int
    pidfd: int
    lifeline: Lifeline
    tail: Tail
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    kill_timer: asyncio.TimerHandle | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all replicas of a node have in common."""

    controller_address: str
    """As this node reaches it."""
    socket_dir: str = ""
    listen_host: str = ""
    advertise_host: str = ""
    metrics_dir: str = ""
    """Where replicas show their metrics to this node; empty: nobody looks."""
    logging_json: str = ""
    """Of deployments that have none of their own."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that no application may change."""
    refuse_pickle: bool = False

    def complete(self, launch: ReplicaLaunch) -> ReplicaLaunch:
        """The launch of a replica on this node."""
        spec = launch.deployment
        return replace(
            launch,
            deployment=replace(
                spec, logging_config_json=completed_json(spec.logging_config_json, self.logging_json)
            ),
            controller_address=self.controller_address,
            socket_dir=self.socket_dir,
            listen_host=self.listen_host,
            advertise_host=self.advertise_host,
            refuse_pickle=self.refuse_pickle or launch.refuse_pickle,
            metrics_dir=self.metrics_dir,
        )


class ProcessMachine:
    """A `Machine` whose replicas are processes. Belongs to the loop of `open`; `repr` tells how many there
    are.
    """

    def __init__(self, zygote: ZygoteLink, pump: OutputPump, here: Surroundings, on_exit: OnExit) -> None:
        self._zygote = zygote
        self._pump = pump
        self._here = here
        self._on_exit = on_exit
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._stop_once_started: dict[str, float] = {}
        self._processes: dict[str, ReplicaProcess] = {}
        self._is_stopping = False

    def __repr__(self) -> str:
        return f"<ProcessMachine: {len(self._processes)} processes>"

    def replica_ids(self) -> list[str]:
        """Those that run or start."""
        return [*self._processes, *self._starting]

    def start_replica(self, launch: ReplicaLaunch) -> None:
        """Start one; one that runs already is left alone."""
        replica_id = launch.replica_id
        if self._is_stopping or replica_id in self._processes or replica_id in self._starting:
            return
        task = asyncio.get_running_loop().create_task(self._start(launch), name=f"start {replica_id}")
        self._starting[replica_id] = task
        task.add_done_callback(lambda _: self._started(replica_id))

    def stop_replica(self, replica_id: str, grace_s: float) -> None:
        """Ask one to end, and force it after `grace_s`; 0 forces it at once."""
        process = self._processes.get(replica_id)
        if process is None:
            if replica_id in self._starting:
                self._stop_once_started[replica_id] = grace_s
            return
        if grace_s <= 0:
            _kill_group(process.pid)
            return
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        if process.kill_timer is None:
            process.kill_timer = asyncio.get_running_loop().call_later(grace_s, _kill_group, process.pid)

    async def build(self, command: registry_pb2.BuildApplication) -> registry_pb2.BuildResult:
        """Build an application in a child of its own."""
        read_fd, write_fd = os.pipe()
        lifeline = Lifeline()
        with _file_of(command.SerializeToString()) as file:
            fds = [file.fileno(), 1, 2, lifeline.child_fd, write_fd]
            env = dict(command.source.env_vars)
            try:
                pid = await self._zygote.fork("build", fds, env)
            finally:
                os.close(write_fd)
                lifeline.handed_over()
        try:
            data = await asyncio.wait_for(asyncio.to_thread(_read_all, read_fd), command.timeout_s or 60.0)
        except TimeoutError:
            _kill_group(pid)
            return registry_pb2.BuildResult(
                build_id=command.build_id, error=f"The build did not end within {command.timeout_s:g} s."
            )
        finally:
            lifeline.cut()
        if not data:
            return registry_pb2.BuildResult(
                build_id=command.build_id,
                error=f"The builder process {pid} ended without a result; see the log.",
            )
        return registry_pb2.BuildResult.FromString(data)

    async def stop(self, grace_s: float) -> None:
        """End all, and start none any more."""
        self._is_stopping = True
        await asyncio.gather(*self._starting.values(), return_exceptions=True)
        for replica_id in tuple(self._processes):
            self.stop_replica(replica_id, grace_s)
        while self._processes:
            await next(iter(self._processes.values())).ended.wait()

    # --- inside -------------------------------------------------------------------------------------

    def _started(self, replica_id: str) -> None:
        self._starting.pop(replica_id, None)
        grace_s = self._stop_once_started.pop(replica_id, None)
        if grace_s is not None:
            self.stop_replica(replica_id, grace_s)

    async def _start(self, launch: ReplicaLaunch) -> None:
        launch = self._here.complete(launch)
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        lifeline = Lifeline()
        source = launch.deployment.code.import_source
        env = {**(source.env_vars if source else {}), **self._here.environment}
        try:
            with _file_of(launch.to_proto().SerializeToString()) as file:
                fds = [file.fileno(), out_write, err_write, lifeline.child_fd]
                pid = await self._zygote.fork("replica", fds, env)
        except OSError as error:
            for fd in (out_read, err_read):
                os.close(fd)
            lifeline.cut()
            self._on_exit(launch.replica_id, 1, f"the process could not be started: {error}")
            return
        finally:
            os.close(out_write)
            os.close(err_write)
            lifeline.handed_over()
        process = ReplicaProcess(pid, os.pidfd_open(pid), lifeline, Tail(TAIL_BYTES))
        self._processes[launch.replica_id] = process
        prefix = (
            f"(ServeReplica:{posix_safe(launch.app_name)}_{posix_safe(launch.deployment.name)} pid={pid}) "
        )
        self._pump.add(out_read, stream=1, prefix=prefix)
        self._pump.add(err_read, stream=2, prefix=prefix, tail=process.tail)
        loop = asyncio.get_running_loop()
        loop.add_reader(process.pidfd, self._ended, launch.replica_id, process)

    def _ended(self, replica_id: str, process: ReplicaProcess) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(process.pidfd)
        os.close(process.pidfd)
        process.lifeline.cut()
        if process.kill_timer is not None:
            process.kill_timer.cancel()
        _kill_group(process.pid)  # what it has started must not outlive it
        if process.pid in self._zygote.statuses:
            self._report(replica_id, process)
        else:
            loop.call_later(STATUS_WAIT_S, self._report, replica_id, process)

    def _report(self, replica_id: str, process: ReplicaProcess) -> None:
        self._processes.pop(replica_id, None)
        status = self._zygote.statuses.pop(process.pid, -signal.SIGKILL)
        logger.log(
            logging.INFO if status == 0 else logging.WARNING,
            "replica_exited %s (pid %d, exit status %d)",
            replica_id,
            process.pid,
            status,
        )
        self._on_exit(replica_id, status, process.tail.text() if status else "")
        process.ended.set()


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _file_of(data: bytes) -> "tempfile._TemporaryFileWrapper[bytes]":
    """An unnamed file at its beginning."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    file.write(data)
    file.flush()
    file.seek(0)
    return file  # type: ignore[return-value]


def _read_all(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as file:
        return file.read()
