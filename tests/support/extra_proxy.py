"""Proxies besides the one that the embedded cluster has."""

import json
import os
import signal
import subprocess
import sys
from typing import Any, Self

from slipknot import _connection

WAIT_S = 20.0


class ExtraProxy:
    """A proxy process that serves the cluster of this process. Use as a context manager."""

    def __init__(self, *, prefix: str = "/", **options: Any) -> None:
        self.prefix = prefix
        """Where the application under test is; a note for the test."""
        read_fd, write_fd = os.pipe()
        config = {
            "controller_address": _connection.current().dispatcher.controller_address,
            "port": 0,
            "gateway_port": None,
            "ready_fd": write_fd,
        } | options
        self._process = subprocess.Popen(
            [sys.executable, "-m", "slipknot_proxy", "--config-json", json.dumps(config)],
            pass_fds=(write_fd,),
        )
        os.close(write_fd)
        with os.fdopen(read_fd) as ready:
            words = ready.readline().split()
        assert words[:1] == ["ready"], words
        self.address = words[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def url(self) -> str:
        """Where it serves HTTP."""
        return f"http://{self.address}"

    @property
    def port(self) -> int:
        """Of `url`."""
        return int(self.address.rpartition(":")[2])

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def has_exited(self) -> bool:
        """The process is over."""
        return self._process.poll() is not None

    def terminate(self) -> None:
        """Ask it to end; the second time, to hurry."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float = WAIT_S) -> int:
        """Wait for its end; returns the exit status."""
        return self._process.wait(timeout_s)
