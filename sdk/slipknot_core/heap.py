"""How much freed memory a process keeps, to use it again without asking the kernel."""

import ctypes
import os
from collections.abc import Mapping

KEPT_BYTES = 128 * 1024 * 1024
"""Freed memory at the end of the heap that stays there."""

SEPARATE_BYTES = 32 * 1024 * 1024
"""Blocks of that size are asked for one by one, and returned when they are freed."""

TUNED_BY = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""Variables in which an operator says the same to glibc."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3)."""


def keep_freed_memory(environ: Mapping[str, str] = os.environ) -> bool:
    """Keep up to `KEPT_BYTES` for what comes next.

    Without it, a body of 10 MiB is returned to the kernel after each request, and the next one touches
    thousands of pages for the first time (docs/decisions/0034).

    Args:
        environ: Whoever sets one of `TUNED_BY` in it knows better.

    Returns:
        It does so; False: the environment says otherwise, or the C library is not glibc.
    """
    if any(name in environ for name in TUNED_BY):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return (
        mallopt is not None
        and mallopt(_MMAP_THRESHOLD, SEPARATE_BYTES) == 1
        and mallopt(_TRIM_THRESHOLD, KEPT_BYTES) == 1
    )
