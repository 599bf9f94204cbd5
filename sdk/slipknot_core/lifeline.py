"""Processes that die with their parent, even when it is killed with SIGKILL.

The parent holds the write end of a pipe that nobody ever writes to; the child has the read end. However the
parent ends, the kernel closes its end and the child sees end-of-file. Nothing else may hold the write end: it
is closed on exec, and in children that the parent's program forks without exec.
"""

import os
import select
import signal
import threading
from collections.abc import Callable

_write_fds: set[int] = set()


class Lifeline:
    """The parent's end. `repr` tells whether it still holds.

    Hand `child_fd` to the child (`pass_fds` and its number on the command line, or SCM_RIGHTS), then call
    `handed_over`.
    """

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe()
        _write_fds.add(self._write_fd)

    def __repr__(self) -> str:
        return f"<Lifeline {'holds' if self._write_fd >= 0 else 'cut'}>"

    @property
    def child_fd(self) -> int:
        """The end that the child follows."""
        return self._read_fd

    def handed_over(self) -> None:
        """Close the child's end in this process; calling it twice is fine."""
        if self._read_fd >= 0:
            os.close(self._read_fd)
            self._read_fd = -1

    def cut(self) -> None:
        """Let go: the child dies as if this process had died. Calling it twice is fine."""
        self.handed_over()
        if self._write_fd >= 0:
            _write_fds.discard(self._write_fd)
            os.close(self._write_fd)
            self._write_fd = -1


def follow(fd: int, on_parent_death: Callable[[], None] | None = None) -> None:
    """Tie this process to the one that holds the other end of the lifeline `fd`.

    Args:
        fd: The inherited read end.
        on_parent_death: Called in a daemon thread when the parent has died; usually `os._exit`. If None, this
        process
            dies by SIGKILL, with its process group if it leads one. On Linux the kernel does that by itself,
            so that not even code that never gives the interpreter back can prevent it.
    """
    os.set_inheritable(fd, False)
    if on_parent_death is None:
        if _kill_by_kernel(fd):
            return
        on_parent_death = _die
    threading.Thread(target=_wait_for_eof, args=(fd, on_parent_death), name="lifeline", daemon=True).start()


def _wait_for_eof(fd: int, on_parent_death: Callable[[], None]) -> None:
    while os.read(fd, 1):
        pass
    on_parent_death()


def _die() -> None:
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_by_kernel(fd: int) -> bool:
    """Ask for SIGKILL, in place of SIGIO, when the state of the pipe changes; False where that does not
    exist.
    """
    import fcntl

    if not hasattr(fcntl, "F_SETSIG"):
        return False
    pid = os.getpid()
    fcntl.fcntl(fd, fcntl.F_SETOWN, -pid if os.getpgrp() == pid else pid)
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    # The parent may have died before: then no state changes any more.
    if select.select([fd], [], [], 0)[0]:
        _die()
    return True


def _close_in_forked_child() -> None:
    for fd in _write_fds:
        os.close(fd)
    _write_fds.clear()


os.register_at_fork(after_in_child=_close_in_forked_child)
