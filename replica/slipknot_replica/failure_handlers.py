"""Errors of handle calls that a Starlette or FastAPI route does not catch.

Their framework would make each a 500. A full queue, a deployment that is not there or a replica that was
lost means the same to a client whoever called it, so these keep their status, unless the application has a
handler of its own for them or for every error.
"""

import logging
from typing import Any

from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response

from slipknot_core.errors import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
    RequestTimeoutError,
)

HANDLED = (BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError, RequestTimeoutError)

logger = logging.getLogger("slipknot.serve")


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


async def _respond(request: HTTPConnection, error: Exception) -> Response:
    if request.scope["type"] == "websocket":  # no response would close it: Starlette takes it for handled
        raise error
    status, text, headers = 503, str(error), {}
    if isinstance(error, RequestTimeoutError):
        status = 408
    elif isinstance(error, BackPressureError):
        status = error.status_code
        if error.retry_after_s is not None:
            headers["retry-after"] = str(error.retry_after_s)
    elif isinstance(error, ReplicaUnavailableError):
        logger.warning("request_failed %s: %s", type(error).__name__, error)
        text = error.client_text
    return PlainTextResponse(text, status, headers)
