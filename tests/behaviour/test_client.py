"""`slipknot.Client` and `slipknot.AsyncClient`: programs outside the cluster."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse

import slipknot
from slipknot import serve
from slipknot.client import RemoteError
from slipknot.serve.exceptions import (
    RequestCancelledError,
    RequestTimeoutError,
    SerializationError,
    SlipknotServeException,
)
from tests.support.journal import Gate, Journal, Pen

from .conftest import RunningCluster, ServeApp


class OwnError(Exception):
    pass


@serve.deployment
class Model:
    def __init__(self, pen: Pen | None = None, gate: Gate | None = None) -> None:
        self._pen, self._gate = pen, gate

    async def __call__(self, request: Request) -> Any:
        if request.url.path == "/stream":
            return StreamingResponse(self._chunks())
        return JSONResponse({"got": await request.json()}, headers={"x-a": "1"})

    async def _chunks(self) -> AsyncIterator[str]:
        yield "one"
        assert self._gate is not None
        try:
            await self._gate.passed()
        except asyncio.CancelledError:
            assert self._pen is not None
            self._pen.note("stream cancelled")
            raise
        yield "two"

    def double(self, array: numpy.ndarray[Any, Any]) -> numpy.ndarray[Any, Any]:
        return array * 2

    def echo(self, *args: Any, **kwargs: Any) -> Any:
        return [list(args), kwargs]

    async def count(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    def fails(self, own: bool) -> None:
        raise OwnError("mine") if own else ValueError("no such thing")

    async def hang(self) -> None:
        assert self._pen is not None and self._gate is not None
        self._pen.note("started")
        try:
            await self._gate.passed()
        except asyncio.CancelledError:
            self._pen.note("cancelled")
            raise
        self._pen.note("ran on")


@pytest.fixture
def client(cluster: RunningCluster) -> Iterator[slipknot.Client]:
    with slipknot.Client(cluster.gateway_address, timeout_s=15.0) as open_client:
        yield open_client


def test_call(serve_app: ServeApp, client: slipknot.Client) -> None:
    serve_app(Model.bind())
    model = client.get_app_handle("default")
    response = model.echo.remote(1, "a", b=[2.5, None, b"x"])
    assert response.result(timeout_s=10) == [[1, "a"], {"b": [2.5, None, b"x"]}]
    assert response.result() == [[1, "a"], {"b": [2.5, None, b"x"]}]
    assert client.applications() == ["default"]


def test_numpy_arrays_travel_as_buffers(serve_app: ServeApp, client: slipknot.Client) -> None:
    serve_app(Model.bind())
    array = numpy.arange(6, dtype=numpy.float32).reshape(2, 3)
    doubled = client.get_deployment_handle("Model", "default").double.remote(array).result()
    assert doubled.dtype == numpy.float32
    assert (doubled == array * 2).all()


def test_stream(serve_app: ServeApp, client: slipknot.Client) -> None:
    serve_app(Model.bind())
    assert list(client.get_app_handle().options(stream=True).count.remote(50)) == list(range(50))


def test_http_like_request(serve_app: ServeApp, client: slipknot.Client) -> None:
    serve_app(Model.bind())
    response = client.request("POST", "/", json={"x": 1})
    assert (response.status_code, response.json(), response.header("X-A")) == (200, {"got": {"x": 1}}, "1")


def test_errors_have_their_types(serve_app: ServeApp, client: slipknot.Client) -> None:
    serve_app(Model.bind())
    model = client.get_app_handle()
    with pytest.raises(ValueError, match="no such thing"):
        model.fails.remote(False).result()
    with pytest.raises(RemoteError, match="OwnError: mine"):
        model.fails.remote(True).result()
    with pytest.raises(SerializationError, match="argument"):
        model.echo.remote(object())


def test_unknown_names(serve_app: ServeApp, client: slipknot.Client) -> None:
    serve_app(Model.bind())
    with pytest.raises(SlipknotServeException, match="'nobody'"):
        client.get_app_handle("nobody").remote().result()
    with pytest.raises(SlipknotServeException, match="nothing"):
        client.get_app_handle().nothing.remote().result()


def test_nobody_there() -> None:
    with (
        slipknot.Client("127.0.0.1:1") as client,
        pytest.raises(SlipknotServeException, match=r"127\.0\.0\.1:1"),
    ):
        client.get_app_handle().remote().result()


def test_cancel(
    serve_app: ServeApp, client: slipknot.Client, journal: Journal, make_gate: Callable[..., Gate]
) -> None:
    serve_app(Model.bind(journal.pen, make_gate()))
    response = client.get_app_handle().hang.remote()
    journal.wait_for("started")
    with pytest.raises(TimeoutError):
        response.result(timeout_s=0.01)
    response.cancel()
    journal.wait_for("cancelled")
    with pytest.raises(RequestCancelledError):
        response.result()
    assert response.cancelled()
    assert journal.notes == ["started", "cancelled"]


def test_leaving_the_block_cancels(
    serve_app: ServeApp, cluster: RunningCluster, journal: Journal, make_gate: Callable[..., Gate]
) -> None:
    serve_app(Model.bind(journal.pen, make_gate()))
    with slipknot.Client(cluster.gateway_address) as client:
        response = client.get_app_handle().hang.remote()
        journal.wait_for("started")
    journal.wait_for("cancelled")
    with pytest.raises(RequestCancelledError):
        response.result()


def test_deadline(
    serve_app: ServeApp, client: slipknot.Client, journal: Journal, make_gate: Callable[..., Gate]
) -> None:
    serve_app(Model.bind(journal.pen, make_gate()))
    with pytest.raises(RequestTimeoutError):
        client.get_app_handle().options(timeout_s=0.3).hang.remote().result()
    journal.wait_for("cancelled")


def test_http_stream_is_cancelled_with_its_block(
    serve_app: ServeApp, client: slipknot.Client, journal: Journal, make_gate: Callable[..., Gate]
) -> None:
    serve_app(Model.bind(journal.pen, make_gate()))
    with client.stream("GET", "/stream") as response:
        assert (response.status_code, next(response.iter_bytes())) == (200, b"one")
    journal.wait_for("stream cancelled")


def test_async_client(
    serve_app: ServeApp, cluster: RunningCluster, journal: Journal, make_gate: Callable[..., Gate]
) -> None:
    serve_app(Model.bind(journal.pen, make_gate()))

    async def use() -> None:
        async with slipknot.AsyncClient(cluster.gateway_address) as client:
            model = client.get_app_handle("default")
            response = model.echo.remote(1)
            assert await response == await response == [[1], {}]
            assert [i async for i in model.options(stream=True).count.remote(5)] == list(range(5))
            assert (await client.request("POST", "/", json=[1])).json() == {"got": [1]}
            with pytest.raises(ValueError, match="no such thing"):
                await model.fails.remote(False)
            waiting = asyncio.ensure_future(_awaited(model.hang.remote()))
            await journal.wait_for_async("started")
            waiting.cancel()
            await journal.wait_for_async("cancelled")
            hanging = model.hang.remote()
            await journal.wait_for_async("started", 2)
        await journal.wait_for_async("cancelled", 2)
        with pytest.raises((RequestCancelledError, asyncio.CancelledError)):
            await hanging
        assert waiting.cancelled()

    asyncio.run(use())


async def _awaited(response: Any) -> Any:
    return await response


def test_options_are_checked(client: slipknot.Client) -> None:
    for handle in (client.get_app_handle(), slipknot.AsyncClient(client.address).get_app_handle()):
        with pytest.raises(TypeError, match="no option 'timeout'; the options are method_name"):
            handle.options(timeout=1)
        with pytest.raises(TypeError, match="method_name"):
            handle.options(method_name=3)
        with pytest.raises(TypeError, match="stream"):
            handle.options(stream="yes")
        with pytest.raises(ValueError, match="negative"):
            handle.options(timeout_s=-1)
    with pytest.raises(ValueError, match="negative"):
        client.request("GET", "/", timeout_s=-1)


@pytest.mark.parametrize("method", ["GE T", "GET / HTTP/1.1\r\nx:", "GÉT"])
def test_a_method_that_is_no_token_is_refused(
    serve_app: ServeApp, client: slipknot.Client, method: str
) -> None:
    """As over HTTP; it does not reach the handler."""
    serve_app(Model.bind())
    with pytest.raises(SlipknotServeException, match="is no HTTP request: the method"):
        client.request(method, "/")


def test_a_closed_client_says_so(serve_app: ServeApp, cluster: RunningCluster) -> None:
    serve_app(Model.bind())
    client = slipknot.Client(cluster.gateway_address)
    model = client.get_app_handle()
    assert model.echo.remote(1).result() == [[1], {}]
    client.close()
    for use in (model.echo.remote, model.options(stream=True).count.remote, client.applications):
        with pytest.raises(SlipknotServeException, match="is closed"):
            use()

    async def use_async() -> None:
        async_client = slipknot.AsyncClient(cluster.gateway_address)
        async_model = async_client.get_app_handle()
        assert await async_model.echo.remote(1) == [[1], {}]
        await async_client.close()
        with pytest.raises(SlipknotServeException, match="is closed"):
            await async_model.echo.remote(1)
        with pytest.raises(SlipknotServeException, match="is closed"):
            await async_client.applications()

    asyncio.run(use_async())


def test_cancel_of_the_async_client(
    serve_app: ServeApp, cluster: RunningCluster, journal: Journal, make_gate: Callable[..., Gate]
) -> None:
    """What was cancelled by `cancel()` raises RequestCancelledError, as elsewhere; not CancelledError."""
    serve_app(Model.bind(journal.pen, make_gate()))

    async def use() -> None:
        async with slipknot.AsyncClient(cluster.gateway_address) as client:
            model = client.get_app_handle()
            response = model.hang.remote()
            await journal.wait_for_async("started")
            waiting = asyncio.ensure_future(_awaited(response))
            await asyncio.sleep(0)
            assert "pending" in repr(response)
            response.cancel()
            for _ in range(2):
                with pytest.raises(RequestCancelledError):
                    await response
            with pytest.raises(RequestCancelledError):
                await waiting
            assert response.cancelled()
            assert "cancelled" in repr(response)
            await journal.wait_for_async("cancelled")
            stream = model.options(stream=True).count.remote(10**9)
            assert [await anext(stream), await anext(stream)] == [0, 1]
            stream.cancel()
            with pytest.raises(RequestCancelledError):
                async for _ in stream:
                    pass

    asyncio.run(use())
