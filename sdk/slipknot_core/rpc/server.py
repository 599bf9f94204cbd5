"""The serving end: options, the guard around every handler, health, reflection, and binding that is never
open by accident.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from .. import errors, failures
from ..settings import RpcSettings, rpc_settings
from .access import AccessGuard
from .addresses import is_loopback, join, split
from .channel import ERROR_KEY, LEADER_KEY
from .credentials import HOW_TO_GET_SOME, MIN_TOKEN_LENGTH, NO_CREDENTIALS, Credentials
from .lasting_server import LastingServer
from .options import SERVER_PATIENCE_MS, server_options
from .tls import server_credentials

logger = logging.getLogger("slipknot.serve")

_UNEXPECTED = "internal error; see the server's log"


def new_server(
    credentials: Credentials = NO_CREDENTIALS,
    settings: RpcSettings | None = None,
    *,
    patience_ms: int = SERVER_PATIENCE_MS,
) -> LastingServer:
    """Make a server whose handlers are guarded.

    Args:
        credentials: Calls that prove no sufficient role are refused before any payload is read. Empty: all
            calls are served.
        settings: Bounds and timing; read from the environment if None.
        patience_ms: A silent caller has at least so long to answer when it is asked.

    Raises:
        ValueError: The token is not one of a member.
    """
    interceptors: list[grpc.aio.ServerInterceptor] = (
        [] if credentials.is_empty else [AccessGuard(credentials)]
    )
    options = server_options(settings or rpc_settings(), patience_ms)
    return LastingServer(
        lambda: grpc.aio.server(interceptors=[*interceptors, HandlerGuard()], options=options)
    )


async def bind(
    server: LastingServer,
    address: str,
    credentials: Credentials = NO_CREDENTIALS,
    *,
    is_open: bool = False,
) -> str:
    """Listen on `address` and return it with the real port.

    Args:
        server: Not yet started.
        address: "unix:/path" or "host:port"; port 0 picks one.
        credentials: Those that `server` was made with.
        is_open: Everybody who gets there may use it; no credentials are needed.

    Raises:
        ValueError: The address needs credentials, or their TLS files cannot be read.
        OSError: The address is taken or not ours.
    """
    if address.startswith("unix:"):
        _check_socket_is_free(address)
    elif not is_open:
        check_credentials(address, credentials)
    try:
        if credentials.tls is None or address.startswith("unix:"):
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, server_credentials(credentials.tls))
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: {error}; is it in use?") from error
    if address.startswith("unix:"):
        return address
    return join(split(address)[0], port)


def check_credentials(address: str, credentials: Credentials) -> None:
    """Refuse a TCP address without credentials: whoever gets there would be believed.

    Raises:
        ValueError: Names the address and what to do.
    """
    if credentials.is_empty:
        raise ValueError(
            f"refusing to listen on {address!r} without credentials: {HOW_TO_GET_SOME}; "
            "or use a Unix socket (unix:/path)"
        )
    is_weak = credentials.tls is None and len(credentials.token) < MIN_TOKEN_LENGTH
    if is_weak and not is_loopback(address):
        raise ValueError(
            f"refusing to listen on {address!r} with a token of {len(credentials.token)} characters: "
            f"beyond loopback it must have {MIN_TOKEN_LENGTH} or more; `slipknot token` makes one"
        )


def _check_socket_is_free(address: str) -> None:
    """Refuse a Unix socket that somebody listens on: gRPC would take its path away."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(address.removeprefix("unix:"))
        except OSError:
            return
    raise OSError(errno.EADDRINUSE, f"cannot listen on {address}: another process does")


def add_health_and_reflection(server: LastingServer, service_names: Sequence[str]) -> None:
    """Add grpc.health.v1 and server reflection (v1alpha and v1), so that grpcurl works."""
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc

    from .reflection import add_reflection

    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for name in service_names:
        # `set` is a coroutine only to wake watchers, and a server that has not started has none.
        servicer._server_status[name] = health_pb2.HealthCheckResponse.SERVING
    add_reflection(server, (*service_names, "grpc.health.v1.Health"))


class HandlerGuard(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """End every RPC with a status: a handler that raises CancelledError by itself would hang its client for
    ever.
    """

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """Wrap the handler in its own kind."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        if handler.response_streaming:
            wrap = _guarded_stream
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            behavior = handler.stream_stream if handler.request_streaming else handler.unary_stream
        else:
            wrap = _guarded_unary
            make = (
                grpc.stream_unary_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_unary_rpc_method_handler
            )
            behavior = handler.stream_unary if handler.request_streaming else handler.unary_unary
        return make(
            wrap(behavior, handler_call_details.method),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def _guarded_unary(behavior: Callable[..., Any], method: str) -> Callable[..., Any]:
    async def guarded(request: Any, context: Any) -> Any:
        try:
            return await behavior(request, context)
        except BaseException as error:  # every way out of a handler must become a status
            await _end(error, context, method)
            raise

    return guarded


def _guarded_stream(behavior: Callable[..., Any], method: str) -> Callable[..., Any]:
    async def guarded(request: Any, context: Any) -> Any:
        try:
            result = behavior(request, context)
            if hasattr(result, "__aiter__"):
                async for message in result:
                    await context.write(message)
            else:
                await result
        except BaseException as error:  # every way out of a handler must become a status
            await _end(error, context, method)
            raise

    return guarded


async def _end(error: BaseException, context: Any, method: str) -> None:
    """Abort the RPC with the status that belongs to `error`; returns only where the error must simply
    propagate.
    """
    if isinstance(error, (grpc.aio.AbortError, KeyboardInterrupt, SystemExit, GeneratorExit)):
        return
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        if task is not None and task.cancelling() > 0:
            return  # the client cancelled: propagating is right, and anything else leaks memory in gRPC
        await context.abort(grpc.StatusCode.INTERNAL, "the handler was cancelled by itself")
    if isinstance(error, errors.SlipknotServeException):
        info = failures.to_error_info(error, with_pickle=False)
        info.traceback = ""
        trailing: list[tuple[str, str | bytes]] = [(ERROR_KEY, info.SerializeToString())]
        if isinstance(error, errors.NotLeaderError) and error.leader_address:
            trailing.append((LEADER_KEY, error.leader_address))
        await context.abort(error.grpc_code, str(error), tuple(trailing))
    if isinstance(error, NotImplementedError):  # what a servicer does not define
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{method} is not implemented here")
    if not isinstance(error, Exception):
        return
    if type(error).__name__ == "ExecuteBatchError":
        return  # the client went away while we wrote to it
    logger.error("rpc_failed %s", method, exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, _UNEXPECTED)
