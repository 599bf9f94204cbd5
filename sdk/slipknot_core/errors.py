"""The one tree of errors. A class per thing the caller can do about it; misuse raises TypeError or
ValueError.

    SlipknotServeException                 anything slipknot itself reports
    ├── RequestCancelledError              the call was cancelled; nothing to do
    ├── RequestTimeoutError (TimeoutError) the deadline passed; allow more time or ask for less
    ├── BackPressureError                  too much queued; come back later
    ├── DeploymentUnavailableError         nothing serves this deployment; deploy or repair it
    ├── ReplicaUnavailableError            the replica was lost while it ran the call; retry if that is safe
    ├── ApplicationNotFoundError           no such application or deployment; check the name
    ├── MethodNotFoundError                the deployment has no such method; check the name
    ├── SerializationError                 a value cannot travel; pass something else
    ├── ProtocolError                      a peer broke the contract; a bug or a foreign peer
    ├── UnauthenticatedError               credentials missing or wrong; get the cluster's token
    ├── PermissionDeniedError              the credentials are of too small a role; get those of a larger one
    ├── ConflictError                      another application holds this route prefix; choose another
    ├── ControllerUnavailableError         the controller cannot be reached; start it or check the address
    ├── StateNotStoredError                the controller's store takes no changes; make room where it is
    └── NotLeaderError                     this controller does not lead; ask the one that does
    RemoteTraceback                        a remote traceback's text, the __cause__ of user exceptions

`to_error_info`/`from_error_info` in `slipknot_core.failures` turn exceptions into the wire form and back.
"""

from typing import ClassVar

import grpc


class SlipknotServeException(Exception):
    """Base of every error that slipknot itself reports."""

    reason: ClassVar[str] = "INTERNAL"
    """UPPER_SNAKE name on the wire (ErrorInfo.reason)."""
    grpc_code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    """Status code when this error ends an RPC."""
    http_status: ClassVar[int] = 500
    """Status when this error ends an HTTP request."""

    @property
    def message(self) -> str:
        """The text the error was made with."""
        return str(self.args[0]) if self.args else ""


class RequestCancelledError(SlipknotServeException):
    """The call was cancelled, by `response.cancel()` or with the request that made it."""

    reason = "CANCELLED"
    grpc_code = grpc.StatusCode.CANCELLED
    http_status = 499


class RequestTimeoutError(SlipknotServeException, TimeoutError):
    """The deadline of the request passed."""

    reason = "DEADLINE_EXCEEDED"
    grpc_code = grpc.StatusCode.DEADLINE_EXCEEDED
    http_status = 408


class BackPressureError(SlipknotServeException):
    """`max_queued_requests` (or a bound of slipknot's own) was reached, so the request was dropped.

    Args:
        message: Begins with "Request dropped due to backpressure".
        status_code: HTTP status for clients, 503 or 429.
        retry_after_s: Value of the Retry-After header in seconds, or None.
    """

    reason = "BACKPRESSURE"
    grpc_code = grpc.StatusCode.RESOURCE_EXHAUSTED
    http_status = 503

    def __init__(self, message: str, status_code: int = 503, retry_after_s: int | None = None) -> None:
        super().__init__(message, status_code, retry_after_s)
        self.status_code = status_code
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.message


class DeploymentUnavailableError(SlipknotServeException):
    """The deployment failed to deploy, was deleted, or its application does not exist any more."""

    reason = "DEPLOYMENT_UNAVAILABLE"
    grpc_code = grpc.StatusCode.UNAVAILABLE
    http_status = 503


class ReplicaUnavailableError(SlipknotServeException):
    """The replica that ran this call was lost; its user code may or may not have had its effect.

    A handler that lets it pass answers its HTTP client with 503. The client whose handler itself was lost
    gets 500.
    """

    reason = "REPLICA_UNAVAILABLE"
    grpc_code = grpc.StatusCode.UNAVAILABLE
    http_status = 503

    client_text: ClassVar[str] = "A replica was lost while it worked on this request."
    """What HTTP clients read instead of the message, which names replicas and addresses."""


class ApplicationNotFoundError(SlipknotServeException):
    """There is no application or deployment of that name."""

    reason = "NOT_FOUND"
    grpc_code = grpc.StatusCode.NOT_FOUND
    http_status = 404


class MethodNotFoundError(SlipknotServeException):
    """The deployment's class has no such method; the message lists those it has."""

    reason = "METHOD_NOT_FOUND"
    grpc_code = grpc.StatusCode.NOT_FOUND


class SerializationError(SlipknotServeException):
    """An argument or a result cannot be serialised; the message names it."""

    reason = "SERIALIZATION"
    grpc_code = grpc.StatusCode.INVALID_ARGUMENT


class ProtocolError(SlipknotServeException):
    """A peer sent a frame that is not legal now, or bytes that are no frame."""

    reason = "PROTOCOL"
    grpc_code = grpc.StatusCode.INVALID_ARGUMENT


class UnauthenticatedError(SlipknotServeException):
    """The cluster's token is missing or wrong."""

    reason = "UNAUTHENTICATED"
    grpc_code = grpc.StatusCode.UNAUTHENTICATED
    http_status = 401


class PermissionDeniedError(SlipknotServeException):
    """The credentials are right, but their role may not do this; the message names the role it takes."""

    reason = "PERMISSION_DENIED"
    grpc_code = grpc.StatusCode.PERMISSION_DENIED
    http_status = 403


class ConflictError(SlipknotServeException):
    """Another application holds this route prefix."""

    reason = "CONFLICT"
    grpc_code = grpc.StatusCode.ALREADY_EXISTS
    http_status = 409


class ControllerUnavailableError(SlipknotServeException):
    """The controller cannot be reached."""

    reason = "CONTROLLER_UNAVAILABLE"
    grpc_code = grpc.StatusCode.UNAVAILABLE
    http_status = 503


class StateNotStoredError(SlipknotServeException):
    """The controller's store refused the change, for example because its disk is full; what was wanted before
    is still wanted. The message names the store.
    """

    reason = "STATE_NOT_STORED"
    grpc_code = grpc.StatusCode.RESOURCE_EXHAUSTED
    http_status = 507


class NotLeaderError(SlipknotServeException):
    """Another controller leads.

    Args:
        message: What was found.
        leader_address: Where the leader serves; empty if that is not known.
    """

    reason = "NOT_LEADER"
    grpc_code = grpc.StatusCode.FAILED_PRECONDITION
    http_status = 503

    def __init__(self, message: str, leader_address: str = "") -> None:
        super().__init__(message, leader_address)
        self.leader_address = leader_address

    def __str__(self) -> str:
        return self.message


class RemoteTraceback(Exception):
    """The traceback of an exception that was raised in another process; `str()` gives its text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n\n{self.text.rstrip()}\n"


BY_REASON: dict[str, type[SlipknotServeException]] = {
    error.reason: error
    for error in (
        SlipknotServeException,
        RequestCancelledError,
        RequestTimeoutError,
        BackPressureError,
        DeploymentUnavailableError,
        ReplicaUnavailableError,
        ApplicationNotFoundError,
        MethodNotFoundError,
        SerializationError,
        ProtocolError,
        UnauthenticatedError,
        PermissionDeniedError,
        ConflictError,
        ControllerUnavailableError,
        StateNotStoredError,
        NotLeaderError,
    )
}
"""Wire reason to class; the one table that maps both ways (each class carries its own reason)."""
