"""The modules that each request goes through can be compiled (`hatch_build.py`, docs/decisions/0033).

In an installed wheel they lie beside their sources, and Python takes them. In a checkout they lie in the
folder `compiled`, and are taken as long as none of their sources has changed since: all of them or none.
"""

import os
import sys
from collections.abc import Iterable
from importlib.machinery import EXTENSION_SUFFIXES

SWITCH = "SLIPKNOT_COMPILED"
"""Environment variable; "0": do not compile, and in a checkout do not take what is compiled."""

SHARED = "slipknot__mypyc"
"""The extension module that all compiled modules are parts of."""

SOURCES = "sources.txt"
"""In the folder: the files that were compiled, relative to the checkout, a line each."""

_CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDER = os.path.join(_CHECKOUT, "compiled")


def is_fresh(checkout: str = _CHECKOUT) -> bool:
    """The checkout has compiled modules for this Python, newer than all of their sources."""
    folder = os.path.join(checkout, "compiled")
    try:
        built_ns = os.stat(os.path.join(folder, SHARED + EXTENSION_SUFFIXES[0])).st_mtime_ns
        with open(os.path.join(folder, SOURCES), encoding="utf-8") as file:
            sources = file.read().splitlines()
        return all(os.stat(os.path.join(checkout, source)).st_mtime_ns < built_ns for source in sources)
    except OSError:
        return False


def is_in_use() -> bool:
    """This process runs compiled modules."""
    return SHARED in sys.modules


def search_path(package: str, path: Iterable[str]) -> list[str]:
    """Where the modules of a package are looked for: its `__path__`."""
    if not _is_wanted:
        return list(path)
    return [os.path.join(FOLDER, *package.split(".")), *path]


_is_wanted = os.environ.get(SWITCH) != "0" and is_fresh()
if _is_wanted:
    sys.path.append(FOLDER)
