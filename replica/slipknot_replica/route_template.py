"""Which route of an ingress application a request matched, as a template: `/prefix/dynamic/{user_id}`."""

from typing import Any

from slipknot._asgi import Scope
from slipknot_core import request_context

_KEY = "slipknot.route"


def matched_route(scope: Scope) -> str:
    """The template with the route prefix, known as soon as the framework has chosen; empty if none matched.

    Args:
        scope: The one that was handed to `UserCode.handle_http` or `handle_websocket`.
    """
    route: str = scope.get(_KEY, "")
    return route


class RoutedScope(dict[str, Any]):
    """A copy of an ASGI scope that notices when the framework notes its route, before it calls the handler.

    The template goes to the original scope and to the request's context.
    """

    def __init__(self, original: Scope) -> None:
        super().__init__(original)
        self._original = original
        self._prefix = original.get("root_path", "").rstrip("/")

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        if key == "route":
            self._note()

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Like that of `dict`."""
        super().update(*args, **kwargs)
        if "route" in self:
            self._note()

    def _note(self) -> None:
        template = self._template()
        if template is None:
            return
        self._original[_KEY] = template
        request = request_context.current.get()
        if request is not None:
            request.route = template

    def _template(self) -> str | None:
        fastapi = self.get("fastapi")
        included = fastapi.get("effective_route_context") if isinstance(fastapi, dict) else None
        # A route of an included router does not know its prefix; what FastAPI derives from it for the
        # inclusion does.
        for route in (getattr(included, "starlette_route", None), included, self["route"]):
            path = getattr(route, "path", None)
            if isinstance(path, str) and path:
                return (self.get("root_path", self._prefix).rstrip("/") + path) or "/"
        return None
