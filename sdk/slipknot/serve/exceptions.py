"""The errors users meet; the whole tree, with what to do about each, stands in `slipknot_core.errors`."""

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
]
