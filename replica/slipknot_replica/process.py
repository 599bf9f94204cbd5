"""Replica processes of one machine: forked by the supervisor, their output carried to the console, their end
noticed. Those that an earlier agent has started are taken over.
"""

import asyncio
import base64
import json
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from slipknot_core.archive import ArchiveError
from slipknot_core.ids import posix_safe, short_id
from slipknot_core.lifeline import Lifeline
from slipknot_core.logs import completed_json
from slipknot_core.output import OutputPump, Tail
from slipknot_core.spec import ImportSource, ReplicaLaunch
from slipknot_core.tasks import TaskOwner
from slipknot_proto.v1 import registry_pb2

from .archives import ArchiveCache
from .node_session import OnExit, held_by, stop_grace_s
from .supervisor import MAX_FDS, MAX_MESSAGE_BYTES, Child

logger = logging.getLogger("slipknot.serve")

TAIL_BYTES = 8 * 1024
"""Last words of a replica that the controller gets."""

LAST_WORDS_S = 0.2
"""Between the end of a process and the end of its output."""
BUILD_TIMEOUT_S = 60.0
"""For a build whose command does not say."""
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"


class SupervisorLink:
    """The agent's end of the supervisor. `on_ended` is called with the pid and exit status of each child that
    has ended.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.on_ended: Callable[[int, int], None] = lambda _pid, _status: None
        self._connection = connection
        self._answers: dict[str, asyncio.Future[tuple[int, list[int]]]] = {}
        self._turn = asyncio.Lock()

    def listen(self) -> None:
        """Take the supervisor's messages on the running loop."""
        self._connection.setblocking(False)
        asyncio.get_running_loop().add_reader(self._connection.fileno(), self._on_readable)

    def close(self) -> None:
        """Take none any more; twice is fine."""
        with suppress(ValueError, OSError):
            asyncio.get_running_loop().remove_reader(self._connection.fileno())
        self._connection.close()

    def say_ready(self) -> None:
        """The node has joined."""
        self._connection.send(json.dumps({"kind": "ready"}).encode())

    async def fork(
        self, kind: str, fds: Sequence[int], env: Mapping[str, str], directory: str = "", **more: object
    ) -> tuple[int, list[int]]:
        """Have a child forked; returns its pid and the read ends of its output. `fds` stay the caller's.

        Raises:
            OSError: It could not be forked.
        """
        request_id = short_id()
        request = {"kind": kind, "id": request_id, "env": dict(env), "directory": directory, **more}
        answer: asyncio.Future[tuple[int, list[int]]] = asyncio.get_running_loop().create_future()
        self._answers[request_id] = answer
        async with self._turn:  # one by one, so that neither end's buffer ever fills up
            try:
                socket.send_fds(self._connection, [json.dumps(request).encode()], list(fds))
                return await answer
            finally:
                del self._answers[request_id]

    def _on_readable(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._connection, MAX_MESSAGE_BYTES, MAX_FDS)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        if not data:  # the supervisor has died, and this process is about to
            asyncio.get_running_loop().remove_reader(self._connection.fileno())
            return
        message = json.loads(data)
        if "status" in message:
            self.on_ended(message["pid"], message["status"])
            return
        waiting = self._answers.get(message["id"])
        if waiting is None or waiting.done():
            for fd in fds:
                os.close(fd)
        elif "error" in message:
            waiting.set_exception(OSError(message["error"]))
        else:
            waiting.set_result((message["pid"], fds))


@dataclass(eq=False, slots=True)
class ReplicaProcess:
    """One child."""

    pid: int
    held: registry_pb2.HeldReplica
    tail: Tail
    words_ended: asyncio.Event = field(default_factory=asyncio.Event)
    """All that it wrote to standard error has been read."""
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

    def variables(self, source: ImportSource | None, launch: ReplicaLaunch | None = None) -> dict[str, str]:
        """Environment of a replica or, without a launch, of a builder of such an application."""
        variables = dict(source.env_vars) if source else {}
        if launch is not None:
            variables |= launch.deployment.env_vars
            if launch.gpu_ids:
                variables[VISIBLE_GPUS] = ",".join(launch.gpu_ids)
        return {**variables, **self.environment}


class ProcessMachine:
    """A `Machine` whose replicas are processes. Belongs to one loop; `repr` tells how many there are."""

    def __init__(
        self,
        supervisor: SupervisorLink,
        pump: OutputPump,
        here: Surroundings,
        on_exit: OnExit,
        archives: ArchiveCache,
    ) -> None:
        self._supervisor = supervisor
        self._pump = pump
        self._here = here
        self._on_exit = on_exit
        self._archives = archives
        self._tasks = TaskOwner("replica processes")
        self._held: dict[str, registry_pb2.HeldReplica] = {}
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._processes: dict[int, ReplicaProcess] = {}
        self._builders: set[int] = set()
        self._early: dict[int, int] = {}
        """Exit codes of children that ended before it was known whose they are."""
        self._unwanted: dict[str, float] = {}
        """Replicas that are to be stopped as soon as they have been started, with their grace."""
        self._is_stopping = False
        supervisor.on_ended = self._ended

    def __repr__(self) -> str:
        return f"<ProcessMachine: {len(self._processes)} processes>"

    def take_over(self, children: Sequence[Child]) -> None:
        """Watch what an earlier agent has started, and carry on its output."""
        for child in children:
            held = registry_pb2.HeldReplica.FromString(base64.b64decode(child.note))
            if held.archive:
                self._archives.keep(held.archive)
            process = self._watch(child.pid, held, child.stdout_fd, child.stderr_fd)
            if child.status is not None:
                self._ended(process.pid, child.status)

    def held(self) -> list[registry_pb2.HeldReplica]:
        """Those that run or start, and what they hold."""
        return list(self._held.values())

    def start_replica(self, launch: ReplicaLaunch) -> None:
        """Start one; one that runs already is left alone."""
        replica_id = launch.replica_id
        if self._is_stopping or replica_id in self._held:
            return
        self._held[replica_id] = held_by(launch)
        self._starting[replica_id] = self._tasks.spawn(self._start(launch), f"start {replica_id}")

    def stop_replica(self, replica_id: str, grace_s: float) -> None:
        """Ask one to end, and force it after `grace_s`; 0 forces it at once."""
        if replica_id in self._starting:
            self._unwanted[replica_id] = grace_s
        for process in self._processes.values():
            if process.held.replica_id == replica_id:
                _stop(process, grace_s)

    async def build(self, command: registry_pb2.BuildApplication) -> registry_pb2.BuildResult:
        """Build an application in a child of its own."""
        try:
            return await self._build(command, ImportSource.from_proto(command.source))
        except (OSError, ArchiveError) as error:
            return registry_pb2.BuildResult(
                build_id=command.build_id, error=f"The builder could not be started: {error}"
            )

    async def evaluate(self, command: registry_pb2.EvaluatePolicy) -> registry_pb2.PolicyResult:
        """Call an autoscaling policy in a child of its own."""
        data, error = b"", "The policy's process ended without a result; see the log."
        source = ImportSource.from_proto(command.source)
        try:
            data = await self._in_child("policy", command.SerializeToString(), source, command.timeout_s)
        except TimeoutError:
            error = f"The policy did not answer within {command.timeout_s:g} s."
        except (OSError, ArchiveError) as caught:
            error = f"The policy's process could not be started: {caught}"
        if not data:
            return registry_pb2.PolicyResult(evaluation_id=command.evaluation_id, error=error)
        return registry_pb2.PolicyResult.FromString(data)

    async def stop(self) -> None:
        """End all, each in the time that its deployment gives it, and start none any more."""
        self._is_stopping = True
        await asyncio.gather(*self._starting.values(), return_exceptions=True)
        for process in self._processes.values():
            _stop(process, stop_grace_s(process.held))
        while self._processes:
            await next(iter(self._processes.values())).ended.wait()

    # --- inside -------------------------------------------------------------------------------------

    async def _build(
        self, command: registry_pb2.BuildApplication, source: ImportSource
    ) -> registry_pb2.BuildResult:
        timeout_s = command.timeout_s or BUILD_TIMEOUT_S
        try:
            data = await self._in_child("build", command.SerializeToString(), source, timeout_s)
        except TimeoutError:
            return registry_pb2.BuildResult(
                build_id=command.build_id, error=f"The build did not end within {timeout_s:g} s."
            )
        if not data:
            return registry_pb2.BuildResult(
                build_id=command.build_id, error="The builder process ended without a result; see the log."
            )
        return registry_pb2.BuildResult.FromString(data)

    async def _in_child(self, kind: str, command: bytes, source: ImportSource, timeout_s: float) -> bytes:
        """Have a child read a command and write its result; it is killed at the end of its time.

        Raises:
            ArchiveError, OSError: It could not be started.
            TimeoutError: It took longer.
        """
        variables = self._here.variables(source)
        directory = await self._directory(source)
        read_fd, write_fd = os.pipe()
        lifeline = Lifeline()
        try:
            with _file_of(command) as file:
                fds = [file.fileno(), write_fd, lifeline.child_fd]
                pid, _ = await self._supervisor.fork(
                    kind, fds, variables, directory, is_code=bool(source.archive)
                )
        except BaseException:
            os.close(read_fd)
            lifeline.cut()
            raise
        finally:
            os.close(write_fd)
            lifeline.handed_over()
        if self._early.pop(pid, None) is None:
            self._builders.add(pid)
        try:
            return await asyncio.wait_for(asyncio.to_thread(_read_all, read_fd), timeout_s)
        except TimeoutError:
            _kill_group(pid)
            raise
        finally:
            lifeline.cut()

    async def _start(self, launch: ReplicaLaunch) -> None:
        replica_id, held = launch.replica_id, self._held[launch.replica_id]
        try:
            pid, (out_fd, err_fd) = await self._fork(launch, held)
        except (OSError, ArchiveError) as error:
            del self._held[replica_id]
            self._on_exit(replica_id, 1, f"the process could not be started: {error}")
            return
        finally:
            del self._starting[replica_id]
            grace_s = self._unwanted.pop(replica_id, None)
        process = self._watch(pid, held, out_fd, err_fd)
        if pid in self._early:
            self._ended(pid, self._early.pop(pid))
        elif grace_s is not None:
            _stop(process, grace_s)

    async def _fork(self, launch: ReplicaLaunch, held: registry_pb2.HeldReplica) -> tuple[int, list[int]]:
        launch = self._here.complete(launch)
        source = launch.deployment.code.import_source
        directory = await self._directory(source)
        note = base64.b64encode(held.SerializeToString()).decode()
        with _file_of(launch.to_proto().SerializeToString()) as file:
            return await self._supervisor.fork(
                "replica",
                [file.fileno()],
                self._here.variables(source, launch),
                directory,
                is_code=bool(source and source.archive),
                note=note,
            )

    async def _directory(self, source: ImportSource | None) -> str:
        """Where a process with this code works."""
        if source is None:
            return ""
        if not source.archive:
            return source.working_dir
        in_use = {held.archive for held in self._held.values() if held.archive}
        return str(await self._archives.path(source.archive, in_use))

    def _watch(self, pid: int, held: registry_pb2.HeldReplica, out_fd: int, err_fd: int) -> ReplicaProcess:
        process = self._processes[pid] = ReplicaProcess(pid, held, Tail(TAIL_BYTES))
        self._held[held.replica_id] = held
        name = f"{posix_safe(held.app_name)}_{posix_safe(held.deployment_name)}"
        prefix = f"(ServeReplica:{name} pid={pid}) "
        loop = asyncio.get_running_loop()

        def words_ended() -> None:
            with suppress(RuntimeError):  # the loop has ended before
                loop.call_soon_threadsafe(process.words_ended.set)

        self._pump.add(out_fd, stream=1, prefix=prefix)
        self._pump.add(err_fd, stream=2, prefix=prefix, tail=process.tail, on_end=words_ended)
        return process

    def _ended(self, pid: int, status: int) -> None:
        process = self._processes.get(pid)
        if process is not None:
            if process.kill_timer is not None:
                process.kill_timer.cancel()
            self._tasks.spawn(self._report(process, status), f"report {process.held.replica_id}")
        elif pid in self._builders:
            self._builders.remove(pid)
        else:
            self._early[pid] = status

    async def _report(self, process: ReplicaProcess, status: int) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(process.words_ended.wait(), LAST_WORDS_S)
        replica_id = process.held.replica_id
        del self._processes[process.pid], self._held[replica_id]
        logger.log(
            logging.INFO if status == 0 else logging.WARNING,
            "replica_exited %s (pid %d, exit status %d)",
            replica_id,
            process.pid,
            status,
        )
        self._on_exit(replica_id, status, process.tail.text() if status else "")
        process.ended.set()


def _stop(process: ReplicaProcess, grace_s: float) -> None:
    if grace_s <= 0:
        _kill_group(process.pid)
        return
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)
    if process.kill_timer is None:
        process.kill_timer = asyncio.get_running_loop().call_later(grace_s, _kill_group, process.pid)


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
