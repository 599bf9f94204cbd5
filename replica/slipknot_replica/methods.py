"""Handle calls: from a method's name and arguments to its result or its items."""

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Any

from slipknot_core.errors import MethodNotFoundError

from .calling import Kind, call, kind_of
from .generators import cancelling, iterate
from .threads import ThreadPool

USE_STREAM = "You must use `handle.options(stream=True)` to call generators on a deployment."


class Methods:
    """The methods of one deployment's object that callers may name: public ones, and `__call__`. What the
    object got while it was constructed, or makes up when asked, is as good as what its class defines.

    Args:
        servable: The function, or the instance of the class.
        deployment: How error messages call the deployment.
        threads: Where sync methods run.
    """

    def __init__(self, servable: Any, deployment: str, threads: ThreadPool) -> None:
        self._servable = servable
        self._deployment = deployment
        self._threads = threads
        self._names = available_methods(servable)
        self._kinds: dict[str, tuple[Callable[..., Any], Kind]] = {}
        """Of the methods called so far, with the method it was found for: to inspect one takes its time."""

    async def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a method that gives one result.

        Raises:
            MethodNotFoundError: There is no such method.
            TypeError: It is a generator or returned one, or it does not take these arguments.
        """
        method, kind = self._find(name)
        if kind.is_generator:
            raise TypeError(f"Method {name!r} is a generator function. {USE_STREAM}")
        result = await call(self._threads, kind, method, *args, **kwargs)
        if inspect.isgenerator(result):
            result.close()
        elif inspect.isasyncgen(result):
            await result.aclose()
        else:
            return result
        raise TypeError(f"Method {name!r} returned a generator. {USE_STREAM}")

    async def stream(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """Call a method that is a generator or returns one, and yield its items.

        Raises:
            MethodNotFoundError: There is no such method.
            TypeError: It gave something else than a generator, or it does not take these arguments.
        """
        method, kind = self._find(name)
        result = await call(self._threads, kind, method, *args, **kwargs)
        if isinstance(result, Iterator):
            result = iterate(result, self._threads.run)
        elif not isinstance(result, AsyncIterator):
            raise TypeError(f"Method {name!r} did not return a generator. Call it without `stream=True`.")
        async with cancelling(result):
            async for item in result:
                yield item

    def _find(self, name: str) -> tuple[Callable[..., Any], Kind]:
        if name not in self._names and not self._is_made_at_run_time(name):
            raise MethodNotFoundError(
                f"Deployment {self._deployment!r} has no method {name!r}. Available methods: {self._names}."
            )
        if name == "__call__" and inspect.isroutine(self._servable):
            method: Callable[..., Any] = self._servable
        else:
            method = getattr(self._servable, name)  # each time: an instance may replace its methods
        known = self._kinds.get(name)
        if known is None or known[0] != method:
            known = self._kinds[name] = (method, kind_of(method))
        return method, known[1]

    def _is_made_at_run_time(self, name: str) -> bool:
        if name.startswith("_") or inspect.isroutine(self._servable):
            return False
        return _is_method(getattr(self._servable, name, None))


def available_methods(servable: Any) -> list[str]:
    """The names callers may use, sorted."""
    if inspect.isroutine(servable):
        return ["__call__"]
    cls = type(servable)
    names = [name for name in dir(cls) if not name.startswith("_") or name == "__call__"]
    return [name for name in names if _is_method(inspect.getattr_static(cls, name))]


def _is_method(attribute: Any) -> bool:
    if isinstance(attribute, staticmethod | classmethod):
        return True
    return callable(attribute) and not isinstance(attribute, type)
