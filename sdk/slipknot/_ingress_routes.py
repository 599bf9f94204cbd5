"""Copies of Starlette and FastAPI applications with other routes: for one class, then for one instance of it.

An application is never changed, deep-copied or pickled here; routes are made anew through their public
constructors, from the attributes of the same names.
"""

import copy
import inspect
import sys
import weakref
from collections.abc import Callable
from typing import Any

Convert = Callable[[Any, Any], Any]
"""(route, its router) -> the route to serve instead, or None to leave it out."""

_owners: "weakref.WeakKeyDictionary[Any, weakref.ref[type]]" = weakref.WeakKeyDictionary()
"""Which class a function that is a route belongs to; tells apart classes of one name, as in a notebook."""


def claim_methods(app: object, cls: type) -> Callable[[Any], bool]:
    """Note which routes of an application are methods of a class or of its bases.

    Returns:
        Whether an endpoint is served by this class: its own method, or no method at all.
    """
    bases = {(base.__module__, base.__qualname__): base for base in reversed(cls.__mro__)}

    def is_served(endpoint: Any) -> bool:
        if not _looks_like_method(endpoint):
            return True
        owner = _owners.get(endpoint)
        if owner is not None:
            return owner() in cls.__mro__
        base = bases.get((endpoint.__module__, endpoint.__qualname__.rpartition(".")[0]))
        if base is None:
            return False
        _owners[endpoint] = weakref.ref(base)
        return True

    return is_served


def snapshot(app: Any, is_served: Callable[[Any], bool]) -> Any:
    """Copy an application with the routes of now that the class serves; foreign ASGI applications stay."""
    return _copied_app(
        app, lambda route, router: route if is_served(getattr(route, "endpoint", None)) else None
    )


def bound_app(app: Any, instance: object) -> Any:
    """Copy an application with the methods among its routes bound to an instance."""

    def convert(route: Any, router: Any) -> Any:
        endpoint: Any = getattr(route, "endpoint", None)
        if not _looks_like_method(endpoint):
            return route
        return _rebuilt(route, router, endpoint.__get__(instance, type(instance)))

    copied = _copied_app(app, convert)
    if copied is not app and hasattr(copied, "setup"):
        _renew_documentation(copied)
    return copied


def _looks_like_method(endpoint: Any) -> bool:
    """It was defined in a class body and takes `self`."""
    if endpoint is None or not hasattr(endpoint, "__get__"):
        return False
    if inspect.ismethod(endpoint) or inspect.isclass(endpoint):
        return False
    class_name = getattr(endpoint, "__qualname__", "").rpartition(".")[0]
    if not class_name or class_name.endswith("<locals>"):
        return False
    try:
        first = next(iter(inspect.signature(endpoint).parameters), None)
    except (TypeError, ValueError):
        return False
    return first == "self"


def _copied_app(app: Any, convert: Convert) -> Any:
    routing = sys.modules.get("starlette.routing")
    if routing is None:
        return app
    if isinstance(app, routing.Router):
        return _copied_router(app, convert)
    if not isinstance(getattr(app, "router", None), routing.Router):
        return app
    copied = copy.copy(app)
    copied.router = _copied_router(app.router, convert)
    copied.user_middleware = list(app.user_middleware)
    copied.exception_handlers = dict(app.exception_handlers)
    copied.middleware_stack = None
    return copied


def _copied_router(router: Any, convert: Convert) -> Any:
    copied = copy.copy(router)
    copied.routes = [
        route for original in router.routes if (route := _converted(original, copied, convert)) is not None
    ]
    # The original's is bound to the original and its routes. Its limit on bodies is the application's too,
    # which keeps it.
    copied.middleware_stack = copied.app
    return copied


def _converted(route: Any, router: Any, convert: Convert) -> Any:
    included = getattr(route, "original_router", None)
    if included is None:
        return convert(route, router)
    # FastAPI does not copy an included router's routes but refers to the router.
    return type(route)(
        original_router=_copied_router(included, convert), include_context=route.include_context
    )


def _rebuilt(route: Any, router: Any, endpoint: Any) -> Any:
    """Make a route of the same kind with another endpoint."""
    options = _options(type(route), route)
    if "dependency_overrides_provider" in _parameters(type(route)):
        provider = (
            getattr(route, "dependency_overrides_provider", None) or router.dependency_overrides_provider
        )
        options["dependency_overrides_provider"] = provider
    if options.get("response_model") is None and getattr(route, "stream_item_type", None) is not None:
        del options[
            "response_model"
        ]  # it was left to be inferred from the annotation, together with the items' type
    options["endpoint"] = endpoint
    rebuilt = type(route)(options.pop("path"), **options)
    for name, value in vars(route).items():
        vars(rebuilt).setdefault(name, value)
    return rebuilt


def _options(cls: type, route: Any) -> dict[str, Any]:
    return {name: getattr(route, name) for name in _parameters(cls) if hasattr(route, name)}


def _parameters(cls: type) -> list[str]:
    """Names of the constructor's parameters; those of the base classes too if it takes any keyword."""
    names: list[str] = []
    for base in cls.__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        names += [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return [name for name in dict.fromkeys(names) if name != "self"]


def _renew_documentation(app: Any) -> None:
    """Let /openapi.json and /docs describe this copy; FastAPI's own routes for them know the original."""
    routes, app.router.routes = app.router.routes, []
    app.openapi_schema = None
    app.setup()
    renewed = {(route.path, route.endpoint.__qualname__): route for route in app.router.routes}
    app.router.routes = [
        renewed.get((getattr(r, "path", ""), getattr(getattr(r, "endpoint", None), "__qualname__", "")), r)
        for r in routes
    ]
    if "openapi" in vars(app):
        app.openapi = _without_self(app.openapi)


def _without_self(openapi: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """A custom schema is made from the original application, where `self` is still a query parameter."""

    def schema() -> dict[str, Any]:
        described = openapi()
        for path in described.get("paths", {}).values():
            for operation in path.values():
                if isinstance(operation, dict) and "parameters" in operation:
                    operation["parameters"] = [p for p in operation["parameters"] if p.get("name") != "self"]
        return described

    return schema
