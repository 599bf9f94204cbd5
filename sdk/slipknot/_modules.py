"""Which modules another process with the same code can import by name, and where from."""

import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from functools import cache
from types import ModuleType
from typing import Any

OWN_PACKAGES = frozenset({"slipknot", "slipknot_core", "slipknot_proto"})


def user_python_path() -> tuple[str, ...]:
    """The directories on sys.path that hold the user's own modules: a script's, PYTHONPATH and the like.

    Those of the interpreter and of installed packages are left out: other processes have their own.
    """
    directories = dict.fromkeys(os.path.abspath(entry) for entry in sys.path)
    return tuple(d for d in directories if os.path.isdir(d) and not _is_below(d, _library_directories()))


def extend_python_path(entries: Sequence[str]) -> None:
    """Put the directories that exist and are missing on sys.path, first and in this order."""
    present = {os.path.abspath(entry) for entry in sys.path}
    missing = [
        entry
        for entry in dict.fromkeys(entries)
        if os.path.isdir(entry) and os.path.abspath(entry) not in present
    ]
    sys.path[:0] = missing


def is_library(module: ModuleType) -> bool:
    """It belongs to Python, to an installed package, or to slipknot itself."""
    if module.__name__.partition(".")[0] in OWN_PACKAGES:
        return True
    file = getattr(module, "__file__", None)
    if file is None:
        return module.__name__ in sys.builtin_module_names
    return _is_below(file, _library_directories())


def is_importable(module: ModuleType) -> bool:
    """Importing its name elsewhere gives the same module. False for `__main__` and modules made by hand."""
    if module.__name__ == "__main__":
        return False
    if is_library(module):
        return True
    top_name = module.__name__.partition(".")[0]
    top = sys.modules.get(top_name, module)
    spec = _find_spec(top_name)
    if spec is None:
        return False
    file = getattr(top, "__file__", None)
    if file is None or spec.origin is None:  # a namespace package has directories only
        return _paths(getattr(top, "__path__", ())) == _paths(spec.submodule_search_locations or ())
    return bool(os.path.realpath(file) == os.path.realpath(spec.origin))


def _find_spec(name: str) -> Any:
    # importlib.util.find_spec would answer from sys.modules, which is what is in question.
    for finder in sys.meta_path:
        spec = finder.find_spec(name, None)
        if spec is not None:
            return spec
    return None


def _paths(entries: Iterable[str]) -> set[str]:
    return {os.path.realpath(entry) for entry in entries}


@cache
def _library_directories() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    directories = [sysconfig.get_path(name) for name in names]
    directories += [*site.getsitepackages(), site.getusersitepackages()]
    directories += [os.path.dirname(os.__file__), sysconfig.get_config_var("DESTSHARED") or ""]
    return tuple({os.path.realpath(d) for d in directories if d})


def _is_below(path: str, directories: Sequence[str]) -> bool:
    real = os.path.realpath(path)
    return any(real == d or real.startswith(d + os.sep) for d in directories)
