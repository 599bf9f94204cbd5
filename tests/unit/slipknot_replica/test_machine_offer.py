"""What a machine offers."""

import os
from pathlib import Path

import pytest

from slipknot._local import _node_offer
from slipknot_replica.machine_offer import cpu_count, gpu_ids, memory_bytes


def test_cpus_and_memory(tmp_path: Path) -> None:
    """Those of the machine, or fewer if the container has fewer."""
    assert cpu_count(tmp_path) == len(os.sched_getaffinity(0))
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert cpu_count(tmp_path) == 0.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cpu_count(tmp_path) == len(os.sched_getaffinity(0))
    total = memory_bytes(tmp_path)
    assert total > 2**20
    (tmp_path / "memory.max").write_text(f"{2**20}\n")
    assert memory_bytes(tmp_path) == 2**20
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_bytes(tmp_path) == total


def test_gpus(tmp_path: Path) -> None:
    """Those that are declared, else those that may be seen, else those that are there."""
    for name in ("nvidia0", "nvidia10", "nvidia2", "nvidiactl", "null"):
        (tmp_path / name).touch()
    assert gpu_ids(-1, {}, tmp_path) == ("0", "2", "10")
    assert gpu_ids(3, {}, tmp_path) == ("0", "1", "2")
    assert gpu_ids(0, {}, tmp_path) == ()
    visible = {"CUDA_VISIBLE_DEVICES": "4, GPU-ab,7"}
    assert gpu_ids(-1, visible, tmp_path) == ("4", "GPU-ab", "7")
    assert gpu_ids(2, visible, tmp_path) == ("4", "GPU-ab")
    assert gpu_ids(-1, {"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == ()
    assert gpu_ids(-1, {"CUDA_VISIBLE_DEVICES": "-1"}, tmp_path) == ()
    with pytest.raises(ValueError, match="names 3"):
        gpu_ids(4, visible, tmp_path)


def test_an_embedded_cluster_offers_what_the_environment_says() -> None:
    """Nothing of the environment that is about something else."""
    given = {"SLIPKNOT_NODE_NUM_GPUS": "2", "SLIPKNOT_NODE_LABELS": "zone=a", "SLIPKNOT_NODE_NODE_ID": "x"}
    assert _node_offer(given) == {"num_gpus": 2, "labels": {"zone": "a"}}
    assert _node_offer({}) == {}
