"""Quick starts: what a process imports before it forks replicas, and what a fork does to become one.

The process that does so has a single thread and never uses gRPC, so forking it is safe; each fork takes a
millisecond or two instead of the better part of a second.
"""

import gc
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress

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
"""What nearly every replica imports."""


HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
"""Signals that the parent handles, and a child otherwise."""


def warm_up() -> None:
    """Import it, and keep it out of the garbage collector's sight: what is collected is copied."""
    for name in _WARM:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def be_replica(input_fd: int) -> None:
    """Run the replica whose launch the file holds; does not return."""
    from .main import run_replica_from_fd

    run_replica_from_fd(input_fd)


def be_builder(input_fd: int, result_fd: int) -> None:
    """Build the application of the command that the file holds."""
    from .builder import build_from_fds

    build_from_fds(input_fd, result_fd)


def be_policy(input_fd: int, result_fd: int) -> None:
    """Evaluate the autoscaling policy of the command that the file holds."""
    from .policy import evaluate_from_fds

    evaluate_from_fds(input_fd, result_fd)


def be_child(work: Callable[[], None]) -> None:
    """Do a forked child's work and exit, whatever happens; never returns."""
    exit_code = 1
    try:
        work()
        exit_code = 0
    except BaseException:  # noqa: BLE001 - a forked child must never return into its parent's loop
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(exit_code)


def forget_signals() -> None:
    """Handle signals as a new process does, but for Ctrl-C, which is for those who watch over this one."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)


def settle(environment: Mapping[str, str], directory: str, *, is_code: bool) -> None:
    """Make this process look as if it had been started by itself.

    Args:
        environment: Variables on top of those that it inherits.
        directory: Where it works; empty, or one that does not exist: where it is.
        is_code: The directory holds modules: it goes first on sys.path.
    """
    os.environ.update(environment)
    if directory:
        with suppress(FileNotFoundError, NotADirectoryError):  # importing from it says so better
            os.chdir(directory)
        if is_code:
            sys.path.insert(0, directory)
