"""The calling end: channels, credentials, and foreign errors translated once."""

import logging

import grpc
import grpc.aio

from slipknot_proto.v1.payload_pb2 import ErrorInfo

from .. import errors, failures
from ..settings import RpcSettings, rpc_settings
from .access import TOKEN_KEY
from .credentials import NO_CREDENTIALS, Credentials
from .options import channel_options
from .roles import Role
from .tls import channel_credentials

logger = logging.getLogger("slipknot.serve")

REFUSALS = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.ALREADY_EXISTS,
)
"""A peer that ends a call so will do it again."""

TLS_REMEDY = (
    "check that SLIPKNOT_TLS_CA, _CERT and _KEY are set at both ends, come from one authority, and have not "
    "expired"
)

MEMBERS_ONLY = ("grpc.ssl_target_name_override", Role.MEMBER.domain_name)
"""Option of a channel: whatever the host is called, its certificate must be a member's."""

ERROR_KEY = "slipknot-error-bin"
"""Trailing metadata key of a serialised ErrorInfo."""


LEADER_KEY = "slipknot-leader"
"""Trailing metadata key of the leader's address, where a standby was asked."""


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
        options=[*options, MEMBERS_ONLY],
        interceptors=interceptors,
    )


def new_blocking_channel(address: str, credentials: Credentials = NO_CREDENTIALS) -> grpc.Channel:
    """As `new_channel` for programs without a loop; all calls must pass the token themselves (`metadata=`).

    Args:
        address: "unix:/path" or "host:port".
        credentials: What this process proves itself with.

    Raises:
        ValueError: A TLS file cannot be read.
    """
    options = channel_options(rpc_settings())
    if credentials.tls is None or address.startswith("unix:"):
        return grpc.insecure_channel(address, options=options)
    return grpc.secure_channel(
        address, channel_credentials(credentials.tls), options=[*options, MEMBERS_ONLY]
    )


def token_metadata(credentials: Credentials) -> tuple[tuple[str, str], ...] | None:
    """Metadata that carries the token; bidirectional calls must pass it themselves (`metadata=`)."""
    return ((TOKEN_KEY, credentials.token),) if credentials.token else None


class RefusalLog:
    """Says that a peer does not accept our credentials: once, not at each attempt."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._said = ""

    def note(self, error: grpc.aio.AioRpcError) -> bool:
        """An attempt has failed; if it was refused, that is logged, and the answer is True."""
        details = error.details() or ""
        is_refusal = error.code() in REFUSALS or is_tls_failure(error)
        if is_refusal and details != self._said:
            self._said = details
            logger.error("refused %s by %s: %s", error.code().name, self._address, details)
        return is_refusal

    def forget(self) -> None:
        """An attempt has succeeded."""
        self._said = ""


def translate_error(error: grpc.aio.AioRpcError) -> Exception:
    """Turn what gRPC raised into our tree, with the peer's ErrorInfo if it sent one."""
    for key, value in error.trailing_metadata() or ():
        if key == ERROR_KEY and isinstance(value, bytes):
            return failures.from_error_info(ErrorInfo.FromString(value), allow_pickle=False)
    details = error.details() or error.code().name
    match error.code():
        case grpc.StatusCode.UNAVAILABLE if is_tls_failure(error):
            return errors.UnauthenticatedError(f"{details}; {TLS_REMEDY}")
        case grpc.StatusCode.UNAVAILABLE:
            return errors.ControllerUnavailableError(f"the peer cannot be reached: {details}")
        case grpc.StatusCode.UNAUTHENTICATED:
            return errors.UnauthenticatedError(details)
        case grpc.StatusCode.PERMISSION_DENIED:
            return errors.PermissionDeniedError(details)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return errors.RequestTimeoutError(details)
        case grpc.StatusCode.CANCELLED:
            return errors.RequestCancelledError(details)
        case grpc.StatusCode.INVALID_ARGUMENT:
            return errors.ProtocolError(details)
        case _:
            return errors.SlipknotServeException(f"{error.code().name}: {details}")


def is_tls_failure(error: grpc.aio.AioRpcError) -> bool:
    """The peer is there, but the two ends do not agree on TLS or on a certificate."""
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return False
    details = (error.details() or "").lower().replace("tcp handshake", "")  # a peer that is not there at all
    return any(word in details for word in ("handshake", "ssl", "certificate"))


def is_loss(error: grpc.aio.AioRpcError) -> bool:
    """The connection, or the process at its other end, is gone. A write that meets the end of its RPC gets
    INTERNAL from grpc.aio, whatever the status was.
    """
    if error.code() is grpc.StatusCode.INTERNAL:
        return "Internal error from Core" in (error.details() or "")
    return error.code() is grpc.StatusCode.UNAVAILABLE


def never_connected(error: grpc.aio.AioRpcError) -> bool:
    """The call certainly never reached a server, so user code certainly did not start."""
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return False
    return "failed to connect" in (error.details() or "").lower()


def _token_interceptors(token: str) -> list[grpc.aio.ClientInterceptor]:
    from .call_metadata import client_interceptors

    return client_interceptors(TOKEN_KEY, token)
