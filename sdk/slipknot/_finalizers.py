"""Calling `__del__` of the user's objects when their time has come, instead of leaving it to the garbage
collector.
"""

import asyncio
import contextlib
import inspect
from typing import Any


async def finalize(obj: Any) -> None:
    """Call the object's `__del__`, sync in a thread or async, once.

    Raises:
        Exception: Whatever it raised.
    """
    method = getattr(obj, "__del__", None)
    if method is None:
        return
    try:
        if inspect.iscoroutinefunction(method):
            await method()
        else:
            result = await asyncio.to_thread(method)
            if inspect.iscoroutine(result):
                await result
    finally:
        forget_del(obj)


def forget_del(obj: Any) -> None:
    """Keep the garbage collector from calling `__del__` again."""
    cls = type(obj)
    namespace = {"__del__": lambda self: None, "__slots__": (), "__module__": cls.__module__}
    with contextlib.suppress(TypeError):  # a class that cannot be derived from, or has a layout of its own
        make: Any = type(cls)
        obj.__class__ = make(cls.__name__, (cls,), namespace)
