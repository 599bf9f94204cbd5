"""The calling end: channels, credentials, and foreign errors translated once."""

import logging

import grpc
import grpc.aio

from slipknot_proto.v1.payload_pb2 import ErrorInfo

from .. import errors, failures
from ..settings import RpcSettings, rpc_settings
from .credentials import NO_CREDENTIALS, Credentials
from .options import channel_options
from .tls import MEMBER_NAME, channel_credentials

logger = logging.getLogger("slipknot.serve")

TOKEN_KEY = "slipknot-token"
"""Metadata key of the cluster's shared secret."""

REFUSALS = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
"""A peer that ends a call so will do it again."""

ERROR_KEY = "slipknot-error-bin"
"""Trailing metadata key of a serialised ErrorInfo."""


def new_channel(
    address: str, credentials: Credentials = NO_CREDENTIALS, settings: RpcSettings | None = None
) -> grpc.aio.Channel:
    """Open a channel to a member of the cluster; connects lazily.

    Args:
        address: "unix:/path" or "host:port".
        credentials: What this process proves itself with; empty for private Unix sockets.
        settings: Bounds and timing; read from the environment if None.

    Raises:
        ValueError: A TLS file cannot be read.
    """
    interceptors = _token_interceptors(credentials.token) if credentials.token else []
    options = channel_options(settings or rpc_settings())
    if credentials.tls is None or address.startswith("unix:"):
        return grpc.aio.insecure_channel(address, options=options, interceptors=interceptors)
    return grpc.aio.secure_channel(
        address,
        channel_credentials(credentials.tls),
        options=[*options, ("grpc.ssl_target_name_override", MEMBER_NAME)],
        interceptors=interceptors,
    )


def token_metadata(credentials: Credentials) -> tuple[tuple[str, str], ...] | None:
    """Metadata that carries the token; bidirectional calls must pass it themselves (`metadata=`)."""
    return ((TOKEN_KEY, credentials.token),) if credentials.token else None


class RefusalLog:
    """Says that a peer does not accept our credentials: once, not at each attempt."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._said = ""

    def note(self, error: grpc.aio.AioRpcError) -> None:
        """An attempt has failed; logged if it was refused."""
        details = error.details() or ""
        if error.code() in REFUSALS and details != self._said:
            self._said = details
            logger.error("refused %s by %s: %s", error.code().name, self._address, details)

    def forget(self) -> None:
        """An attempt has succeeded."""
        self._said = ""


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
