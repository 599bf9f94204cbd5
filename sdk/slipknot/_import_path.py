"""From an import path to an object: "module:attribute" or "module.attribute"."""

import importlib
import os
import sys
from typing import Any

from ._user_code import call_user_code

MAX_KNOWN = 10
"""Names that an error message lists."""


def split_import_path(path: Any) -> tuple[str, str]:
    """Take an import path apart into module and attribute.

    Raises:
        TypeError: It is no text.
        ValueError: It has not the form of one.
    """
    if not isinstance(path, str):
        raise TypeError(f"an import path is text like 'module:app', not {path!r}")
    if path.count(":") > 1:
        raise ValueError(f"import path {path!r} has more than one ':'; write 'module:attribute'")
    separator = ":" if ":" in path else "."
    module, _, attribute = path.partition(":") if separator == ":" else path.rpartition(".")
    parts = [*module.split("."), *attribute.split(".")]
    if not all(part.isidentifier() for part in parts):
        raise ValueError(
            f"{path!r} is no import path; write 'module:attribute', for example 'my_package.my_module:app'"
        )
    return module, attribute


def import_attribute(path: str) -> Any:
    """Import what `path` names.

    Raises:
        TypeError, ValueError: The path has not the form of one.
        ImportError: There is no such module or attribute. What the module itself raises passes unchanged.
    """
    module_name, attribute = split_import_path(path)
    module = _import_module(module_name, path)
    found: Any = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ImportError(
                f"import path {path!r}: {module_name!r} has no attribute {attribute!r}{_known_names(module)}"
            ) from None
    return found


def _import_module(name: str, path: str) -> Any:
    try:
        return call_user_code(importlib.import_module, name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name != missing and not name.startswith(missing + "."):
            raise  # the module is there, but something that it imports is not
        raise ImportError(
            f"import path {path!r}: there is no module {missing!r}; it was looked for in {os.getcwd()} and "
            f"{', '.join(entry for entry in sys.path if entry) or 'nowhere else'}"
        ) from None


def _known_names(module: Any) -> str:
    names = sorted(name for name in vars(module) if not name.startswith("_"))
    if not names:
        return ""
    more = ", …" if len(names) > MAX_KNOWN else ""
    return f"; it has {', '.join(names[:MAX_KNOWN])}{more}"
