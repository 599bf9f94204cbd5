"""What the two clients share: targets, requests, responses and errors. Pure."""

import builtins
import json as json_module
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import NoneType
from typing import Any, NoReturn

import grpc

from slipknot_core import payloads
from slipknot_core.errors import (
    PermissionDeniedError,
    ProtocolError,
    RequestCancelledError,
    RequestTimeoutError,
    SlipknotServeException,
    UnauthenticatedError,
)
from slipknot_core.failures import USER_EXCEPTION, from_error_info
from slipknot_core.rpc.addresses import is_loopback
from slipknot_core.rpc.channel import ERROR_KEY
from slipknot_core.rpc.credentials import NO_CREDENTIALS, Credentials
from slipknot_core.settings import cluster_settings
from slipknot_proto.v1 import gateway_pb2
from slipknot_proto.v1.payload_pb2 import ErrorInfo, Payload

ENCODINGS = ("msgpack", "json")

OPTION_TYPES: dict[str, type | tuple[type, ...]] = {
    "method_name": str,
    "stream": bool,
    "multiplexed_model_id": str,
    "timeout_s": (int, float, NoneType),
}
"""What `options` of a client's handle changes."""


class RemoteError(SlipknotServeException):
    """What the handler raised, if its type is none of Python's own.

    Attributes:
        type_name: Qualified name of the exception's class, "module.Class".
    """

    def __init__(self, message: str, type_name: str = "") -> None:
        super().__init__(message)
        self.type_name = type_name


def gateway_credentials(address: str, credentials: Credentials | None) -> Credentials:
    """What a client proves itself with; on loopback the environment's secrets are not given away."""
    if credentials is not None:
        return credentials
    return NO_CREDENTIALS if is_loopback(address) else cluster_settings().credentials


@dataclass(frozen=True, slots=True)
class Target:
    """Which method of which deployment, and how it is called."""

    app_name: str = ""
    deployment_name: str = ""
    method_name: str = "__call__"
    stream: bool = False
    multiplexed_model_id: str = ""
    timeout_s: float | None = None
    encoding: str = "msgpack"

    def changed(self, options: Mapping[str, Any]) -> "Target":
        """The same with other options; raises TypeError or ValueError for one that is wrong."""
        for name, value in options.items():
            if name not in OPTION_TYPES:
                raise TypeError(f"there is no option {name!r}; the options are {', '.join(OPTION_TYPES)}")
            if not isinstance(value, OPTION_TYPES[name]):
                raise TypeError(f"{name} must not be of type {type(value).__name__}: {value!r}")
        return replace(
            self, **{**options, "timeout_s": checked_timeout(options.get("timeout_s", self.timeout_s))}
        )

    def message(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> gateway_pb2.MethodTarget:
        """The target with arguments; raises SerializationError, which names the one that cannot travel."""
        arguments = payloads.encode_arguments(
            args, kwargs, self.encoding, of=f"the call of {self.deployment_name or 'the application'}"
        )
        return gateway_pb2.MethodTarget(
            app_name=self.app_name,
            deployment_name=self.deployment_name,
            method_name=self.method_name,
            multiplexed_model_id=self.multiplexed_model_id,
            arguments=arguments,
        )


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """The answer to an HTTP-like request.

    Attributes:
        status_code: As over HTTP.
        headers: In order, repeated ones repeated.
        content: The body.
    """

    status_code: int
    headers: tuple[tuple[str, str], ...]
    content: bytes

    @property
    def text(self) -> str:
        """The body as UTF-8 text; what is none is replaced."""
        return self.content.decode(errors="replace")

    def header(self, name: str) -> str | None:
        """The first header of this name, in any case; None if there is none."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def json(self) -> Any:
        """The body as JSON; raises ValueError if it is none."""
        return json_module.loads(self.content)


def checked_timeout(timeout_s: float | None) -> float | None:
    """Return `timeout_s`; raises ValueError if it is negative."""
    if timeout_s is not None and timeout_s < 0:
        raise ValueError(f"timeout_s must not be negative, got {timeout_s}")
    return timeout_s


def refuse_closed(address: str) -> NoReturn:
    """Say that the client is closed."""
    raise SlipknotServeException(f"the client of {address} is closed; make a new one")


def check_encoding(encoding: str) -> str:
    """Return `encoding`; raises ValueError if it is unknown."""
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding={encoding!r} is unknown; use one of {', '.join(ENCODINGS)}")
    return encoding


def http_request(
    method: str, path: str, headers: Mapping[str, str] | None, content: bytes | str, json: Any
) -> gateway_pb2.SendHttpRequestRequest:
    """Make the message of an HTTP-like request.

    Raises:
        TypeError: Both `content` and `json` are given.
    """
    body = content.encode() if isinstance(content, str) else content
    all_headers = dict(headers or {})
    if json is not None:
        if body:
            raise TypeError("give either content or json, not both")
        body = json_module.dumps(json).encode()
        if not any(name.lower() == "content-type" for name in all_headers):
            all_headers["content-type"] = "application/json"
    return gateway_pb2.SendHttpRequestRequest(
        method=method,
        path=path,
        headers=[gateway_pb2.HttpHeader(name=name, value=value) for name, value in all_headers.items()],
        body=body,
    )


def http_response(message: gateway_pb2.SendHttpRequestResponse) -> HttpResponse:
    """Read the answer."""
    content = message.body or message.text.encode()
    return HttpResponse(message.status, read_headers(message.headers), content)


def read_headers(headers: Iterable[gateway_pb2.HttpHeader]) -> tuple[tuple[str, str], ...]:
    """Headers as pairs."""
    return tuple((header.name, header.value) for header in headers)


def read_value(payload: Payload, text: str) -> Any:
    """Read a result or an item: MessagePack, or else JSON."""
    if payload.WhichOneof("encoding") is None:
        payload = Payload(json=text.encode())
    return payloads.decode_value(payload, allow_pickle=False)


def to_error(error: Any, address: str) -> Exception:
    """Turn what gRPC raised into the error that belongs to it.

    Args:
        error: A `grpc.RpcError` that is also a call, of either API.
        address: The gateway's, for the text.
    """
    for key, value in error.trailing_metadata() or ():
        if key == ERROR_KEY:
            return _reported(ErrorInfo.FromString(value))
    details = error.details() or error.code().name
    match error.code():
        case grpc.StatusCode.UNAVAILABLE:
            return SlipknotServeException(f"the gateway at {address} cannot be reached: {details}")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return RequestTimeoutError(f"the call to {address} timed out")
        case grpc.StatusCode.CANCELLED:
            return RequestCancelledError("the call was cancelled")
        case grpc.StatusCode.INVALID_ARGUMENT:
            return ProtocolError(details)
        case grpc.StatusCode.UNAUTHENTICATED:
            return UnauthenticatedError(details)
        case grpc.StatusCode.PERMISSION_DENIED:
            return PermissionDeniedError(details)
        case code:
            return SlipknotServeException(f"{code.name}: {details}")


def _reported(info: ErrorInfo) -> Exception:
    if info.reason != USER_EXCEPTION:
        return from_error_info(info, allow_pickle=False)
    module, _, name = info.type_name.rpartition(".")
    kind = getattr(builtins, name, None) if module == "builtins" else None
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(info.message)
        except TypeError:
            pass  # it wants other arguments, as UnicodeDecodeError does
    return RemoteError(f"{info.type_name}: {info.message}", info.type_name)
