"""HTTP for a deployment that is no ingress class: each request is one call of its function or `__call__`."""

import inspect
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from slipknot._asgi import ASGIApp, Receive, Scope, Send

from .calling import call, kind_of
from .json_response import as_response, encoded_response, encoder_is_loaded, load_encoder
from .threads import ThreadPool


class PlainHttp:
    """An ASGI application around a function or a callable instance.

    Args:
        servable: The function, or the instance of the class.
        deployment: How error messages call the deployment.
        threads: Where sync functions run.
        http_adapter: FastAPI dependency or pydantic model; what it gives is the argument instead of the
            request.
    """

    def __init__(self, servable: Any, deployment: str, threads: ThreadPool, http_adapter: Any = None) -> None:
        self._deployment = deployment
        self._threads = threads
        self._handler = _handler_of(servable)
        self._takes_argument = self._handler is not None and _positional_counts(self._handler)[1] > 0
        self._adapted: ASGIApp | None = None
        if http_adapter is not None:
            from .adapted_http import adapted_app

            self._adapted = adapted_app(http_adapter, self._respond)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises whatever the user's code raised."""
        if self._adapted is not None:
            await self._adapted(scope, receive, send)
            return
        response = await self._respond(Request(scope, receive, send))
        await response(scope, receive, send)

    async def _respond(self, argument: Any) -> Response:
        handler = self._checked_handler()
        value = await call(self._threads, handler, *((argument,) if self._takes_argument else ()))
        response = as_response(value)
        if response is None:
            if not encoder_is_loaded():
                await self._threads.run(load_encoder)
            response = encoded_response(value)
        return response

    def _checked_handler(self) -> Callable[..., Any]:
        handler = self._handler
        if handler is None:
            raise TypeError(
                f"deployment {self._deployment!r} was called over HTTP, but its class has neither a "
                "`__call__` method nor @serve.ingress"
            )
        if kind_of(handler).is_generator:
            raise TypeError(
                f"the handler of deployment {self._deployment!r} is a generator function; return "
                "starlette.responses.StreamingResponse(generator) to stream its items"
            )
        required, _ = _positional_counts(handler)
        if required > 1:
            raise TypeError(
                f"the handler of deployment {self._deployment!r} requires {required} arguments; over HTTP "
                "it gets none or one, the request"
            )
        return handler


def _handler_of(servable: Any) -> Callable[..., Any] | None:
    if inspect.isroutine(servable) or callable(servable):
        handler: Callable[..., Any] = servable if inspect.isroutine(servable) else servable.__call__
        return handler
    return None


def _positional_counts(func: Callable[..., Any]) -> tuple[int, int]:
    """How many positional arguments a call needs, and how many it can take."""
    try:
        parameters = inspect.signature(func).parameters.values()
    except (TypeError, ValueError):  # some functions written in C do not tell
        return 1, 1
    if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
        return 2, 2  # a request cannot be given by keyword: as wrong as two required ones
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    is_open = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    return len([p for p in positional if p.default is p.empty]), len(positional) + is_open
