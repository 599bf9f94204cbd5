"""What a decorated function keeps: one for each instance if it is a method, one for each replica if it is a
function, and one for each event loop.
"""

import asyncio
import inspect
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from .serve import context as serve_context

T = TypeVar("T")


class PerInstance(Generic[T]):
    """Finds or makes the T for a call. Picklable: a copy begins empty.

    Args:
        func: The decorated function.
        make: Makes a T, on the loop that it is for; told whether it is for a method's instance.
    """

    def __init__(self, func: Callable[..., Any], make: Callable[[bool], T]) -> None:
        self._func = func
        self._make = make
        self._class_name = _class_name(func)
        self._by_instance: dict[int, tuple[weakref.ref[Any], dict[asyncio.AbstractEventLoop, T]]] = {}
        self._is_class: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()
        self._outside: dict[asyncio.AbstractEventLoop, T] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return PerInstance, (self._func, self._make)

    def takes_self(self, args: tuple[Any, ...]) -> bool:
        """The call is one of a method, and its first argument the instance."""
        if not args:
            return False
        cls = args[0] if isinstance(args[0], type) else type(args[0])
        known = self._is_class.get(cls)
        if known is None:
            known = self._is_class[cls] = any(self._is_method_of(base) for base in cls.__mro__)
        return known

    def of_call(self, args: tuple[Any, ...]) -> T:
        """The one for a call with these arguments, on the running loop."""
        loop = asyncio.get_running_loop()
        is_method = self.takes_self(args)
        by_loop = self._of_instance(args[0]) if is_method else self._of_replica()
        found = by_loop.get(loop)
        if found is None:
            for other in [other for other in by_loop if other.is_closed()]:
                del by_loop[other]
            found = by_loop[loop] = self._make(is_method)
        return found

    def all(self) -> list[T]:
        """Those of this process, but for functions of other replicas in it."""
        kept = [by_loop for _, by_loop in list(self._by_instance.values())]
        return [item for by_loop in (*kept, self._of_replica()) for item in list(by_loop.values())]

    # --- inside -------------------------------------------------------------------------------------------

    def _is_method_of(self, cls: type) -> bool:
        attribute = vars(cls).get(self._func.__name__)
        if attribute is None or isinstance(attribute, staticmethod):
            return False
        # The name decides if there is a decorator above that hides the function.
        return inspect.unwrap(attribute) is self._func or cls.__name__ == self._class_name

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
    """Name of the class that a function is written in; empty if in none."""
    return getattr(func, "__qualname__", "").rpartition(".")[0].rpartition(".")[2]
