"""Longest-prefix match on whole segments."""

import pytest

from slipknot_core.ids import DeploymentId
from slipknot_core.routing.route_table import RouteTable
from slipknot_core.routing.snapshot import ApplicationRoute, Snapshot


def table(*prefixes: str | None, unavailable: bool = False) -> RouteTable:
    """A table with one application for each prefix, called as its prefix."""
    applications = {
        str(prefix): ApplicationRoute(str(prefix), prefix, "Ingress", unavailable=unavailable)
        for prefix in prefixes
    }
    return RouteTable.from_snapshot(Snapshot(1, 1, applications))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/hello", "/hello"),
        ("/hello/", "/hello"),
        ("/hello/a", "/hello"),
        ("/hellox", None),
        ("/hell", None),
        ("/", None),
        ("", None),
        ("*", None),
        ("//hello", None),
        ("/hello/a/b", "/hello/a/b"),
        ("/hello/a/b/c/d/e", "/hello/a/b"),
        ("/hello/a/bx", "/hello"),
        ("/hello//a/b", "/hello"),
    ],
)
def test_whole_segments_decide(path: str, expected: str | None) -> None:
    """A prefix matches at segment boundaries only, and the longest one wins."""
    route = table("/hello", "/hello/a/b").match(path)
    assert (route and route.prefix) == expected


@pytest.mark.parametrize("path", ["/", "/x", "/hellox", "//", "*", ""])
def test_root_catches_all(path: str) -> None:
    """The prefix "/" takes what no longer one does."""
    route = table("/", "/hello").match(path)
    assert route is not None
    assert route.prefix == "/"


def test_route_names_the_ingress() -> None:
    """A route tells the application and its ingress deployment, and whether it failed to deploy."""
    route = table("/a", unavailable=True).match("/a/b")
    assert route is not None
    assert route.ingress == DeploymentId("/a", "Ingress")
    assert route.unavailable


def test_applications_without_prefix_are_not_reachable() -> None:
    """An application without a route prefix is in no table."""
    assert table(None).routes == {}
    assert table(None).match("/") is None


def test_repr_tells_prefixes() -> None:
    """`repr` lists the prefixes in order."""
    assert repr(table("/b", "/a")) == "<RouteTable /a /b>"
    assert repr(table()) == "<RouteTable empty>"
