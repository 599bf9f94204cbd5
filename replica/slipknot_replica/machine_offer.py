"""What this machine, or the part of it that this process may use, offers to replicas."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
DEVICES = Path("/dev")

_PERIOD_US = 100_000


def cpu_count(cgroup: Path = CGROUP) -> float:
    """Logical CPUs that this process may use: its affinity, less if its container has a smaller quota."""
    count = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    quota, _, period = _first_line(cgroup / "cpu.max").partition(" ")
    if quota.isdecimal():
        count = min(count, round(int(quota) / int(period or _PERIOD_US), 2))
    return count


def memory_bytes(cgroup: Path = CGROUP) -> int:
    """Memory of the machine, less if the container may use less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _first_line(cgroup / "memory.max")
    return min(total, int(limit)) if limit.isdecimal() else total


def gpu_ids(
    count: int = -1, environ: Mapping[str, str] = os.environ, devices: Path = DEVICES
) -> tuple[str, ...]:
    """The GPUs, as `CUDA_VISIBLE_DEVICES` names them.

    Args:
        count: So many are declared, whatever there is; -1: look.
        environ: `CUDA_VISIBLE_DEVICES` in it names those that may be used.
        devices: Directory of device files.

    Raises:
        ValueError: More are declared than `CUDA_VISIBLE_DEVICES` names.
    """
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",") if name.strip() and name.strip() != "-1"]
    elif count >= 0:
        names = [str(number) for number in range(count)]
    else:
        found = [name for name in os.listdir(devices) if re.fullmatch(r"nvidia\d+", name)]
        names = sorted((name.removeprefix("nvidia") for name in found), key=int)
    if count > len(names):
        raise ValueError(f"num_gpus={count}, but CUDA_VISIBLE_DEVICES={visible!r} names {len(names)}")
    return tuple(names if count < 0 else names[:count])


def _first_line(path: Path) -> str:
    try:
        return path.read_text().partition("\n")[0].strip()
    except OSError:
        return ""
