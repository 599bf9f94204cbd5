"""Clients that leave: each a plain socket, so that the moment of leaving is exactly known."""

import socket
import time
from collections.abc import Iterable


class Leaver:
    """One request whose client does not stay for the answer."""

    def __init__(self, host: str, port: int, path: str) -> None:
        self._socket = socket.create_connection((host, port), 10.0)
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
        self.left_s: float | None = None

    def leave(self) -> None:
        """Close the connection, and note when."""
        if self.left_s is None:
            self.left_s = time.monotonic()
            self._socket.close()


def leave_all(leavers: Iterable[Leaver]) -> None:
    """One after another, as fast as it goes."""
    for leaver in leavers:
        leaver.leave()
