"""Random and mutated frames on every port: nothing is executed, nobody dies or grows, everybody serves on."""

import subprocess
import sys
from pathlib import Path

import pytest

from slipknot import serve
from tests.support.frame_fuzz import FrameFuzz
from tests.support.fuzz_cluster import Echo, call_seeds, fuzz
from tests.support.tcp_cluster import TcpCluster

FRAMES = 8_000
GROWTH_BYTES = 48 * 1024 * 1024
"""Far above what allocators keep, far below what keeping the frames' streams would cost."""


@pytest.mark.timeout(120)
def test_frames_of_strangers_do_no_harm(tmp_path: Path) -> None:
    with TcpCluster(tmp_path, nodes=1) as cluster:
        serve.run(Echo.bind())
        fuzz(cluster, tmp_path / "executed", frames=1000, seed=1)
        findings = fuzz(cluster, tmp_path / "executed", frames=FRAMES, seed=2)
        assert findings.frames >= FRAMES
        assert all(size < GROWTH_BYTES for size in findings.growth_bytes.values()), findings


@pytest.mark.timeout(60)
def test_a_path_that_is_no_text_does_not_end_the_process() -> None:
    """It ends grpc.aio's server. What waits for its next call is not freed under gRPC."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.odd_paths", "30"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "30 servers fell, and the calls went on\n"), done.stderr[
        -4000:
    ]


def test_the_same_seed_gives_the_same_frames() -> None:
    seeds = call_seeds("token", b"bomb")
    one, other = (FrameFuzz(7, seeds) for _ in range(2))
    assert [one.http2() for _ in range(20)] == [other.http2() for _ in range(20)]
