"""What a run stands on: machine and versions."""

import os
import platform
import shutil
import subprocess
import time
from importlib import metadata
from typing import Any

import psutil

from slipknot_core.compiled import is_fresh

PACKAGES = ("slipknot", "grpcio", "uvicorn", "fastapi", "starlette", "uvloop")
PEER_PACKAGES = ("ray", "bentoml", "litserve")
QUIET_PERCENT = 10.0
"""Of the CPUs' time; a machine that does less is quiet."""
_PEER_VERSIONS = """
import platform, sys
from importlib import metadata
print("python", platform.python_version())
for package in sys.argv[1:]:
    try:
        print(package, metadata.version(package))
    except metadata.PackageNotFoundError:
        print("no", package)
"""


def about(command: str, peers_python: str | None) -> dict[str, str]:
    """For the head of a report."""
    load_1min = os.getloadavg()[0]
    return {
        "when": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "command": command,
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, {_memory_gib()} GiB",
        "load before the run": f"{load_1min:.2f}",
        "python": platform.python_version(),
        "versions": ", ".join(f"{package} {metadata.version(package)}" for package in PACKAGES),
        "compiled modules of slipknot": "yes" if is_fresh() else "no",
        "tools": ", ".join([_first_line("wrk", "--version"), _first_line("haproxy", "-v")]),
        **({"peers": _peers(peers_python)} if peers_python else {}),
    }


def settle(within_s: float) -> None:
    """Wait until the machine is quiet, for so long at most: what one system leaves behind, such as the end of
    its processes, is not measured with the next.
    """
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s and psutil.cpu_percent(interval=0.5) > QUIET_PERCENT:
        pass


CpuTimes = Any
"""What `psutil.cpu_times` returns."""


def cpu_times() -> CpuTimes:
    """Of the whole machine so far."""
    return psutil.cpu_times()


def stolen_percent(began: CpuTimes, ended: CpuTimes) -> float:
    """What the host has given to others between two `cpu_times`, of the CPU time that was wanted here.

    0 where nobody tells.
    """
    stolen_s = getattr(ended, "steal", 0.0) - getattr(began, "steal", 0.0)
    names = set(ended._fields) - {"idle", "iowait", "guest", "guest_nice"}
    wanted_s = sum(getattr(ended, name) - getattr(began, name) for name in names)
    return 100 * stolen_s / wanted_s if wanted_s else 0.0


def _memory_gib() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def _first_line(tool: str, option: str) -> str:
    if shutil.which(tool) is None:
        return f"no {tool}"
    done = subprocess.run([tool, option], capture_output=True, text=True, timeout=10)
    words = (done.stdout or done.stderr).split("\n")[0].split()
    return " ".join(words[:3])


def _peers(python: str) -> str:
    done = subprocess.run(
        [python, "-c", _PEER_VERSIONS, *PEER_PACKAGES], capture_output=True, text=True, timeout=30
    )
    return ", ".join(done.stdout.split("\n")).strip(", ")
