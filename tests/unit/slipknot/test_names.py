"""Names of applications and deployments, and route prefixes."""

from typing import Any

import pytest

from slipknot._names import (
    MAX_APPLICATION_NAME,
    MAX_DEPLOYMENT_NAME,
    checked_application_name,
    checked_deployment_name,
    checked_route_prefix,
)


@pytest.mark.parametrize("name", ["a", "my app", "größe", "x" * MAX_APPLICATION_NAME])
def test_application_names(name: str) -> None:
    """Any printable text up to the limit names an application."""
    assert checked_application_name(name) == name


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("", ValueError, "the application name is empty"),
        ("x" * (MAX_APPLICATION_NAME + 1), ValueError, "101 characters; 100 are allowed"),
        ("a\nb", ValueError, r"'a\\nb' contains characters that cannot be printed"),
        (None, TypeError, "the application name must be text, not None"),
        (7, TypeError, "must be text, not 7"),
    ],
)
def test_refused_application_names(name: Any, error: type[Exception], text: str) -> None:
    """A refusal names the value and the rule."""
    with pytest.raises(error, match=text):
        checked_application_name(name)


def test_deployment_names_may_be_longer() -> None:
    """Deployments have a limit of their own."""
    assert checked_deployment_name("x" * MAX_DEPLOYMENT_NAME)
    with pytest.raises(ValueError, match="200 are allowed"):
        checked_deployment_name("x" * (MAX_DEPLOYMENT_NAME + 1))


@pytest.mark.parametrize("prefix", ["/", "/a", "/a/b", "/a-b_c.d", None])
def test_route_prefixes(prefix: str | None) -> None:
    """Whole segments below the root, or none at all."""
    assert checked_route_prefix(prefix) == prefix


@pytest.mark.parametrize(
    ("prefix", "error", "text"),
    [
        ("hello", ValueError, "'hello' does not begin with '/'; write '/hello'"),
        ("", ValueError, "'' does not begin with '/'; write '/'"),
        ("/hello/", ValueError, "'/hello/' ends with '/'; write '/hello'"),
        ("//", ValueError, "write '/'"),
        ("/{user}", ValueError, "'/{user}' contains a pattern"),
        (3, TypeError, "must be text like '/chat' or None, not 3"),
    ],
)
def test_refused_route_prefixes(prefix: Any, error: type[Exception], text: str) -> None:
    """A refusal names the value and what to write instead."""
    with pytest.raises(error, match=text):
        checked_route_prefix(prefix)
