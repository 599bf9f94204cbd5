"""Where, seen from what a user wrote, is the object that could not be pickled?

The pickler knows the object but not the way to it. A breadth-first search over what pickling would visit
finds the shortest.
"""

import functools
import types
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import Any

MAX_OBJECTS = 200_000
"""Visited before the search gives up; the error then names no path."""


def find_path(roots: Sequence[tuple[str, Any]], culprit: Any, by_value: Collection[int]) -> str:
    """The path from one of `roots` to `culprit`, for example "args[0].model.lock"; empty if there is none.

    Args:
        roots: Name and object.
        culprit: The object itself, not an equal one.
        by_value: Ids of the functions and classes that pickling takes apart; others go by name and are not
            entered.
    """
    waiting = deque(roots)
    seen: dict[int, Any] = {}  # keeps what it has seen alive, so that ids stay theirs
    while waiting and len(seen) < MAX_OBJECTS:
        path, obj = waiting.popleft()
        if obj is culprit:
            return path
        if id(obj) not in seen and not isinstance(obj, _ATOMS):
            seen[id(obj)] = obj
            waiting.extend((path + suffix, child) for suffix, child in _children(obj, by_value))
    return ""


def attributes_of(obj: Any) -> Iterator[tuple[str, Any]]:
    """Attributes of an instance, also those in slots, by name."""
    attributes = getattr(obj, "__dict__", None)
    if isinstance(attributes, dict):
        yield from attributes.items()
    for base in type(obj).__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            value = getattr(obj, _mangled(base, name), None)
            if value is not None and name not in ("__dict__", "__weakref__"):
                yield name, value


_ATOMS = (str, bytes, bytearray, int, float, complex, type(None), types.ModuleType)

Children = Iterator[tuple[str, Any]]


def _children(obj: Any, by_value: Collection[int]) -> Children:
    if isinstance(obj, types.FunctionType):
        if id(obj) in by_value:
            yield from _of_function(obj)
    elif isinstance(obj, type):
        if id(obj) in by_value:
            yield from ((f".{name}", value) for name, value in vars(obj).items())
            yield from (("", base) for base in obj.__bases__)
    else:
        yield from _of_container(obj)
        yield from _of_wrapper(obj)
        yield from _of_instance(obj)


def _of_container(obj: Any) -> Children:
    if isinstance(obj, dict):
        for key, value in obj.items():
            yield f"[{key!r}]", value
            yield " (a key)", key
    elif isinstance(obj, list | tuple | deque):
        yield from ((f"[{index}]", value) for index, value in enumerate(obj))
    elif isinstance(obj, set | frozenset):
        yield from ((" (an element)", value) for value in obj)


def _of_function(function: types.FunctionType) -> Children:
    names = _global_names(function.__code__)
    yield from (
        (f", global {name!r}", function.__globals__[name]) for name in names if name in function.__globals__
    )
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f", variable {name!r}", cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    yield ", a default", function.__defaults__
    yield ", a default", function.__kwdefaults__
    yield "", function.__dict__
    yield ", an annotation", function.__annotations__


def _global_names(code: types.CodeType) -> list[str]:
    inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return list(dict.fromkeys([*code.co_names, *(name for each in inner for name in _global_names(each))]))


def _of_wrapper(obj: Any) -> Children:
    if isinstance(obj, types.MethodType):
        yield ".__self__", obj.__self__
        yield "", obj.__func__
    elif isinstance(obj, types.BuiltinMethodType):
        yield ".__self__", obj.__self__
    elif isinstance(obj, staticmethod | classmethod):
        yield "", obj.__func__
    elif isinstance(obj, property):
        yield from (("", accessor) for accessor in (obj.fget, obj.fset, obj.fdel) if accessor is not None)
    elif isinstance(obj, functools.partial):
        yield ".func", obj.func
        yield ".args", obj.args
        yield ".keywords", obj.keywords


def _of_instance(obj: Any) -> Children:
    yield from ((f".{name}", value) for name, value in attributes_of(obj))
    # A class by value travels with its instances.
    yield ", its class", type(obj)


def _mangled(owner: type, name: str) -> str:
    return (
        f"_{owner.__name__.lstrip('_')}{name}" if name.startswith("__") and not name.endswith("__") else name
    )
