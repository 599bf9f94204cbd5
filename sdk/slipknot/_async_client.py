"""`slipknot.AsyncClient`: as `Client`, for asyncio. Belongs to the loop it is first used on."""

import asyncio
import weakref
from collections.abc import AsyncIterator, Generator, Mapping
from types import TracebackType
from typing import Any

import grpc.aio

from slipknot_core.errors import RequestCancelledError
from slipknot_core.rpc.channel import new_channel
from slipknot_core.rpc.credentials import Credentials
from slipknot_proto.v1 import gateway_pb2, gateway_pb2_grpc

from ._client_messages import (
    HttpResponse,
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


class AsyncClient:
    """Calls applications from outside. `repr` tells the address.

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
        self._credentials = gateway_credentials(address, credentials)
        self._is_closed = False
        self._timeout_s = checked_timeout(timeout_s)
        self._encoding = check_encoding(encoding)
        self._channel: grpc.aio.Channel | None = None
        self._calls: weakref.WeakSet[Any] = weakref.WeakSet()

    def __repr__(self) -> str:
        return f"<AsyncClient {self.address}>"

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel what runs and disconnect; calling it twice is fine."""
        self._is_closed = True
        for call in list(self._calls):
            call.cancel()
        if self._channel is not None:
            await self._channel.close(None)

    def get_app_handle(self, name: str = "") -> "AsyncClientHandle":
        """A handle to an application's ingress deployment; by default to the only application."""
        return AsyncClientHandle(self, Target(name, timeout_s=self._timeout_s, encoding=self._encoding))

    def get_deployment_handle(self, deployment_name: str, app_name: str = "") -> "AsyncClientHandle":
        """A handle to any deployment of an application."""
        target = Target(app_name, deployment_name, timeout_s=self._timeout_s, encoding=self._encoding)
        return AsyncClientHandle(self, target)

    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | str = b"",
        json: Any = None,
        timeout_s: float | None = None,
    ) -> HttpResponse:
        """Send an HTTP-like request and wait for the whole answer; as `Client.request`.

        Cancellation:
            Cancels the request.
        """
        message = http_request(method, path, headers, content, json)
        call = self._stub.SendHttpRequest(message, timeout=self._timeout(timeout_s))
        self._calls.add(call)
        return http_response(await _answer(call, self.address))

    def stream(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | str = b"",
        json: Any = None,
        timeout_s: float | None = None,
    ) -> "AsyncHttpStream":
        """Send an HTTP-like request whose answer is read chunk for chunk; an async context manager."""
        message = gateway_pb2.StreamHttpRequestRequest(
            request=http_request(method, path, headers, content, json)
        )
        call = self._stub.StreamHttpRequest(message, timeout=self._timeout(timeout_s))
        self._calls.add(call)
        return AsyncHttpStream(call, self.address)

    async def applications(self) -> list[str]:
        """Names of the applications that are deployed."""
        call = self._stub.ListApplications(gateway_pb2.ListApplicationsRequest(), timeout=self._timeout(None))
        return list((await _answer(call, self.address)).application_names)

    @property
    def _stub(self) -> Any:
        if self._is_closed:
            refuse_closed(self.address)
        if self._channel is None:
            self._channel = new_channel(self.address, self._credentials)
        return gateway_pb2_grpc.GatewayServiceStub(self._channel)

    def _begin(self, target: Target, args: Any, kwargs: Any) -> "AsyncClientResponse | AsyncClientStream":
        message = target.message(args, kwargs)
        if target.stream:
            stream = self._stub.StreamMethod(
                gateway_pb2.StreamMethodRequest(target=message), timeout=target.timeout_s
            )
            self._calls.add(stream)
            return AsyncClientStream(stream, self.address)
        call = self._stub.CallMethod(gateway_pb2.CallMethodRequest(target=message), timeout=target.timeout_s)
        self._calls.add(call)
        return AsyncClientResponse(call, self.address)

    def _timeout(self, timeout_s: float | None) -> float | None:
        return self._timeout_s if timeout_s is None else checked_timeout(timeout_s)


class AsyncClientHandle:
    """Calls one deployment: `await handle.method.remote(…)`, `await handle.remote(…)` for `__call__`."""

    def __init__(self, client: AsyncClient, target: Target) -> None:
        self._client, self._target = client, target

    def __repr__(self) -> str:
        target = self._target
        return f"<AsyncClientHandle {target.app_name}/{target.deployment_name}.{target.method_name}>"

    def __getattr__(self, name: str) -> "AsyncClientHandle":
        if name.startswith("_"):
            raise AttributeError(name)
        return self.options(method_name=name)

    def options(self, **options: Any) -> "AsyncClientHandle":
        """The same handle with `method_name`, `stream`, `multiplexed_model_id` or `timeout_s` changed.

        Raises:
            TypeError: There is no such option, or its value is of the wrong type.
            ValueError: `timeout_s` is negative.
        """
        return AsyncClientHandle(self._client, self._target.changed(options))

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Begin the call; returns an `AsyncClientResponse`, or an `AsyncClientStream` with `stream=True`.

        Raises:
            SerializationError: An argument cannot travel; names it.
            SlipknotServeException: The client is closed.
        """
        return self._client._begin(self._target, args, kwargs)


class AsyncClientResponse:
    """One call under way. Await it, also more than once; cancelling the awaiting task cancels the call."""

    def __init__(self, call: Any, address: str) -> None:
        self._call, self._address = call, address

    def __repr__(self) -> str:
        state = "cancelled" if self.cancelled() else "done" if self.done() else "pending"
        return f"<AsyncClientResponse of {self._address}: {state}>"

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the result.

        Raises:
            RequestCancelledError: It was cancelled by `cancel()`, or with the client.
            Exception: What the handler raised.
        """
        return self._value().__await__()

    def cancel(self) -> None:
        """Cancel what runs for this call; once it is done a no-op."""
        self._call.cancel()

    def cancelled(self) -> bool:
        """It was cancelled from here."""
        return bool(self._call.cancelled())

    def done(self) -> bool:
        """There is a result, or never will be."""
        return bool(self._call.done())

    async def _value(self) -> Any:
        response = await _answer(self._call, self._address)
        return read_value(response.result, response.result_json)


class AsyncClientStream:
    """The items of a generator method. Iterate over it once."""

    def __init__(self, call: Any, address: str) -> None:
        self._call, self._address = call, address
        self._items = self._read()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        """The next item.

        Raises:
            StopAsyncIteration: There are no more.
            RequestCancelledError: It was cancelled by `cancel()`, or with the client.
            Exception: What the handler raised.
        """
        return await anext(self._items)

    def cancel(self) -> None:
        """Cancel what runs for this call; once it is done a no-op."""
        self._call.cancel()

    async def _read(self) -> AsyncIterator[Any]:
        async for message in _messages(self._call, self._address):
            yield read_value(message.item, message.item_json)


class AsyncHttpStream:
    """An answer that is read chunk for chunk. Leaving the `async with` block early cancels the request.

    Attributes:
        status_code: As over HTTP.
        headers: In order, repeated ones repeated.
    """

    def __init__(self, call: Any, address: str) -> None:
        self._call, self._address = call, address
        self._messages = _messages(call, address)
        self._first = b""
        self.status_code = 0
        self.headers: tuple[tuple[str, str], ...] = ()

    async def __aenter__(self) -> "AsyncHttpStream":
        async for head in self._messages:
            self.status_code, self.headers, self._first = head.status, read_headers(head.headers), head.body
            break
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call.cancel()

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        """The body, chunk for chunk as the handler gave it."""
        if self._first:
            yield self._first
        async for message in self._messages:
            if message.body:
                yield message.body

    def cancel(self) -> None:
        """Cancel the request; once it is done a no-op."""
        self._call.cancel()


async def _answer(call: Any, address: str) -> Any:
    try:
        return await call
    except asyncio.CancelledError:
        _tell_whose_cancellation(call)
        raise
    except grpc.aio.AioRpcError as error:
        raise to_error(error, address) from None


async def _messages(call: Any, address: str) -> AsyncIterator[Any]:
    try:
        async for message in call:
            yield message
    except asyncio.CancelledError:
        _tell_whose_cancellation(call)
        raise
    except grpc.aio.AioRpcError as error:
        raise to_error(error, address) from None


def _tell_whose_cancellation(call: Any) -> None:
    """gRPC raises CancelledError also where the call was cancelled, not the task that waits for it."""
    task = asyncio.current_task()
    if call.cancelled() and (task is None or task.cancelling() == 0):
        raise RequestCancelledError("the call was cancelled") from None
