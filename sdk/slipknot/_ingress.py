"""`serve.ingress`: a class that answers HTTP through an ASGI application.

The application is looked at when the class is decorated: routes added later are not served. Of its routes the
class gets those that are its own methods and those that belong to no class, so that classes can share one
application. An instance's routes are made by `Ingress.build`, with the methods bound to it.
"""

import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

from ._asgi import ASGIApp
from ._ingress_routes import bound_app, claim_methods, snapshot

Class = TypeVar("Class", bound=type)

ATTRIBUTE = "__slipknot_ingress__"


class Ingress:
    """What `serve.ingress` notes at a class.

    Args:
        app: An ASGI application, or None.
        build_app: A function without parameters that makes one, on each replica; used if there is no `app`.
    """

    def __init__(self, app: ASGIApp | None, build_app: Callable[[], ASGIApp] | None = None) -> None:
        self._app = app
        self._build_app = build_app

    @property
    def is_fastapi(self) -> bool:
        """It is a FastAPI application; False if that is known only once it is built."""
        return is_fastapi_app(self._app)

    def build(self, instance: object) -> ASGIApp:
        """Make the application that serves one instance.

        Args:
            instance: Becomes `self` of the methods that are routes.
        """
        if self._build_app is not None:
            app = self._build_app()
            if not _is_asgi_app(app):
                raise TypeError(
                    f"the function given to @serve.ingress returned {app!r}; return an ASGI application, "
                    "one that is called with (scope, receive, send)"
                )
            return app
        return cast(ASGIApp, bound_app(self._app, instance))


def ingress(app: Any = None) -> Callable[..., Any]:
    """Serve a class through an ASGI application; put it below `@serve.deployment`.

    Methods decorated with routes of a FastAPI application, or of a router it includes, get the replica's
    instance as `self`. Calling the result without a class makes one:
    `serve.deployment(serve.ingress(app)())`.

    Args:
        app: A FastAPI application, any other ASGI application, or a function without parameters
            that makes one (called once on each replica).

    Returns:
        The class decorator.

    Raises:
        TypeError: It is neither.
        ValueError: (by the decorator) What it decorates is no class, or a class with a `__call__` method.
    """
    noted = _ingress_of(app)

    def decorate(cls: Any = None) -> Any:
        if cls is None:
            cls = _empty_class()
        if not inspect.isclass(cls):
            raise ValueError("@serve.ingress must be used with a class.")
        if any("__call__" in vars(base) for base in cls.__mro__):
            raise ValueError("Classes passed to @serve.ingress may not have __call__ method.")
        setattr(cls, ATTRIBUTE, noted(cls))
        return cls

    return decorate


def ingress_of(cls: object) -> Ingress | None:
    """What `serve.ingress` noted at a class, or at a class it derives from; None for everything else."""
    noted = getattr(cls, ATTRIBUTE, None) if inspect.isclass(cls) else None
    return noted if isinstance(noted, Ingress) else None


def is_fastapi_ingress(cls: object) -> bool:
    """The class is served through a FastAPI application."""
    noted = ingress_of(cls)
    return noted is not None and noted.is_fastapi


def is_fastapi_app(app: object) -> bool:
    """It is a FastAPI application; does not import FastAPI to find out."""
    module = sys.modules.get("fastapi")
    return module is not None and isinstance(app, module.FastAPI)


def _ingress_of(app: Any) -> Callable[[type], Ingress]:
    if inspect.isclass(app) or app is None:
        raise TypeError(
            f"@serve.ingress needs an application, not {app!r}; write `@serve.ingress(app)` "
            "with a FastAPI or other ASGI application, or a function without parameters that makes one"
        )
    if _is_asgi_app(app):
        return lambda cls: Ingress(snapshot(app, claim_methods(app, cls)))
    if _parameter_count(app) == 0:
        return lambda cls: Ingress(None, app)
    raise TypeError(
        f"@serve.ingress got {app!r}, which is neither an ASGI application, called with "
        "(scope, receive, send), nor a function without parameters that makes one"
    )


def _is_asgi_app(value: Any) -> bool:
    return callable(value) and not inspect.isclass(value) and _parameter_count(value) == 3


def _parameter_count(value: Any) -> int | None:
    """How many positional arguments a call needs; 3 (an ASGI application's) if that cannot be found out."""
    if not callable(value):
        return None
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return 3
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return 3  # a wrapper around an application
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    return 3 if len(required) <= 3 <= len(positional) else len(required)


def _empty_class() -> type:
    class ASGIIngressDeployment:
        """Serves an ASGI application as it is."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            pass

    ASGIIngressDeployment.__qualname__ = "ASGIIngressDeployment"
    return ASGIIngressDeployment
