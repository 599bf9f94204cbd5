"""The errors users meet; the whole tree, with what to do about each, stands in `slipknot_core.errors`."""

from typing import Any

from slipknot_core.errors import (
    ApplicationNotFoundError,
    BackPressureError,
    ConflictError,
    ControllerUnavailableError,
    DeploymentUnavailableError,
    MethodNotFoundError,
    NotLeaderError,
    PermissionDeniedError,
    ProtocolError,
    RemoteTraceback,
    ReplicaUnavailableError,
    RequestCancelledError,
    RequestTimeoutError,
    SerializationError,
    SlipknotServeException,
    StateNotStoredError,
    UnauthenticatedError,
)

RayServeException = SlipknotServeException
"""The name that applications written for Ray Serve catch."""


class gRPCStatusError(SlipknotServeException):
    """An error with the gRPC status that user code chose for it.

    Nothing here raises it, since user-defined gRPC services are not served: it is for applications that
    import it to catch it.

    Args:
        original_exception: What the user code raised.
        code: The `grpc.StatusCode` that it had set; None: none.
        details: The text that goes with it; None: that of the exception.
    """

    def __init__(
        self, original_exception: BaseException, code: Any = None, details: str | None = None
    ) -> None:
        super().__init__(str(original_exception))
        self.original_exception = original_exception
        self.code = code
        self.details = details


__all__ = [
    "ApplicationNotFoundError",
    "BackPressureError",
    "ConflictError",
    "ControllerUnavailableError",
    "DeploymentUnavailableError",
    "MethodNotFoundError",
    "NotLeaderError",
    "PermissionDeniedError",
    "ProtocolError",
    "RayServeException",
    "RemoteTraceback",
    "ReplicaUnavailableError",
    "RequestCancelledError",
    "RequestTimeoutError",
    "SerializationError",
    "SlipknotServeException",
    "StateNotStoredError",
    "UnauthenticatedError",
    "gRPCStatusError",
]
