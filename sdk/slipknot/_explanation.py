"""From pydantic's errors to lines a user can act on: the path of the key, what is wrong, what was given."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError

RAY_ONLY = ("pip", "uv", "conda", "py_modules", "container", "image_uri", "py_executable", "java_jars")
"""Keys of Ray's `runtime_env` that install or load something."""
NOT_INSTALLED = "is not supported; install what replicas need in the environment that the nodes run in"

MAX_SHOWN_CHARS = 80
"""Longer values are cut."""


def explain(error: "ValidationError", *, prefix: str = "") -> str:
    """One line for each error, for example "applications.0.name: it is empty (got '')".

    Args:
        error: What validation raised.
        prefix: Put before each path, for example the name of the option.
    """
    return "\n".join(_line(details, prefix) for details in error.errors(include_url=False))


def _line(details: Any, prefix: str) -> str:
    path = ".".join(part for part in (prefix, *map(str, details["loc"])) if part)
    return f"{path}: {_reason(details)}" if path else _reason(details)


def _reason(details: Any) -> str:
    if details["type"] in ("value_error", "assertion_error"):
        # One of our own validators: its text names the value already.
        return str(details["msg"]).partition(", ")[2]
    if details["type"] == "extra_forbidden":
        is_ray_only = "runtime_env" in details["loc"] and details["loc"][-1] in RAY_ONLY
        return NOT_INSTALLED if is_ray_only else "there is no such key; check its spelling"
    if details["type"] == "missing":
        return "is required"
    shown = repr(details["input"])
    if len(shown) > MAX_SHOWN_CHARS:
        shown = shown[:MAX_SHOWN_CHARS] + "…"
    return f"{details['msg']} (got {shown})"
