"""The gateway: HTTP-like requests and method calls over gRPC, from outside."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from slipknot import serve
from slipknot_proto.v1 import gateway_pb2, gateway_pb2_grpc
from slipknot_proto.v1.payload_pb2 import ErrorInfo, Payload
from tests.support.journal import Gate, Journal, Pen

from .conftest import RunningCluster, ServeApp

WAIT_S = 30.0


@pytest.fixture
def stub(cluster: RunningCluster) -> Iterator[Any]:
    with grpc.insecure_channel(cluster.gateway_address) as channel:
        yield gateway_pb2_grpc.GatewayServiceStub(channel)


@serve.deployment
class Model:
    def __init__(self, pen: Pen | None = None, gate: Gate | None = None) -> None:
        self._pen, self._gate = pen, gate

    async def __call__(self, request: Request) -> Response:
        body = await request.body()
        shown = f"{request.method} {request.url.path}?{request.url.query} {body.decode()}"
        return Response(shown, 201, {"x-model": "m"})

    def add(self, a: int, b: int = 1) -> int:
        return a + b

    async def count(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    def fails(self, text: str = "no such thing") -> None:
        raise ValueError(text)

    async def hang(self) -> None:
        assert self._pen is not None and self._gate is not None
        self._pen.note("started")
        try:
            await self._gate.passed()
        except asyncio.CancelledError:
            self._pen.note(f"cancelled {serve.get_request_context().cancel_reason}")
            raise
        self._pen.note("ran on")


def call(stub: Any, method: str, *args: Any, **kwargs: Any) -> Any:
    target = gateway_pb2.MethodTarget(
        method_name=method, args_json=json.dumps(args), kwargs_json=json.dumps(kwargs)
    )
    return stub.CallMethod(gateway_pb2.CallMethodRequest(target=target), timeout=WAIT_S)


def test_http_like_request(serve_app: ServeApp, stub: Any) -> None:
    serve_app(Model.bind())
    request = gateway_pb2.SendHttpRequestRequest(method="POST", path="/a?x=1", text="hé")
    response = stub.SendHttpRequest(request, timeout=WAIT_S)
    headers = {h.name: h.value for h in response.headers}
    assert (response.status, response.text, headers["x-model"]) == (201, "POST /a?x=1 hé", "m")
    assert headers["x-request-id"]


@pytest.mark.parametrize(
    "header", [("x a", "1"), ("x-a", "1\r\nx-b: 2"), ("x-a", "\N{SNOWMAN}")], ids=["name", "lines", "text"]
)
def test_bad_header(serve_app: ServeApp, stub: Any, header: tuple[str, str]) -> None:
    serve_app(Model.bind())
    headers = [gateway_pb2.HttpHeader(name=header[0], value=header[1])]
    with pytest.raises(grpc.RpcError) as caught:
        stub.SendHttpRequest(gateway_pb2.SendHttpRequestRequest(headers=headers), timeout=WAIT_S)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_long_error_text_is_cut(serve_app: ServeApp, stub: Any) -> None:
    serve_app(Model.bind())
    with pytest.raises(grpc.RpcError) as caught:
        call(stub, "fails", "\N{SNOWMAN}" * 10_000)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details().startswith("ValueError: \N{SNOWMAN}")


def test_unknown_path_is_404(serve_app: ServeApp, stub: Any) -> None:
    serve_app(Model.bind(), route_prefix="/m")
    response = stub.SendHttpRequest(gateway_pb2.SendHttpRequestRequest(path="/x"), timeout=WAIT_S)
    assert response.status == 404
    assert "Path '/x' not found" in response.text


def test_streamed_response_comes_chunk_for_chunk(
    serve_app: ServeApp, stub: Any, make_gate: Callable[..., Gate]
) -> None:
    @serve.deployment
    class Streams:
        def __init__(self, gate: Gate) -> None:
            self._gate = gate

        def __call__(self) -> StreamingResponse:
            return StreamingResponse(self._chunks())

        async def _chunks(self) -> AsyncIterator[bytes]:
            yield b"first"
            await self._gate.passed()
            yield b"second"

    gate = make_gate()
    serve_app(Streams.bind(gate))
    request = gateway_pb2.StreamHttpRequestRequest(request=gateway_pb2.SendHttpRequestRequest())
    parts = stub.StreamHttpRequest(request, timeout=WAIT_S)
    first = next(parts)
    bodies = [first.body]
    while not bodies[-1]:
        bodies.append(next(parts).body)
    assert (first.status, bodies[-1]) == (200, b"first")
    gate.open()
    assert [part.body for part in parts if part.body] == [b"second"]


def test_method_call_with_json(serve_app: ServeApp, stub: Any) -> None:
    serve_app(Model.bind())
    assert call(stub, "add", 40, b=2).result_json == "42"


def test_method_call_with_msgpack(serve_app: ServeApp, stub: Any) -> None:
    import msgpack

    serve_app(Model.bind())
    arguments = Payload(msgpack=msgpack.packb({"args": [1], "kwargs": {"b": 2}}))
    target = gateway_pb2.MethodTarget(method_name="add", arguments=arguments)
    response = stub.CallMethod(gateway_pb2.CallMethodRequest(target=target), timeout=WAIT_S)
    assert msgpack.unpackb(response.result.msgpack) == 3


def test_stream_of_items(serve_app: ServeApp, stub: Any) -> None:
    serve_app(Model.bind())
    target = gateway_pb2.MethodTarget(method_name="count", args_json="[300]")
    items = stub.StreamMethod(gateway_pb2.StreamMethodRequest(target=target), timeout=WAIT_S)
    assert [json.loads(item.item_json) for item in items] == list(range(300))


def test_user_error_has_type_and_text_but_no_traceback(serve_app: ServeApp, stub: Any) -> None:
    serve_app(Model.bind())
    with pytest.raises(grpc.RpcError) as caught:
        call(stub, "fails")
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details() == "ValueError: no such thing"
    metadata = dict(caught.value.trailing_metadata())
    info = ErrorInfo.FromString(metadata["slipknot-error-bin"])
    assert (info.type_name, info.traceback, info.pickled_exception) == ("builtins.ValueError", "", b"")


@pytest.mark.parametrize(
    ("target", "code"),
    [
        (gateway_pb2.MethodTarget(app_name="nobody"), grpc.StatusCode.NOT_FOUND),
        (gateway_pb2.MethodTarget(deployment_name="Nobody"), grpc.StatusCode.NOT_FOUND),
        (gateway_pb2.MethodTarget(method_name="nothing"), grpc.StatusCode.NOT_FOUND),
        (gateway_pb2.MethodTarget(args_json="{"), grpc.StatusCode.INVALID_ARGUMENT),
        (gateway_pb2.MethodTarget(args_json="{}"), grpc.StatusCode.INVALID_ARGUMENT),
        (gateway_pb2.MethodTarget(arguments=Payload(pickle=b"x")), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_bad_target(serve_app: ServeApp, stub: Any, target: Any, code: grpc.StatusCode) -> None:
    serve_app(Model.bind())
    with pytest.raises(grpc.RpcError) as caught:
        stub.CallMethod(gateway_pb2.CallMethodRequest(target=target), timeout=WAIT_S)
    assert caught.value.code() is code


def test_cancelled_rpc_cancels_the_method(
    serve_app: ServeApp, stub: Any, journal: Journal, make_gate: Callable[..., Gate]
) -> None:
    serve_app(Model.bind(journal.pen, make_gate()))
    target = gateway_pb2.MethodTarget(method_name="hang")
    future = stub.CallMethod.future(gateway_pb2.CallMethodRequest(target=target), timeout=WAIT_S)
    journal.wait_for("started")
    future.cancel()
    journal.wait_for("cancelled CLIENT_DISCONNECTED")
    assert journal.notes == ["started", "cancelled CLIENT_DISCONNECTED"]


def test_deadline_of_the_rpc_is_the_requests(
    serve_app: ServeApp, stub: Any, journal: Journal, make_gate: Callable[..., Gate]
) -> None:
    serve_app(Model.bind(journal.pen, make_gate()))
    target = gateway_pb2.MethodTarget(method_name="hang")
    with pytest.raises(grpc.RpcError) as caught:
        stub.CallMethod(gateway_pb2.CallMethodRequest(target=target), timeout=0.3)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    journal.wait_for("started")
    journal.wait_until(lambda notes: len(notes) == 2)
    assert journal.notes[1] in ("cancelled DEADLINE_EXCEEDED", "cancelled CLIENT_DISCONNECTED")


def test_lists_applications_and_health(serve_app: ServeApp, stub: Any) -> None:
    serve_app(Model.bind(), name="one")
    listed = stub.ListApplications(gateway_pb2.ListApplicationsRequest(), timeout=WAIT_S)
    assert list(listed.application_names) == ["one"]
    assert listed.epoch >= 1 and listed.snapshot_version >= 1
    assert stub.Healthz(gateway_pb2.HealthzRequest(), timeout=WAIT_S).message == "success"
