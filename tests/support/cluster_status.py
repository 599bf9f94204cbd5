"""The status of the cluster under test, as the controller tells it, and waiting for what it shall become."""

import time
from collections.abc import Callable
from typing import Any

from slipknot import _connection, _control

WAIT_S = 20.0
"""Nothing that is waited for takes this long; a bound, not an expectation."""
POLL_S = 0.005


def cluster_status() -> Any:
    """The `ClusterStatus` message now."""
    connection = _connection.current()
    return connection.run(_control.status(connection))


def application(name: str = "default") -> Any:
    """The status of one application; None if there is none."""
    return next((a for a in cluster_status().applications if a.name == name), None)


def running_replicas(name: str = "default") -> dict[str, int]:
    """Pids by replica id of all RUNNING replicas of an application."""
    found = application(name)
    if found is None:
        return {}
    return {r.replica_id: r.pid for d in found.deployments for r in d.replicas if r.state == "RUNNING"}


def wait_until(holds: Callable[[], Any], timeout_s: float = WAIT_S) -> Any:
    """Wait until `holds()` is true, and return what it returned."""
    deadline_s = time.monotonic() + timeout_s
    while not (result := holds()):
        assert time.monotonic() < deadline_s, f"it did not become true: {cluster_status()}"
        time.sleep(POLL_S)
    return result


def wait_for_status(status: str, name: str = "default") -> Any:
    """Wait until an application has this status; returns it."""

    def found() -> Any:
        now = application(name)
        return now if now is not None and now.status == status else None

    return wait_until(found)
