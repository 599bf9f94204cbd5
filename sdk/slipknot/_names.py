"""What applications, deployments and route prefixes may be called. Pure; refusals name value and remedy."""

from typing import Any

MAX_APPLICATION_NAME = 100
MAX_DEPLOYMENT_NAME = 200


def checked_application_name(name: Any) -> str:
    """Refuse what cannot name an application.

    Raises:
        TypeError: It is no text.
        ValueError: It is empty, too long or not printable.
    """
    return _checked_name(name, "application", MAX_APPLICATION_NAME)


def checked_deployment_name(name: Any) -> str:
    """Refuse what cannot name a deployment.

    Raises:
        TypeError: It is no text.
        ValueError: It is empty, too long or not printable.
    """
    return _checked_name(name, "deployment", MAX_DEPLOYMENT_NAME)


def checked_route_prefix(prefix: Any) -> str | None:
    """Refuse a prefix that could not match whole path segments; None (not reachable over HTTP) is fine.

    Raises:
        TypeError: It is no text.
        ValueError: It is no such prefix.
    """
    if prefix is None:
        return None
    if not isinstance(prefix, str):
        raise TypeError(f"route_prefix must be text like '/chat' or None, not {prefix!r}")
    if not prefix.startswith("/"):
        raise ValueError(
            f"route_prefix {prefix!r} does not begin with '/'; write {'/' + prefix.strip('/')!r}"
        )
    if prefix != "/" and prefix.endswith("/"):
        raise ValueError(f"route_prefix {prefix!r} ends with '/'; write {prefix.rstrip('/') or '/'!r}")
    if "{" in prefix or "}" in prefix:
        raise ValueError(f"route_prefix {prefix!r} contains a pattern; prefixes are plain text")
    return prefix


def _checked_name(name: Any, kind: str, max_length: int) -> str:
    if not isinstance(name, str):
        raise TypeError(f"the {kind} name must be text, not {name!r}")
    if not name:
        raise ValueError(f"the {kind} name is empty; give it 1 to {max_length} characters")
    if len(name) > max_length:
        raise ValueError(
            f"the {kind} name {name[:40]!r}… has {len(name)} characters; {max_length} are allowed"
        )
    if not name.isprintable():
        raise ValueError(
            f"the {kind} name {name!r} contains characters that cannot be printed; leave them out"
        )
    return name
