"""HTTP for a deployment that is no ingress class: each request is one call of its function or `__call__`."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from slipknot._asgi import ASGIApp, Receive, Scope, Send

from .calling import Kind, call, kind_of
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
        self._threads = threads
        self._handler = _handler_of(servable, deployment)
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
        handler = self._handler
        if isinstance(handler, str):
            raise TypeError(handler)
        arguments = (argument,) if handler.takes_argument else ()
        value = await call(self._threads, handler.kind, handler.function, *arguments)
        response = as_response(value)
        if response is None:
            if not encoder_is_loaded():
                await self._threads.run(load_encoder)
            response = encoded_response(value)
        return response


@dataclass(frozen=True, slots=True)
class _Handler:
    """What is called for each request; looked at once, since inspecting a function takes its time."""

    function: Callable[..., Any]
    kind: Kind
    takes_argument: bool


def _handler_of(servable: Any, deployment: str) -> _Handler | str:
    """The handler, or what is wrong with it: each request is told."""
    if not callable(servable):
        return (
            f"deployment {deployment!r} was called over HTTP, but its class has neither a "
            "`__call__` method nor @serve.ingress"
        )
    function: Callable[..., Any] = servable if inspect.isroutine(servable) else servable.__call__
    kind = kind_of(function)
    if kind.is_generator:
        return (
            f"the handler of deployment {deployment!r} is a generator function; return "
            "starlette.responses.StreamingResponse(generator) to stream its items"
        )
    required, possible = _positional_counts(function)
    if required > 1:
        return (
            f"the handler of deployment {deployment!r} requires {required} arguments; over HTTP "
            "it gets none or one, the request"
        )
    return _Handler(function, kind, possible > 0)


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
