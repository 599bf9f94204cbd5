"""Stops listening without losing a connection that the kernel has already taken in.

Closing a listening socket resets what waits in its queue: clients see their connection end after they have
sent a request. So the kernel is told first to ignore whoever knocks (a socket filter that drops SYN packets;
Linux), which leaves time to accept all that is in the queue or on its way into it. Whoever knocks in that
moment knocks again after a second and is refused then, as a client is by any closed port.
"""

import asyncio
import ctypes
import errno
import select
import socket
import struct
import sys

HANDSHAKE_S = 0.1
"""A handshake that has begun is complete after this."""

ACCEPT_ROUNDS = 1000
"""Of the loop, which accepts all that waits in each; what is left then is given up."""

_SO_ATTACH_FILTER = 26
_FLAGS_OFFSET = 13
_SYN, _ACK = 0x02, 0x10
_PROGRAM = (
    (0x30, 0, 0, _FLAGS_OFFSET),  # load the byte with the flags of the TCP header
    (0x54, 0, 0, _SYN | _ACK),  # keep these two
    (0x15, 0, 1, _SYN),  # a SYN alone?
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # take everything else
)


async def accept_last(listener: socket.socket) -> None:
    """Let no new connection begin, and give the loop time to accept those that have.

    Args:
        listener: A TCP socket that the running loop serves, and nobody else does.
    """
    if not _ignore_newcomers(listener):
        return
    await asyncio.sleep(HANDSHAKE_S)
    for _ in range(ACCEPT_ROUNDS):
        if not _has_waiting(listener):
            return
        await asyncio.sleep(0)


def _ignore_newcomers(listener: socket.socket) -> bool:
    """False: this kernel, or this kind of socket, cannot do that."""
    if sys.platform != "linux" or listener.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in _PROGRAM))
    head = struct.pack("@HP", len(_PROGRAM), ctypes.addressof(program))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)
    except OSError as error:
        if error.errno in (errno.ENOPROTOOPT, errno.EPERM, errno.EINVAL, errno.ENOSYS):
            return False
        raise
    return True


def _has_waiting(listener: socket.socket) -> bool:
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    return bool(poll.poll(0))
