"""The cluster's shared secret: sent with every call, checked before any payload is read."""

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio


def client_interceptors(key: str, token: str) -> list[grpc.aio.ClientInterceptor]:
    """Interceptors that add the token to calls of every kind."""

    class _Token:
        async def _with_token(self, continuation: Any, details: Any, request: Any) -> Any:
            metadata = details.metadata or grpc.aio.Metadata()
            metadata[key] = token
            return await continuation(details._replace(metadata=metadata), request)

    class _UnaryUnary(_Token, grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(
            self, continuation: Any, client_call_details: Any, request: Any
        ) -> Any:
            return await self._with_token(continuation, client_call_details, request)

    class _UnaryStream(_Token, grpc.aio.UnaryStreamClientInterceptor):
        async def intercept_unary_stream(
            self, continuation: Any, client_call_details: Any, request: Any
        ) -> Any:
            return await self._with_token(continuation, client_call_details, request)

    return [_UnaryUnary(), _UnaryStream()]


class TokenGuard(grpc.aio.ServerInterceptor):
    """Refuse calls without the right token with UNAUTHENTICATED, before their first message is read."""

    def __init__(self, key: str, token: str) -> None:
        self._key, self._token = key, token.encode()

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """Let the call pass or replace its handler by a refusal."""
        for key, value in handler_call_details.invocation_metadata:
            if key == self._key and hmac.compare_digest(_bytes(value), self._token):
                return await continuation(handler_call_details)
        return grpc.stream_stream_rpc_method_handler(_refuse)


async def _refuse(_requests: Any, context: Any) -> None:
    await context.abort(
        grpc.StatusCode.UNAUTHENTICATED,
        "the cluster token is missing or wrong; set SLIPKNOT_CLUSTER_TOKEN to this cluster's token",
    )


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
