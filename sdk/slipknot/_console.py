"""The cluster's output on the user's console, also where `sys.stdout` is not file descriptor 1 (notebooks,
pytest).
"""

import sys
from typing import TextIO

STDOUT = 1


def write_console(stream: int, lines: bytes) -> None:
    """A `slipknot_core.output.Write`: whole lines to standard output (1) or standard error (2)."""
    target: TextIO | None = sys.stdout if stream == STDOUT else sys.stderr
    try:
        if target is not None:
            target.write(lines.decode("utf-8", "replace"))
            target.flush()
    except (OSError, ValueError):  # closed, or a pipe that nobody reads any more: there is no one to tell
        pass
