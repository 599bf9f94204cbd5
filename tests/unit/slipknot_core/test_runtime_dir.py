"""Looking for clusters while others of them come and go."""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from slipknot_core.runtime_dir import ClusterInfo, RuntimeDir, find_clusters, remove_stale

LOOKS = 3_000


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory with a path short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="sk-") as name:
        yield Path(name)


@contextmanager
def _coming_and_going(base: Path) -> Iterator[None]:
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            cluster = RuntimeDir.create(base)
            cluster.publish(ClusterInfo("unix:/c", "127.0.0.1:1", "127.0.0.1:2", str(cluster.path), 1))
            cluster.remove()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_cluster_that_goes_while_one_looks_is_gone(base: Path) -> None:
    """It is in the answer or not; those that stay are."""
    staying = RuntimeDir.create(base)
    staying.publish(ClusterInfo("unix:/s", "127.0.0.1:3", "127.0.0.1:4", str(staying.path), 1))
    with _coming_and_going(base):
        for _ in range(LOOKS):
            assert "unix:/s" in {info.controller_address for info in find_clusters(base)}
            remove_stale(base)
    assert [info.controller_address for info in find_clusters(base)] == ["unix:/s"]
    staying.remove()
    assert find_clusters(base) == []
