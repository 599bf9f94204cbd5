"""What users' modules and builder functions raise, told apart from what slipknot says of them."""

import traceback
from collections.abc import Callable
from types import TracebackType
from typing import ParamSpec, TypeVar

from slipknot_core.failures import format_traceback

P = ParamSpec("P")
R = TypeVar("R")


def call_user_code(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function of the user's, or one that runs code of the user's; what it raises passes unchanged."""
    return function(*args, **kwargs)


def user_traceback(error: BaseException) -> str | None:
    """The traceback of what came out of `call_user_code`, from the user's first line on; None for others."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code is not call_user_code.__code__:
        frame = frame.tb_next
    if frame is None or frame.tb_next is None:
        return None  # without a frame below it nothing was called: the arguments did not fit
    below: TracebackType | None = frame.tb_next
    while below is not None and _is_of_importlib(below):
        below = below.tb_next
    return "".join(traceback.format_exception(type(error), error, below)).rstrip()


def explained(error: BaseException) -> str:
    """What came out of `call_user_code`, from the user's first line on; or what slipknot says itself, which
    needs no place; or everything.
    """
    of_the_user = user_traceback(error)
    if of_the_user is None and isinstance(error, ImportError | TypeError | ValueError):
        return f"{type(error).__name__}: {error}"
    return of_the_user or format_traceback(error)


def _is_of_importlib(frame: TracebackType) -> bool:
    name = frame.tb_frame.f_globals.get("__name__", "")
    return str(name).partition(".")[0] in ("importlib", "_frozen_importlib", "_frozen_importlib_external")
