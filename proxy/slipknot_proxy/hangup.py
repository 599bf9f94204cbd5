"""Notices that a peer has left although nobody reads from its connection.

A paused transport is not polled, so the end of the connection stays unseen behind what is unread. The kernel
knows it: one epoll instance of the process watches the paused sockets for nothing but hang-ups, and the loop
watches that instance. It cannot see an end that is stuck in the peer's own send buffer behind data for which
we have no room.
"""

import asyncio
import contextlib
import select
from collections.abc import Callable

_HANGUP = getattr(select, "EPOLLRDHUP", 0) | getattr(select, "EPOLLHUP", 0) | getattr(select, "EPOLLERR", 0)


class HangupWatcher:
    """Watches paused connections. Without epoll (not Linux) it does nothing. `repr` tells how many it
    watches."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        if self._epoll is not None:
            loop.add_reader(self._epoll.fileno(), self._poll)

    def __repr__(self) -> str:
        return f"<HangupWatcher {len(self._callbacks)} connections>"

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call `callback` once when the peer of the socket `fd` leaves."""
        if self._epoll is None:
            return
        if fd not in self._callbacks:
            self._epoll.register(fd, _HANGUP)
        self._callbacks[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Forget the socket; must be called before it is closed. Twice is fine."""
        if self._epoll is not None and self._callbacks.pop(fd, None) is not None:
            with contextlib.suppress(OSError):  # it was closed in between, which unregisters it
                self._epoll.unregister(fd)

    def close(self) -> None:
        """End all watching; twice is fine."""
        if self._epoll is not None and not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
        self._callbacks.clear()

    def _poll(self) -> None:
        assert self._epoll is not None
        for fd, _ in self._epoll.poll(0):
            callback = self._callbacks.get(fd)
            self.unwatch(fd)
            if callback is not None:
                callback()


def has_unread(fd: int) -> bool:
    """Something has arrived that was not read yet; False if there is no such file."""
    if fd < 0:
        return False
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))
