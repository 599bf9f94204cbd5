"""Who blocks an event loop, read from the stack of its thread."""

import os
import sysconfig
import traceback
from dataclasses import dataclass
from types import FrameType

from .exchange import ServerExchange

MAX_FRAMES = 12

_LIBRARIES = tuple(
    os.path.join(path, "")
    for path in {
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        os.path.dirname(os.path.dirname(__file__)),
    }
)
"""Code below these directories is nobody's handler."""


@dataclass(frozen=True, slots=True)
class Culprit:
    """What runs on a blocked loop. Empty texts: unknown."""

    what: str = ""
    """For example "GET /chat/{id}", or "CALL generate"."""
    request_id: str = ""
    place: str = ""
    """File, line and function of the user's code: "/app/model.py:12 in generate"."""
    stack: str = ""

    def __str__(self) -> str:
        request = f"{self.what} of request {self.request_id}, " if self.request_id else ""
        return f"{request}at {self.place or 'an unknown place'}"


def culprit_of(frame: FrameType | None) -> Culprit:
    """Tell it from the innermost frame of the loop's thread.

    The request is known if its own task runs, or code that it awaits, but not a task that the handler made.
    """
    if frame is None:
        return Culprit()
    place, exchange, innermost = "", None, frame
    at: FrameType | None = frame
    while at is not None:
        if at.f_code is ServerExchange._run.__code__:
            exchange = at.f_locals.get("self")
            break
        if not place and not at.f_code.co_filename.startswith((*_LIBRARIES, "<")):
            place = _place(at)
        at = at.f_back
    stack = "".join(traceback.format_stack(innermost)[-MAX_FRAMES:])
    what, request_id = ("", "") if exchange is None else exchange.described
    return Culprit(what, request_id, place or _place(innermost), stack)


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
