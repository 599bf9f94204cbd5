"""Clients for programs outside the cluster: over a proxy's gateway, without pickle, without Python on the
other side.

    with slipknot.Client("127.0.0.1:9000") as client:
        model = client.get_app_handle("default")
        print(model.predict.remote([1.0, 2.0]).result(timeout_s=5))
        for token in model.options(stream=True).generate.remote("hello"):
            print(token)
        print(client.request("POST", "/predict", json={"x": 1}).json())

Arguments and results are MessagePack (numpy arrays travel as buffers) or JSON. What a handler raised comes as
the same exception if its class is one of Python's own, else as `RemoteError`. `response.cancel()` and leaving
the `with` block cancel what runs in the cluster.
"""

import weakref
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import grpc

from slipknot_core.rpc.channel import new_blocking_channel, token_metadata
from slipknot_core.rpc.credentials import Credentials
from slipknot_proto.v1 import gateway_pb2, gateway_pb2_grpc

from ._async_client import AsyncClient, AsyncClientHandle
from ._client_messages import (
    HttpResponse,
    RemoteError,
    Target,
    check_encoding,
    checked_timeout,
    gateway_credentials,
    http_request,
    http_response,
    read_headers,
    read_value,
    refuse_closed,
    to_error,
)

__all__ = [
    "AsyncClient",
    "AsyncClientHandle",
    "Client",
    "ClientHandle",
    "ClientResponse",
    "ClientStream",
    "HttpResponse",
    "HttpStream",
    "RemoteError",
]


class Client:
    """Calls applications from outside; for any number of threads. `repr` tells the address.

    Args:
        address: The gateway's "host:port".
        timeout_s: For each call, in seconds; None: no limit.
        encoding: "msgpack" or "json".
        credentials: For a gateway that demands them. None: those of the environment, but none for a gateway
            on loopback, which is open.

    Raises:
        ValueError: The encoding is unknown.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:9000",
        *,
        timeout_s: float | None = None,
        encoding: str = "msgpack",
        credentials: Credentials | None = None,
    ) -> None:
        self.address = address
        self._timeout_s = checked_timeout(timeout_s)
        self._encoding = check_encoding(encoding)
        credentials = gateway_credentials(address, credentials)
        self._metadata = token_metadata(credentials)
        self._is_closed = False
        self._channel = new_blocking_channel(address, credentials)
        self._open_stub = gateway_pb2_grpc.GatewayServiceStub(self._channel)
        self._calls: weakref.WeakSet[Any] = weakref.WeakSet()

    def __repr__(self) -> str:
        return f"<Client {self.address}>"

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what runs and disconnect; calling it twice is fine."""
        self._is_closed = True
        for call in list(self._calls):
            call.cancel()
        self._channel.close()

    def get_app_handle(self, name: str = "") -> "ClientHandle":
        """A handle to an application's ingress deployment; by default to the only application."""
        return ClientHandle(self, Target(name, timeout_s=self._timeout_s, encoding=self._encoding))

    def get_deployment_handle(self, deployment_name: str, app_name: str = "") -> "ClientHandle":
        """A handle to any deployment of an application."""
        target = Target(app_name, deployment_name, timeout_s=self._timeout_s, encoding=self._encoding)
        return ClientHandle(self, target)

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | str = b"",
        json: Any = None,
        timeout_s: float | None = None,
    ) -> HttpResponse:
        """Send an HTTP-like request and wait for the whole answer.

        Args:
            method: "GET", "POST" …
            path: With the query, if any.
            headers: Of the request.
            content: Body; text is sent as UTF-8.
            json: Body, instead of `content`.
            timeout_s: Instead of the client's.

        Raises:
            RequestTimeoutError: The answer did not come in time; what ran was cancelled.
            SlipknotServeException: The gateway cannot be reached.
        """
        message = http_request(method, path, headers, content, json)
        call = self._stub.SendHttpRequest.future(
            message, timeout=self._timeout(timeout_s), metadata=self._metadata
        )
        self._calls.add(call)
        return http_response(_result(call, None, self.address))

    def stream(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | str = b"",
        json: Any = None,
        timeout_s: float | None = None,
    ) -> "HttpStream":
        """Send an HTTP-like request whose answer is read chunk for chunk; a context manager. As `request`."""
        message = gateway_pb2.StreamHttpRequestRequest(
            request=http_request(method, path, headers, content, json)
        )
        call = self._stub.StreamHttpRequest(
            message, timeout=self._timeout(timeout_s), metadata=self._metadata
        )
        self._calls.add(call)
        return HttpStream(call, self.address)

    def applications(self) -> list[str]:
        """Names of the applications that are deployed."""
        call = self._stub.ListApplications.future(
            gateway_pb2.ListApplicationsRequest(), timeout=self._timeout(None), metadata=self._metadata
        )
        return list(_result(call, None, self.address).application_names)

    @property
    def _stub(self) -> Any:
        if self._is_closed:
            refuse_closed(self.address)
        return self._open_stub

    def _begin(self, target: Target, args: Any, kwargs: Any) -> "ClientResponse | ClientStream":
        message = target.message(args, kwargs)
        if target.stream:
            call = self._stub.StreamMethod(
                gateway_pb2.StreamMethodRequest(target=message),
                timeout=target.timeout_s,
                metadata=self._metadata,
            )
            self._calls.add(call)
            return ClientStream(call, self.address)
        call = self._stub.CallMethod.future(
            gateway_pb2.CallMethodRequest(target=message), timeout=target.timeout_s, metadata=self._metadata
        )
        self._calls.add(call)
        return ClientResponse(call, self.address)

    def _timeout(self, timeout_s: float | None) -> float | None:
        return self._timeout_s if timeout_s is None else checked_timeout(timeout_s)


class ClientHandle:
    """Calls one deployment: `handle.method.remote(…)`, `handle.remote(…)` for `__call__`."""

    def __init__(self, client: Client, target: Target) -> None:
        self._client, self._target = client, target

    def __repr__(self) -> str:
        target = self._target
        return f"<ClientHandle {target.app_name}/{target.deployment_name}.{target.method_name}>"

    def __getattr__(self, name: str) -> "ClientHandle":
        if name.startswith("_"):
            raise AttributeError(name)
        return self.options(method_name=name)

    def options(self, **options: Any) -> "ClientHandle":
        """The same handle with `method_name`, `stream`, `multiplexed_model_id` or `timeout_s` changed.

        Raises:
            TypeError: There is no such option, or its value is of the wrong type.
            ValueError: `timeout_s` is negative.
        """
        return ClientHandle(self._client, self._target.changed(options))

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Begin the call; returns a `ClientResponse`, or a `ClientStream` with `stream=True`.

        Raises:
            SerializationError: An argument cannot travel; names it.
            SlipknotServeException: The client is closed.
        """
        return self._client._begin(self._target, args, kwargs)


class ClientResponse:
    """One call under way."""

    def __init__(self, call: Any, address: str) -> None:
        self._call, self._address = call, address

    def __repr__(self) -> str:
        state = "cancelled" if self.cancelled() else "done" if self.done() else "pending"
        return f"<ClientResponse of {self._address}: {state}>"

    def result(self, timeout_s: float | None = None) -> Any:
        """Wait for the result; may be asked again.

        Raises:
            TimeoutError: It is not there after `timeout_s`; the call goes on.
            RequestCancelledError: The call was cancelled.
            ValueError: `timeout_s` is negative.
            Exception: What the handler raised.
        """
        response = _result(self._call, checked_timeout(timeout_s), self._address)
        return read_value(response.result, response.result_json)

    def cancel(self) -> None:
        """Cancel what runs for this call; once it is done a no-op."""
        self._call.cancel()

    def cancelled(self) -> bool:
        """It was cancelled from here."""
        return bool(self._call.cancelled())

    def done(self) -> bool:
        """There is a result, or never will be."""
        return bool(self._call.done())


class ClientStream:
    """The items of a generator method. Iterate over it once."""

    def __init__(self, call: Any, address: str) -> None:
        self._call, self._address = call, address

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            message = next(self._call)
        except grpc.RpcError as error:
            raise to_error(error, self._address) from None
        return read_value(message.item, message.item_json)

    def cancel(self) -> None:
        """Cancel what runs for this call; once it is done a no-op."""
        self._call.cancel()


class HttpStream:
    """An answer that is read chunk for chunk. Leaving the `with` block early cancels the request.

    Attributes:
        status_code: As over HTTP.
        headers: In order, repeated ones repeated.
    """

    def __init__(self, call: Any, address: str) -> None:
        self._call, self._address = call, address
        self._first = b""
        self.status_code = 0
        self.headers: tuple[tuple[str, str], ...] = ()

    def __enter__(self) -> "HttpStream":
        head = self._next()
        if head is not None:
            self.status_code, self.headers, self._first = head.status, read_headers(head.headers), head.body
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call.cancel()

    def iter_bytes(self) -> Iterator[bytes]:
        """The body, chunk for chunk as the handler gave it."""
        if self._first:
            yield self._first
        while (message := self._next()) is not None:
            if message.body:
                yield message.body

    def cancel(self) -> None:
        """Cancel the request; once it is done a no-op."""
        self._call.cancel()

    def _next(self) -> Any:
        try:
            return next(self._call, None)
        except grpc.RpcError as error:
            raise to_error(error, self._address) from None


def _result(call: Any, timeout_s: float | None, address: str) -> Any:
    try:
        return call.result(timeout_s)
    except grpc.FutureTimeoutError:
        raise TimeoutError(f"no result after {timeout_s} s") from None
    except grpc.FutureCancelledError:
        raise to_error(call, address) from None
    except grpc.RpcError as error:
        raise to_error(error, address) from None
