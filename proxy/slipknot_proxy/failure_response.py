"""What a client is told when its request cannot be answered by the handler. Pure.

Nothing of the handler's own errors reaches a client: it gets "Internal Server Error", the details are in the
logs.
"""

from typing import NamedTuple

from slipknot_core.errors import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
    RequestCancelledError,
    RequestTimeoutError,
    SlipknotServeException,
)
from slipknot_core.failures import from_error_info
from slipknot_proto.v1.payload_pb2 import CancelReason, ErrorInfo


class FailureResponse(NamedTuple):
    """A response of the proxy's own."""

    status: int
    text: str
    retry_after_s: int | None = None

    @property
    def headers(self) -> tuple[bytes, ...]:
        """Name, value, name, value … besides those of the body."""
        return () if self.retry_after_s is None else (b"retry-after", b"%d" % self.retry_after_s)


INTERNAL_ERROR = FailureResponse(500, "Internal Server Error")
LOST_FURTHER_DOWN = FailureResponse(503, ReplicaUnavailableError.client_text)


def not_found(path: str) -> FailureResponse:
    """No application has this path."""
    return FailureResponse(404, f"Path '{path}' not found. Ping http://.../-/routes for available routes.")


def app_unavailable(app_name: str) -> FailureResponse:
    """The application has no deployment that could answer."""
    return FailureResponse(503, f"Application '{app_name}' is unavailable because it failed to deploy.")


def of_error(
    error: Exception, *, request_id: str, timeout_s: float | None, cancel_reason: CancelReason | None
) -> FailureResponse:
    """The response for an error of the exchange.

    Args:
        error: What the exchange raised.
        request_id: For the text.
        timeout_s: The request's timeout; None if it has none.
        cancel_reason: Why the exchange was cancelled, if it was.
    """
    match error:
        case BackPressureError():
            return FailureResponse(error.status_code, error.message, error.retry_after_s)
        case DeploymentUnavailableError():
            return FailureResponse(503, error.message)
        case RequestTimeoutError():
            text = (
                error.message
                if timeout_s is None
                else f"Request {request_id} timed out after {timeout_s:g}s."
            )
            return FailureResponse(408, text)
        case RequestCancelledError() if cancel_reason == CancelReason.CANCEL_REASON_DRAIN_TIMEOUT:
            return FailureResponse(
                503, f"Request {request_id} was cancelled because the server is shutting down."
            )
        case _:
            return INTERNAL_ERROR


def of_failure(info: ErrorInfo, *, request_id: str, timeout_s: float | None) -> FailureResponse:
    """The response for what the replica reports: full queues, deadlines and lost replicas of calls further
    down keep their meaning."""
    error = from_error_info(info, allow_pickle=False)
    if not isinstance(error, SlipknotServeException):
        return INTERNAL_ERROR
    if isinstance(error, ReplicaUnavailableError):
        return LOST_FURTHER_DOWN
    return of_error(error, request_id=request_id, timeout_s=timeout_s, cancel_reason=None)
