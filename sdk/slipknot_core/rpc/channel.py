"""The calling end: channels, credentials, and foreign errors translated once."""

import grpc
import grpc.aio

from slipknot_proto.v1.payload_pb2 import ErrorInfo

from .. import errors, failures
from ..settings import RpcSettings, rpc_settings
from .options import channel_options

TOKEN_KEY = "slipknot-token"
"""Metadata key of the cluster's shared secret."""

ERROR_KEY = "slipknot-error-bin"
"""Trailing metadata key of a serialised ErrorInfo."""


def new_channel(address: str, token: str = "", settings: RpcSettings | None = None) -> grpc.aio.Channel:
    """Open a channel to a member of the cluster; connects lazily.

    Args:
        address: "unix:/path" or "host:port".
        token: The cluster's shared secret; empty for private Unix sockets.
        settings: Bounds and timing; read from the environment if None.
    """
    interceptors = _token_interceptors(token) if token else []
    return grpc.aio.insecure_channel(
        address, options=channel_options(settings or rpc_settings()), interceptors=interceptors
    )


def token_metadata(token: str) -> tuple[tuple[str, str], ...] | None:
    """Metadata that carries the token; bidirectional calls must pass it themselves (`metadata=`)."""
    return ((TOKEN_KEY, token),) if token else None


def translate_error(error: grpc.aio.AioRpcError) -> Exception:
    """Turn what gRPC raised into our tree, with the peer's ErrorInfo if it sent one."""
    for key, value in error.trailing_metadata() or ():
        if key == ERROR_KEY and isinstance(value, bytes):
            return failures.from_error_info(ErrorInfo.FromString(value))
    details = error.details() or error.code().name
    match error.code():
        case grpc.StatusCode.UNAVAILABLE:
            return errors.ControllerUnavailableError(f"the peer cannot be reached: {details}")
        case grpc.StatusCode.UNAUTHENTICATED:
            return errors.UnauthenticatedError(details)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return errors.RequestTimeoutError(details)
        case grpc.StatusCode.CANCELLED:
            return errors.RequestCancelledError(details)
        case grpc.StatusCode.INVALID_ARGUMENT:
            return errors.ProtocolError(details)
        case _:
            return errors.SlipknotServeException(f"{error.code().name}: {details}")


def never_connected(error: grpc.aio.AioRpcError) -> bool:
    """The call certainly never reached a server, so user code certainly did not start."""
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return False
    return "failed to connect" in (error.details() or "").lower()


def _token_interceptors(token: str) -> list[grpc.aio.ClientInterceptor]:
    from .token import client_interceptors

    return client_interceptors(TOKEN_KEY, token)
