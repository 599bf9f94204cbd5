"""Memory that a process has freed is used again without the kernel's help."""

import subprocess
import sys

import pytest

from slipknot_core.heap import TUNED_BY, keep_freed_memory

PAGES_OF_A_BODY = 10 * 1024 * 1024 // 4096

PROGRAM = """
import resource, sys
from slipknot_core.heap import keep_freed_memory

def bodies():
    return [b"x" * (10 << 20) for _ in range(4)]

is_kept = sys.argv[1] == "kept" and keep_freed_memory()
for _ in range(5):
    bodies()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    bodies()
print(is_kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(mode: str) -> tuple[bool, int]:
    """Whether memory was kept, and how many pages twenty bodies of 10 MiB touched for the first time."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, timeout=60, check=True, env={}
    )
    is_kept, count = ran.stdout.split()
    return is_kept == "True", int(count)


def test_bodies_find_the_memory_of_earlier_ones() -> None:
    is_kept, faults = _faults("kept")
    if not is_kept:
        pytest.skip("the C library of this machine has no mallopt")
    assert faults < PAGES_OF_A_BODY
    assert _faults("returned")[1] > 10 * PAGES_OF_A_BODY


@pytest.mark.parametrize("name", TUNED_BY)
def test_who_tunes_malloc_in_the_environment_knows_better(name: str) -> None:
    assert not keep_freed_memory({name: "1"})
