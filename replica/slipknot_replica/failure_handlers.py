"""Errors of handle calls that a Starlette or FastAPI route does not catch.

Their framework would make each a 500. A full queue or a deployment that is not there means the same to a
client whoever called it, so these keep their status, unless the application has a handler of its own for them
or for every error.
"""

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from slipknot_core.errors import BackPressureError, DeploymentUnavailableError, RequestTimeoutError

HANDLED = (BackPressureError, DeploymentUnavailableError, RequestTimeoutError)


def add_failure_handlers(app: Any) -> None:
    """Add the handlers to an application, before it serves; one that is not Starlette's stays as it is."""
    if not isinstance(app, Starlette):
        return
    handlers = app.exception_handlers
    if Exception in handlers or 500 in handlers:
        return
    for kind in HANDLED:
        if not any(base in handlers for base in kind.__mro__):
            handlers[kind] = _respond


async def _respond(request: Request, error: Exception) -> Response:
    status, headers = 503, {}
    if isinstance(error, RequestTimeoutError):
        status = 408
    elif isinstance(error, BackPressureError):
        status = error.status_code
        if error.retry_after_s is not None:
            headers["retry-after"] = str(error.retry_after_s)
    return PlainTextResponse(str(error), status, headers)
