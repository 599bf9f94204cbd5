"""HTTP adapters: FastAPI makes the argument of a plain deployment's handler from the request.

The adapter is an ordinary FastAPI dependency, so it may take the request, query parameters, a body, files and
other dependencies, and what it does not accept is answered with 422. An HTTPException raised by the handler
is FastAPI's to answer.
"""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.responses import Response
from starlette.routing import Match

from slipknot._asgi import ASGIApp, Scope

Respond = Callable[[Any], Awaitable[Response]]
"""Answers a request, given what the adapter made of it."""


def adapted_app(adapter: Any, respond: Respond) -> ASGIApp:
    """Build the ASGI application for an adapter.

    Args:
        adapter: A FastAPI dependency, or a pydantic model for the body.
        respond: Is called once per request that the adapter accepts.

    Raises:
        TypeError: It is neither.
        fastapi.exceptions.FastAPIError: FastAPI cannot inject one of its parameters.
    """
    if not callable(adapter):
        raise TypeError(f"http_adapter must be a function or a pydantic model, not {adapter!r}")

    async def endpoint(argument: Any) -> Response:
        return await respond(argument)

    endpoint.__signature__ = inspect.Signature([_parameter(adapter)])  # type: ignore[attr-defined]
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    app.router.routes = [_EveryRequest("/", endpoint, response_model=None)]
    return app


def _parameter(adapter: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    if inspect.isclass(adapter) and issubclass(adapter, BaseModel):
        return inspect.Parameter("argument", kind, annotation=adapter)
    return inspect.Parameter("argument", kind, default=Depends(adapter))


class _EveryRequest(APIRoute):
    """Takes every path and every method: routing has been done by the proxy."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http":
            return Match.NONE, {}
        self.methods = set()
        return Match.FULL, {"endpoint": self.endpoint, "path_params": {}}
