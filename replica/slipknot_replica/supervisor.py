"""The process `slipknot node`: parent of the node agent and of all replicas, which outlives the agent.

It has a single thread and never uses gRPC, so it can fork: the agent, and at the agent's request replicas and
builders. It is small on purpose, since all depends on it:
- A replica that ends is reaped, with all that it has started, and the agent is told its status.
- An agent that ends is followed by another one. Replicas and their traffic go on meanwhile; the successor
  inherits the list of them and the read ends of their output.
- When this process ends, however, the kernel ends the agent and all replicas: each follows a lifeline.

Wire: one JSON object in each message of a SOCK_SEQPACKET pair.
    from the agent   {"kind": "replica", "id": …, "env": {…}, "directory": …, "is_code": …, "note": …}
                     with the descriptor input
                     {"kind": "build" or "policy", …} with the descriptors input, result, lifeline
                     {"kind": "ready"}
    to the agent     {"id": …, "pid": …} with the read ends of stdout and stderr of a replica,
                     then {"pid": …, "status": exit code, negative for a signal}
"""

import json
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

from slipknot_core.lifeline import Lifeline, follow

from .zygote import HANDLED, be_builder, be_child, be_policy, be_replica, forget_signals, settle, warm_up

MAX_MESSAGE_BYTES = 128 * 1024
MAX_FDS = 3
_THROWN_AWAY = {"build": be_builder, "policy": be_policy}
"""What children do that end with a result, by the kind of the request."""
STABLE_AFTER_S = 5.0
"""An agent that lived so long is followed at once."""
FIRST_PAUSE_S, MAX_PAUSE_S = 0.2, 5.0
"""Before the successor of an agent that did not."""


@dataclass(eq=False, slots=True)
class Child:
    """A replica's process. An agent that inherits it has copies of the descriptors, and leaves the lifeline
    alone.
    """

    pid: int
    note: str
    """What the agent has said of it, for its successor."""
    stdout_fd: int
    stderr_fd: int
    lifeline: Lifeline
    status: int | None = None
    """Exit code once it has ended."""


@dataclass(slots=True)
class Inheritance:
    """What an agent finds when it starts."""

    connection: socket.socket
    children: list[Child] = field(default_factory=list)
    """Replicas that an earlier agent has started; those that have ended since are among them."""
    previous_status: int | None = None
    """How the earlier agent ended; None: there was none."""
    was_ready: bool = False
    """An earlier agent has joined the cluster."""


RunAgent = Callable[[Inheritance], int]
"""Is the agent until it ends; returns its exit status."""


class Supervisor:
    """`run` is called once, in a process with one thread. `repr` tells its children.

    Args:
        run_agent: Runs the agent, in a fork.
        lifeline_fd: This process dies with who holds the other end; None: it stands alone, and Ctrl-C ends
            it.
        ready_fd: Where the agent writes that it has joined the cluster; kept open until it has.
    """

    def __init__(
        self, run_agent: RunAgent, *, lifeline_fd: int | None = None, ready_fd: int | None = None
    ) -> None:
        self._run_agent = run_agent
        self._lifeline_fd = lifeline_fd
        self._ready_fd = ready_fd
        self._children: dict[int, Child] = {}
        self._wake_fds: tuple[int, int] = (-1, -1)
        self._is_stopping = False
        self._was_ready = False
        self._agent_pid = 0
        self._agent_lifeline: Lifeline | None = None
        self._agent_status: int | None = None
        self._connection: socket.socket | None = None
        self._outbox: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._started_at_s = 0.0
        self._pause_s = 0.0

    def __repr__(self) -> str:
        return f"<Supervisor of agent {self._agent_pid} and {len(self._children)} replicas>"

    def run(self) -> int:
        """Keep an agent running until it is told to end; returns the exit status."""
        if self._lifeline_fd is not None:
            follow(self._lifeline_fd)
        self._watch_signals()
        self._start_agent()  # before the imports below: it has its own
        warm_up()
        while True:
            self._wait()
            self._reap()
            self._receive()
            if self._agent_pid:
                continue
            if self._is_over():
                return self._exit_status()
            if time.monotonic() >= self._started_at_s + self._pause_s:
                self._start_agent()

    # --- the loop ---

    def _watch_signals(self) -> None:
        self._wake_fds = os.pipe()
        for fd in self._wake_fds:
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self._wake_fds[1], warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN if self._lifeline_fd is not None else self._stop)

    def _stop(self, *_: object) -> None:
        self._is_stopping = True
        if self._agent_pid:
            with suppress(ProcessLookupError):
                os.kill(self._agent_pid, signal.SIGTERM)

    def _is_over(self) -> bool:
        """There is to be no further agent: it was told to end, or it cannot even begin."""
        status = self._agent_status
        return self._is_stopping or status == 0 or (status is not None and status > 0 and not self._was_ready)

    def _exit_status(self) -> int:
        return 0 if self._is_stopping else self._agent_status or 0

    def _wait(self) -> None:
        poll = select.poll()  # unlike select, it takes any number of descriptors
        poll.register(self._wake_fds[0], select.POLLIN)
        if self._connection is not None:
            poll.register(self._connection, select.POLLIN | (select.POLLOUT if self._outbox else 0))
        timeout_ms = None
        if not self._agent_pid:
            timeout_ms = max(0.0, self._started_at_s + self._pause_s - time.monotonic()) * 1000
        poll.poll(timeout_ms)
        with suppress(BlockingIOError):
            os.read(self._wake_fds[0], 4096)
        self._flush()

    def _reap(self) -> None:
        while True:
            try:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            status = os.waitstatus_to_exitcode(wait_status)
            if pid == self._agent_pid:
                self._agent_ended(status)
                continue
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)  # what it has started must not outlive it
            self._child_ended(pid, status)

    def _child_ended(self, pid: int, status: int) -> None:
        child = self._children.get(pid)
        if child is not None:
            child.lifeline.cut()
            child.status = status
            if self._connection is not None:
                self._drop(child)  # the agent has its output; without one its successor gets it
        self._send({"pid": pid, "status": status})

    def _drop(self, child: Child) -> None:
        del self._children[child.pid]
        os.close(child.stdout_fd)
        os.close(child.stderr_fd)

    # --- the agent ---

    def _start_agent(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        lifeline = Lifeline()
        children = list(self._children.values())
        self._started_at_s = time.monotonic()
        try:
            pid = _fork()
        except OSError:  # no process, or no memory, for now
            ours.close()
            theirs.close()
            lifeline.cut()
            self._pause_s = MAX_PAUSE_S
            return
        if pid == 0:
            ours.close()
            self._be_agent(
                Inheritance(theirs, children, self._agent_status, self._was_ready), lifeline.child_fd
            )
        theirs.close()
        lifeline.handed_over()
        ours.setblocking(False)
        self._agent_pid, self._agent_lifeline, self._connection = pid, lifeline, ours
        for child in children:
            if child.status is not None:
                self._drop(child)
        if self._is_stopping:
            self._stop()

    def _be_agent(self, inheritance: Inheritance, lifeline_fd: int) -> NoReturn:
        status = 1

        def work() -> None:
            nonlocal status
            forget_signals()
            self._close_own_fds(with_children=False)
            follow(lifeline_fd)
            status = self._run_agent(inheritance)
            sys.stdout.flush()
            os._exit(status)

        be_child(work)
        raise AssertionError("unreachable")

    def _agent_ended(self, status: int) -> None:
        self._agent_pid, self._agent_status = 0, status
        if self._agent_lifeline is not None:
            self._agent_lifeline.cut()
        self._disconnect()
        lived_s = time.monotonic() - self._started_at_s
        if lived_s >= STABLE_AFTER_S:
            self._pause_s = 0.0
        else:
            self._pause_s = min(max(self._pause_s * 2, FIRST_PAUSE_S), MAX_PAUSE_S)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._clear_outbox()

    def _send(self, message: dict[str, object], fds: tuple[int, ...] = ()) -> None:
        if self._connection is not None:
            # Of its own, since the child may have ended before the agent takes them.
            self._outbox.append((json.dumps(message).encode(), tuple(map(os.dup, fds))))
            self._flush()

    def _clear_outbox(self) -> None:
        while self._outbox:
            for fd in self._outbox.popleft()[1]:
                os.close(fd)

    def _flush(self) -> None:
        while self._outbox and self._connection is not None:
            data, fds = self._outbox[0]
            try:
                socket.send_fds(self._connection, [data], fds)
            except BlockingIOError:
                return
            except OSError:  # the agent has just died; its successor inherits all
                self._clear_outbox()
                return
            self._outbox.popleft()
            for fd in fds:
                os.close(fd)

    def _receive(self) -> None:
        while self._connection is not None:
            try:
                data, fds, _, _ = socket.recv_fds(self._connection, MAX_MESSAGE_BYTES, MAX_FDS)
            except BlockingIOError:
                return
            except OSError:
                data, fds = b"", []
            if not data:
                self._disconnect()  # its end comes with SIGCHLD
                return
            request = json.loads(data)
            if request["kind"] == "ready":
                self._note_ready()
                continue
            try:
                if request["kind"] in _THROWN_AWAY:
                    self._fork_builder(request, fds)
                else:
                    self._fork_replica(request, fds[0])
            except OSError as error:  # no process, descriptor or memory left
                self._send({"id": request["id"], "error": str(error)})
            finally:
                for fd in fds:
                    os.close(fd)

    def _note_ready(self) -> None:
        self._was_ready = True
        if self._ready_fd is not None:
            os.close(self._ready_fd)  # the agent has said so on its own copy
            self._ready_fd = None

    # --- forks ---

    def _fork_replica(self, request: dict[str, Any], input_fd: int) -> None:
        with ExitStack() as undo:
            (out_read, out_write), (err_read, err_write) = _pipe(undo), _pipe(undo)
            lifeline = Lifeline()
            undo.callback(lifeline.cut)
            pid = _fork()
            undo.pop_all()
        if pid == 0:

            def work() -> None:
                os.close(out_read)
                os.close(err_read)
                self._be_own_process(lifeline.child_fd)
                os.dup2(out_write, 1)
                os.dup2(err_write, 2)
                for stream in (sys.stdout, sys.stderr):
                    stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
                settle(request["env"], request["directory"], is_code=request["is_code"])
                be_replica(input_fd)

            be_child(work)
        os.close(out_write)
        os.close(err_write)
        lifeline.handed_over()
        self._children[pid] = Child(pid, request["note"], out_read, err_read, lifeline)
        self._send({"id": request["id"], "pid": pid}, (out_read, err_read))

    def _fork_builder(self, request: dict[str, Any], fds: list[int]) -> None:
        input_fd, result_fd, lifeline_fd = fds
        pid = _fork()
        if pid == 0:

            def work() -> None:
                self._be_own_process(lifeline_fd)
                settle(request["env"], request["directory"], is_code=request["is_code"])
                _THROWN_AWAY[request["kind"]](input_fd, result_fd)

            be_child(work)
        self._send({"id": request["id"], "pid": pid})

    def _be_own_process(self, lifeline_fd: int) -> None:
        os.setsid()
        forget_signals()
        self._close_own_fds(with_children=True)
        follow(lifeline_fd)

    def _close_own_fds(self, *, with_children: bool) -> None:
        """In a fork: what is this process's alone."""
        for fd in (*self._wake_fds, self._lifeline_fd):
            if fd is not None:
                os.close(fd)
        self._disconnect()
        if with_children:
            if self._ready_fd is not None:
                os.close(self._ready_fd)
            for child in self._children.values():
                os.close(child.stdout_fd)
                os.close(child.stderr_fd)


def _fork() -> int:
    """As `os.fork`; signals that come meanwhile wait, in the child until `forget_signals`: they must not meet
    this process's handlers there.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        pid = os.fork()
    except OSError:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        raise
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    return pid


def _pipe(undo: ExitStack) -> tuple[int, int]:
    """A pipe that `undo` closes."""
    ends = os.pipe()
    for fd in ends:
        undo.callback(os.close, fd)
    return ends
