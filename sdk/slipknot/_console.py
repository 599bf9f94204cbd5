"""The cluster's output on the user's console, also where `sys.stdout` is not file descriptor 1 (notebooks,
pytest); and the console's interrupts.
"""

import signal
import sys
import threading
from types import FrameType
from typing import TextIO

STDOUT = 1

_was_interrupted = False


def write_console(stream: int, lines: bytes) -> None:
    """A `slipknot_core.output.Write`: whole lines to standard output (1) or standard error (2)."""
    target: TextIO | None = sys.stdout if stream == STDOUT else sys.stderr
    try:
        if target is not None:
            target.write(lines.decode("utf-8", "replace"))
            target.flush()
    except (OSError, ValueError):  # closed, or a pipe that nobody reads any more: there is no one to tell
        pass


def hear_interrupts() -> None:
    """Ctrl-C, and SIGINT from a program, end what blocks until then, also where a script that put us into the
    background had it ignored; and SIGTERM as Ctrl-C, unless the program has something else in mind. Other
    threads than the main one cannot change that and leave it as it is.
    """
    global _was_interrupted
    if threading.current_thread() is not threading.main_thread():
        return
    _was_interrupted = False
    replaced = {
        signal.SIGINT: (signal.SIG_IGN, signal.default_int_handler, _interrupt),
        signal.SIGTERM: (signal.SIG_DFL, _interrupt),
    }
    for number, handlers in replaced.items():
        if signal.getsignal(number) in handlers:
            signal.signal(number, _interrupt)


def raise_if_interrupted() -> None:
    """KeyboardInterrupt again, if one came since `hear_interrupts` and was swallowed where it was raised: a
    library written in another language only prints it.
    """
    if _was_interrupted:
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _was_interrupted
    _was_interrupted = True
    signal.default_int_handler(number, frame)
