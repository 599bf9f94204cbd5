"""What the calling end says with each call: its token."""

from typing import Any

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
