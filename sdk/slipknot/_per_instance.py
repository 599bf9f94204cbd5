"""What a decorated function keeps: one for each instance if it is a method, one for each replica if it is a
function, and one for each event loop.
"""

import asyncio
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from .serve import context as serve_context

T = TypeVar("T")


class PerInstance(Generic[T]):
    """Finds or makes the T for a call. Picklable: a copy begins empty.

    Args:
        func: The decorated function.
        make: Makes a T; on the loop that it is for.
    """

    def __init__(self, func: Callable[..., Any], make: Callable[[], T]) -> None:
        self._func = func
        self._make = make
        self._class_name = _class_name(func)
        self._by_instance: dict[int, tuple[weakref.ref[Any], dict[asyncio.AbstractEventLoop, T]]] = {}
        self._outside: dict[asyncio.AbstractEventLoop, T] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return PerInstance, (self._func, self._make)

    def takes_self(self, args: tuple[Any, ...]) -> bool:
        """The call is one of a method, and its first argument the instance."""
        if not self._class_name or not args:
            return False
        cls = args[0] if isinstance(args[0], type) else type(args[0])
        return any(base.__qualname__ == self._class_name for base in cls.__mro__)

    def of_call(self, args: tuple[Any, ...]) -> T:
        """The one for a call with these arguments, on the running loop."""
        loop = asyncio.get_running_loop()
        by_loop = self._of_instance(args[0]) if self.takes_self(args) else self._of_replica()
        found = by_loop.get(loop)
        if found is None:
            for other in [other for other in by_loop if other.is_closed()]:
                del by_loop[other]
            found = by_loop[loop] = self._make()
        return found

    def all(self) -> list[T]:
        """Those of this process, but for functions of other replicas in it."""
        kept = [by_loop for _, by_loop in list(self._by_instance.values())]
        return [item for by_loop in (*kept, self._of_replica()) for item in list(by_loop.values())]

    # --- inside -------------------------------------------------------------------------------------------

    def _of_instance(self, instance: Any) -> dict[asyncio.AbstractEventLoop, T]:
        key = id(instance)
        found = self._by_instance.get(key)
        if found is not None:
            return found[1]
        try:
            reference = weakref.ref(instance, lambda _: self._by_instance.pop(key, None))
        except TypeError:
            raise TypeError(
                f"{self._func.__qualname__} needs instances that can be referred to weakly; "
                f"add '__weakref__' to the __slots__ of {type(instance).__name__}"
            ) from None
        by_loop: dict[asyncio.AbstractEventLoop, T] = {}
        self._by_instance[key] = (reference, by_loop)
        return by_loop

    def _of_replica(self) -> dict[asyncio.AbstractEventLoop, T]:
        replica = serve_context._replica_context_or_none()
        if replica is None:
            return self._outside
        by_loop: dict[asyncio.AbstractEventLoop, T] = replica._kept.setdefault(self, {})
        return by_loop


def _class_name(func: Callable[..., Any]) -> str:
    """Qualified name of the class that a function is written in; empty if in none."""
    name = getattr(func, "__qualname__", "").rpartition(".")[0]
    return "" if name.endswith("<locals>") else name
