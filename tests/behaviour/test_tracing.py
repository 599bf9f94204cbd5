"""W3C trace context through every hop while tracing is off."""

import json

import grpc

from slipknot_proto.v1 import gateway_pb2, gateway_pb2_grpc

from .conftest import RunningCluster, ServeApp
from .trace_apps import HEADERS, PARENT, TRACE, TRACEPARENT, Leaf, Root


def test_the_clients_context_travels_as_it_came(serve_app: ServeApp) -> None:
    """Into the handler and into what it calls; what is no context is dropped, and none is made."""
    client = serve_app(Root.bind(Leaf.bind())).client
    assert client.get("/deep/a", headers=HEADERS).json() == [[TRACEPARENT, "vendor=1"]] * 2
    assert client.get("/deep/a").json() == [["", ""]] * 2
    for broken in ("nonsense", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01", "0" * 5000):
        assert client.get("/deep/a", headers={**HEADERS, "traceparent": broken}).json() == [["", ""]] * 2
    long = {**HEADERS, "tracestate": "x" * 600}
    assert client.get("/deep/a", headers=long).json() == [[TRACEPARENT, ""]] * 2


def test_the_gateway_takes_it_from_metadata(cluster: RunningCluster, serve_app: ServeApp) -> None:
    """For method calls and HTTP-like requests."""
    serve_app(Root.bind(Leaf.bind()))
    with grpc.insecure_channel(cluster.gateway_address) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        target = gateway_pb2.MethodTarget(app_name="default", deployment_name="Leaf")
        metadata = tuple(HEADERS.items())
        answer = stub.CallMethod(gateway_pb2.CallMethodRequest(target=target), metadata=metadata)
        assert json.loads(answer.result_json) == [TRACEPARENT, "vendor=1"]
        request = gateway_pb2.SendHttpRequestRequest(path="/deep/a")
        response = stub.SendHttpRequest(request, metadata=metadata)
        assert json.loads(response.text) == [[TRACEPARENT, "vendor=1"]] * 2
