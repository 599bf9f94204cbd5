"""The door of every server: who calls, and may they? Asked before a byte of payload is interpreted.

With a token, a call says its role by it. With TLS, the certificate names the role; Unix sockets go without
TLS and are private. Where there are both, both must do: the smaller role counts.
"""

import contextvars
import hmac
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc
import grpc.aio

from .credentials import Credentials
from .roles import Role, required_role, role_named_in, role_token

TOKEN_KEY = "slipknot-token"
"""Metadata key of the token."""

NO_TOKEN = "the cluster token is missing or wrong; set SLIPKNOT_CLUSTER_TOKEN to this cluster's token"
NO_CERTIFICATE = (
    "the certificate names no role of this cluster; set SLIPKNOT_TLS_CERT to one that `slipknot certs` made"
)


caller_role: "contextvars.ContextVar[Role]" = contextvars.ContextVar("caller_role", default=Role.MEMBER)
"""Of the call that is handled here; on a server without credentials everybody counts as a member."""


class AccessGuard(grpc.aio.ServerInterceptor):
    """Lets calls pass whose role is enough; refuses the others without reading their messages.

    Args:
        credentials: The server's own, which are a member's.

    Raises:
        ValueError: The token is not the cluster's secret, but made from it for another role.
    """

    def __init__(self, credentials: Credentials) -> None:
        named = role_named_in(credentials.token)
        if named is not None:
            raise ValueError(
                f"SLIPKNOT_CLUSTER_TOKEN is a {named}'s token, and this process is to be a member of the "
                "cluster; give it the cluster's own token"
            )
        secret = credentials.token
        self._tokens = [(role_token(secret, role).encode(), role) for role in Role] if secret else []
        self._has_certificates = credentials.tls is not None

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """Let the call pass or replace its handler by a refusal."""
        required = required_role(handler_call_details.method)
        if required is None:
            return await continuation(handler_call_details)
        if self._tokens:
            role = self._role_by_token(handler_call_details.invocation_metadata)
            if role is None:
                return _refusal(grpc.StatusCode.UNAUTHENTICATED, NO_TOKEN)
            if role < required:
                return _refusal(grpc.StatusCode.PERMISSION_DENIED, _too_little(role, required, "token"))
            caller_role.set(role)
        handler = await continuation(handler_call_details)
        return _with_certificate(handler, required) if handler and self._has_certificates else handler

    def _role_by_token(self, metadata: Iterable[tuple[str, str | bytes]]) -> Role | None:
        found: Role | None = None
        for key, value in metadata:
            if key == TOKEN_KEY:
                given = value if isinstance(value, bytes) else value.encode()
                # All are compared, so that the time tells nothing.
                matches = [role for token, role in self._tokens if hmac.compare_digest(given, token)]
                found = max([*matches, found or Role.CLIENT]) if matches else found
        return found


def _with_certificate(handler: Any, required: Role) -> Any:
    """The same handler behind a look at the caller's certificate, which is there only once the call is.

    A unary request is taken as a stream of one, because gRPC reads it before it calls anybody.
    """
    if handler.request_streaming:
        behavior = handler.stream_stream if handler.response_streaming else handler.stream_unary
    else:
        behavior = handler.unary_stream if handler.response_streaming else handler.unary_unary

    async def checked(requests: Any, context: Any) -> Any:
        role = _role_by_certificate(context)
        if role is None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, NO_CERTIFICATE)
        elif role < required:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, _too_little(role, required, "certificate"))
        caller_role.set(min(role or required, caller_role.get()))
        if handler.request_streaming:
            return await behavior(requests, context)
        request = await anext(aiter(requests), None)
        if request is None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call has no request message")
        return await behavior(request, context)

    make = (
        grpc.stream_stream_rpc_method_handler
        if handler.response_streaming
        else grpc.stream_unary_rpc_method_handler
    )
    return make(
        checked,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


def _role_by_certificate(context: Any) -> Role | None:
    if context.peer().startswith("unix:"):
        return Role.MEMBER
    names = context.auth_context().get("x509_subject_alternative_name", ())
    roles = [role for role in Role if role.domain_name.encode() in names]
    return max(roles, default=None)


def _too_little(role: Role, required: Role, what: str) -> str:
    return f"this needs the role {required}, and the {what} is a {role}'s"


def _refusal(code: grpc.StatusCode, details: str) -> Any:
    async def refuse(_requests: Any, context: Any) -> None:
        await context.abort(code, details)

    return grpc.stream_stream_rpc_method_handler(refuse)
