"""The code and arguments of one deployment as bytes, and back.

How things travel:
- What another process can import goes by name: modules in installed libraries and in the directories of
  `user_python_path`. That includes a class whose name in its module now stands for the deployment made of it.
- The rest goes by value: `__main__`, closures, notebooks, modules made by hand.
- An Application in the arguments becomes the name of its deployment, wherever the pickler meets it.
- Locks that FastAPI and Starlette keep in their objects become fresh ones. A lock of the user's is refused:
  two processes would believe they share it.
"""

import functools
import io
import pickle
import sys
import threading
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import cloudpickle

from ._deployment import Application, Deployment
from ._modules import is_importable, is_library
from ._unpicklable import attributes_of, find_path

FRAMEWORKS = frozenset({"fastapi", "starlette"})
"""Packages whose objects hold locks that mean nothing in another process."""

_LOCK_TYPES = (type(threading.Lock()), type(threading.RLock()))

Code = tuple[Any, Any]
"""(class or function, http adapter)."""
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def dump(
    code: Code | None, arguments: Arguments, *, label: str, name_of: Callable[[Application], str]
) -> bytes:
    """Pickle one deployment.

    Args:
        code: None: replicas import it.
        arguments: Of the constructor.
        label: The deployment's name, for error messages.
        name_of: Names the deployment that an Application in the arguments becomes; may raise, which passes
            unchanged.

    Raises:
        TypeError: Something cannot be pickled; the message tells where it is and what to do.
    """
    buffer = io.BytesIO()
    pickler = _Pickler(buffer, name_of)
    roots: list[tuple[str, Any]] = []
    if code is not None:
        roots += [(getattr(code[0], "__name__", "code"), code[0]), ("http_adapter", code[1])]
    args, kwargs = arguments
    roots += [(f"args[{i}]", value) for i, value in enumerate(args)]
    roots += [(f"kwargs[{key!r}]", value) for key, value in kwargs.items()]
    try:
        pickler.dump_parts(code, arguments)
    except Exception as error:  # __reduce__ and __getstate__ of the user's may raise anything
        if error is pickler.passing:
            raise
        raise _explained(error, pickler, roots, label) from error
    return buffer.getvalue()


def load(data: bytes, make_handle: Callable[[str], Any]) -> tuple[Code | None, Arguments]:
    """The reverse of `dump`; raises whatever importing and rebuilding the user's objects raises.

    Args:
        data: What `dump` made, from an authenticated member of the cluster.
        make_handle: Makes a handle to the deployment of that name in the same application.
    """
    unpickler = _Unpickler(io.BytesIO(data), make_handle)
    return unpickler.load(), unpickler.load()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle is not typed
    def __init__(self, file: io.BytesIO, name_of: Callable[[Application], str]) -> None:
        super().__init__(file)
        self.last: Any = None
        """The object met last: when pickling fails, the one that cannot be pickled."""
        self.passing: Exception | None = None
        """Raised by `name_of`; not ours to explain."""
        self.by_value: set[int] = set()
        """Ids of the functions and classes that were taken apart."""
        self._name_of = name_of
        self._in_arguments = False
        self._framework_locks: set[int] = set()
        self._registered: list[Any] = []

    def dump_parts(self, code: Code | None, arguments: Arguments) -> None:
        # Two dumps of one pickler share their memo: what both refer to stays one object.
        try:
            self.dump(code)
            self._in_arguments = True
            self.dump(arguments)
        finally:
            for module in self._registered:
                cloudpickle.unregister_pickle_by_value(module)

    def persistent_id(self, obj: Any) -> str | None:
        self.last = obj
        kind: Any = type(obj)
        if kind is Application and self._in_arguments:
            try:
                return self._name_of(obj)
            except Exception as error:
                self.passing = error
                raise
        if _is_of_framework(kind):
            self._framework_locks.update(
                id(value) for _, value in attributes_of(obj) if isinstance(value, _LOCK_TYPES)
            )
        return None

    def reducer_override(self, obj: Any) -> Any:
        kind: Any = type(obj)
        if issubclass(kind, type) or kind is _FUNCTION:
            return self._reduce_code(obj)
        if kind in _LOCK_TYPES and id(obj) in self._framework_locks:
            return (threading.Lock if kind is _LOCK_TYPES[0] else threading.RLock), ()
        if kind is functools.cached_property:  # holds a lock in Python 3.11
            return _cached_property, (obj.func, obj.attrname)
        # It says that it can be imported, wherever it was defined.
        if kind is _LRU_CACHE and not _is_found_by_name(obj):
            return _lru_cache, (obj.__wrapped__, obj.cache_parameters())
        if _is_of_framework(kind):
            return _reduce_framework_object(obj)
        return super().reducer_override(obj)

    def _reduce_code(self, obj: Any) -> Any:
        module_name = getattr(obj, "__module__", None)
        module = sys.modules.get(module_name) if isinstance(module_name, str) else None
        if module is None or module_name == "__main__":
            self.by_value.add(id(obj))
            return super().reducer_override(obj)
        if not self._travels_by_name(module):
            self.by_value.add(id(obj))
            return super().reducer_override(obj)
        if _is_found_by_name(obj):
            return super().reducer_override(obj)
        if _deployment_by_name(module_name, obj.__qualname__, obj):
            return _code_of_deployment, (module_name, obj.__qualname__)
        self.by_value.add(id(obj))
        if type(obj) is _FUNCTION and is_library(module) and obj.__globals__ is vars(module):
            return self._reduce_library_closure(obj, module_name)
        return super().reducer_override(obj)

    def _travels_by_name(self, module: ModuleType) -> bool:
        registry = cloudpickle.list_registry_pickle_by_value()
        if any(module.__name__ == name or module.__name__.startswith(f"{name}.") for name in registry):
            return False
        if is_importable(module):
            return True
        cloudpickle.register_pickle_by_value(module)
        self._registered.append(module)
        return False

    def _reduce_library_closure(self, function: Any, module_name: str | None) -> Any:
        # A function made inside a function of a library: its globals are those of the library's module there,
        # not a copy
        # of what it uses of them here. Copies would drag in locks and context variables, and would be other
        # objects.
        make, (code, _globals, *rest), (state, slots), *others = self._dynamic_function_reduce(function)
        del make
        slots = {**slots, "__globals__": {}}
        return (_function_in_module, (code, module_name, *rest), (state, slots), *others)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, make_handle: Callable[[str], Any]) -> None:
        super().__init__(file)
        self._make_handle = make_handle

    def persistent_load(self, pid: Any) -> Any:
        return self._make_handle(pid)


# --- how some things are rebuilt: named in the bytes, so their names and arguments are a format -------------


def _code_of_deployment(module_name: str, qualname: str) -> Any:
    import importlib

    module = importlib.import_module(module_name)
    return functools.reduce(getattr, qualname.split("."), module).func_or_class


def _function_in_module(code: Any, module_name: str, name: Any, defaults: Any, closure: Any) -> Any:
    import importlib

    return _FUNCTION(code, vars(importlib.import_module(module_name)), name, defaults, closure)


def _cached_property(func: Callable[..., Any], attrname: str | None) -> "functools.cached_property[Any]":
    made = functools.cached_property(func)
    made.attrname = attrname  # __set_name__ is not called for classes that travel by value
    return made


def _lru_cache(func: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(func)


def _restore(obj: Any, state: Any) -> None:
    attributes, slots = state if isinstance(state, tuple) else (state, None)
    if attributes:
        obj.__dict__.update(attributes)
    for name, value in (slots or {}).items():
        object.__setattr__(obj, name, value)


# --- inside -------------------------------------------------------------------------------------------------

_FUNCTION: Any = type(load)
_NEW_OBJECT: Any = object().__reduce_ex__(4)[0]
_LRU_CACHE: Any = type(functools.lru_cache(load))


@functools.cache
def _is_of_framework(kind: Any) -> bool:
    return any(base.__module__.partition(".")[0] in FRAMEWORKS for base in kind.__mro__)


def _reduce_framework_object(obj: Any) -> Any:
    # Pickle looks for __setstate__ on an object without attributes, which a __getattr__ of Starlette's
    # answers with endless recursion. So plain objects get their attributes from `_restore` instead.
    kind: Any = type(obj)
    if kind.__reduce_ex__ is not object.__reduce_ex__ or hasattr(kind, "__setstate__"):
        return NotImplemented
    make, args, *rest = obj.__reduce_ex__(4)
    state, *items = rest
    is_plain = make is _NEW_OBJECT and args == (type(obj),) and state is not None and not any(items)
    return (make, args, state, None, None, _restore) if is_plain else NotImplemented


def _is_found_by_name(obj: Any) -> bool:
    return obj.__module__ != "__main__" and _look_up(obj.__module__, obj.__qualname__) is obj


def _deployment_by_name(module_name: str | None, qualname: str, code: Any) -> bool:
    found = _look_up(module_name, qualname)
    return isinstance(found, Deployment) and found.func_or_class is code


def _look_up(module_name: str | None, qualname: str) -> Any:
    found: Any = sys.modules.get(module_name or "")
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def _explained(
    error: Exception, pickler: _Pickler, roots: Sequence[tuple[str, Any]], label: str
) -> TypeError:
    culprit = pickler.last
    path = find_path(roots, culprit, pickler.by_value)
    reason = str(error) or type(error).__name__
    if not isinstance(error, TypeError):
        reason = f"{type(error).__name__}: {reason}"
    where = f"at {path} " if path else ""
    return TypeError(
        f"{reason} {where}of deployment {label!r}: it cannot be sent to replicas. Make it in the constructor "
        "(__init__), which runs in each replica, or deploy by import path (slipknot run module:app)"
    )
