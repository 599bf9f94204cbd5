"""Calling a function of the user's, whatever kind it is: async on the loop, sync in the thread pool."""

import enum
import functools
import inspect
from collections.abc import Callable
from typing import Any

from .threads import ThreadPool


class Kind(enum.Enum):
    """What calling a function gives."""

    SYNC = "sync"
    ASYNC = "async"
    SYNC_GENERATOR = "sync generator"
    ASYNC_GENERATOR = "async generator"

    @property
    def is_generator(self) -> bool:
        """Calling it runs nothing yet and gives a generator."""
        return self in (Kind.SYNC_GENERATOR, Kind.ASYNC_GENERATOR)


def kind_of(func: Callable[..., Any]) -> Kind:
    """Tell what a function, bound method, partial or callable object is."""
    while isinstance(func, functools.partial):
        func = func.func
    if not inspect.isroutine(func) and not isinstance(func, type):
        func = type(func).__call__
    if inspect.iscoroutinefunction(func):
        return Kind.ASYNC
    if inspect.isasyncgenfunction(func):
        return Kind.ASYNC_GENERATOR
    if inspect.isgeneratorfunction(func):
        return Kind.SYNC_GENERATOR
    return Kind.SYNC


async def call(threads: ThreadPool, kind: Kind, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function of a kind and return its result; a generator is returned unstarted.

    A sync function that turns out to wrap an async one (it returns a coroutine) is awaited on the loop.
    """
    if kind is Kind.ASYNC:
        return await func(*args, **kwargs)
    if kind.is_generator:
        return func(*args, **kwargs)
    result = await threads.run(func, *args, **kwargs)
    return await result if inspect.iscoroutine(result) else result
