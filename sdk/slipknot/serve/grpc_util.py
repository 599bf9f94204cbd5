"""What handlers of user-defined gRPC services get.

Nothing here makes one, since such services are not served: it is for applications that import the name to
annotate their handlers, which serve HTTP and handle calls all the same.
"""

from typing import Any, Protocol

__all__ = ["RayServegRPCContext", "ServegRPCContext"]


class ServegRPCContext(Protocol):
    """The context of one gRPC request."""

    def code(self) -> Any:
        """The `grpc.StatusCode` that was set."""

    def set_code(self, code: Any) -> None:
        """Set the `grpc.StatusCode` that the client will see."""

    def details(self) -> str:
        """The text that was set."""

    def set_details(self, details: str) -> None:
        """Set the text that goes with the code."""

    def invocation_metadata(self) -> list[tuple[str, str]]:
        """What the client sent."""

    def trailing_metadata(self) -> list[tuple[str, str]]:
        """What was set."""

    def set_trailing_metadata(self, metadata: list[tuple[str, str]]) -> None:
        """Set what the client gets at the end."""


RayServegRPCContext = ServegRPCContext
"""The name that applications written for Ray Serve import."""
