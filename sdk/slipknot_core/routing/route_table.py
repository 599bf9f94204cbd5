"""Which application a path belongs to: the longest route prefix that matches on whole segments. Pure.

"/hello" matches "/hello", "/hello/" and "/hello/a", but not "/hellox"; "/" matches everything.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..ids import DeploymentId
from .snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Route:
    """Where a path leads. `unavailable`: the application failed to deploy and serves nothing."""

    prefix: str
    app_name: str
    ingress: DeploymentId
    unavailable: bool = False


@dataclass(slots=True)
class _Node:
    """One segment of the prefixes; `route` if a prefix ends here."""

    route: Route | None = None
    children: dict[str, "_Node"] = field(default_factory=dict)


class RouteTable:
    """The routes of one snapshot. `match` takes time in the length of the path, whatever the number of
    routes.

    `repr` tells the prefixes.
    """

    def __init__(self, routes: Mapping[str, Route]) -> None:
        self.routes = dict(routes)
        self._root = _Node()
        self._depth = 0
        for route in self.routes.values():
            self._add(route)

    def __repr__(self) -> str:
        return f"<RouteTable {' '.join(sorted(self.routes)) or 'empty'}>"

    @classmethod
    def from_snapshot(cls, snapshot: Snapshot) -> "RouteTable":
        """Take the applications that are reachable over HTTP."""
        return cls(
            {
                app.route_prefix: Route(
                    app.route_prefix,
                    app.name,
                    DeploymentId(app.name, app.ingress_deployment),
                    app.unavailable,
                )
                for app in snapshot.applications.values()
                if app.route_prefix is not None
            }
        )

    def match(self, path: str) -> Route | None:
        """The route of the longest prefix of `path`, or None."""
        node = self._root
        best = node.route
        if path.startswith("/"):
            # No prefix is deeper than this, so a path of a thousand segments is not cut into all of them.
            for segment in path[1:].split("/", self._depth):
                child = node.children.get(segment)
                if child is None:
                    break
                node = child
                best = node.route or best
        return best

    def _add(self, route: Route) -> None:
        node = self._root
        segments = [] if route.prefix == "/" else route.prefix[1:].split("/")
        for segment in segments:
            node = node.children.setdefault(segment, _Node())
        node.route = route
        self._depth = max(self._depth, len(segments))
