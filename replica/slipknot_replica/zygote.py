"""Quick starts: a process that has imported everything a replica needs, and forks one whenever the node agent
asks.

The zygote has a single thread and never uses gRPC, so forking it is safe; each fork takes a millisecond or
two instead of the better part of a second. The agent sends a request with the child's file descriptors; the
zygote answers with the child's pid,
and later with its exit status. Children belong to the agent (they follow its lifeline), not to the zygote:
when that dies, they live on.

Wire: one JSON object in each message of a SOCK_SEQPACKET pair.
    to the zygote      {"kind": "replica" | "build", "id": …, "env": {…}} with the descriptors input, stdout,
    stderr,
                       lifeline, and for a build: result
    from the zygote    {"id": …, "pid": …}, then {"pid": …, "status": exit code, negative for a signal}
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress

from slipknot_core.lifeline import follow

MAX_MESSAGE_BYTES = 128 * 1024
MAX_FDS = 5

_WARM = (
    "asyncio",
    "uvloop",
    "cloudpickle",
    "grpc.aio",
    "slipknot.serve.handle",
    "slipknot._graph",
    "slipknot_core.routing.dispatcher",
    "slipknot_replica.lifecycle",
    "slipknot_replica.loading",
    "starlette.requests",
    "starlette.responses",
    "fastapi",
    "slipknot._ingress",
)
"""What nearly every replica imports; heavy ones last, so that an early request is not kept waiting by all of
them.
"""


def run_zygote(connection: socket.socket, lifeline_fd: int) -> None:
    """Serve until the agent has gone; never returns in the zygote, and runs the child's work in a child."""
    follow(lifeline_fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wake_fd = _watch_children()
    for name in _WARM:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    while True:
        readable, _, _ = select.select([connection.fileno(), wake_fd], [], [])
        if wake_fd in readable:
            with suppress(BlockingIOError):
                os.read(wake_fd, 4096)
            _report_exits(connection)
        if connection.fileno() in readable:
            data, fds, _, _ = socket.recv_fds(connection, MAX_MESSAGE_BYTES, MAX_FDS)
            if not data:
                os._exit(0)
            _fork(connection, json.loads(data), fds)


def _watch_children() -> int:
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    os.set_blocking(write_fd, False)
    signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return read_fd


def _report_exits(connection: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        with suppress(OSError):
            connection.send(json.dumps({"pid": pid, "status": os.waitstatus_to_exitcode(status)}).encode())


def _fork(connection: socket.socket, request: dict[str, object], fds: list[int]) -> None:
    # A signal that comes before the child has stopped ignoring it must not be lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    pid = os.fork()
    if pid == 0:
        connection.close()
        _be_child(request, fds)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    for fd in fds:
        os.close(fd)
    with suppress(OSError):
        connection.send(json.dumps({"id": request["id"], "pid": pid}).encode())


def _be_child(request: dict[str, object], fds: list[int]) -> None:
    """Do the child's work and exit."""
    exit_code = 1
    try:
        _settle(request, fds)
        if request["kind"] == "build":
            from .builder import build_from_fds

            build_from_fds(fds[0], fds[4])
            exit_code = 0
        else:
            from .main import run_replica_from_fd

            run_replica_from_fd(fds[0])
    except BaseException:  # noqa: BLE001 - a forked child must never return into the zygote's loop
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(exit_code)


def _settle(request: dict[str, object], fds: list[int]) -> None:
    """Make this process look as if it had been started by itself."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    os.dup2(fds[1], 1)
    os.dup2(fds[2], 2)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    follow(fds[3])
    environment = request["env"]
    assert isinstance(environment, dict)
    os.environ.update(environment)


def main() -> None:
    """Run a zygote that could not be forked: `python -m slipknot_replica.zygote SOCKET_FD LIFELINE_FD`."""
    run_zygote(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))


if __name__ == "__main__":
    main()
