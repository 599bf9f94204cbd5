"""Each role lists its services and tells its health, so that grpcurl needs no .proto files."""

from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from slipknot import _connection, serve

from .conftest import RunningCluster, ServeApp

WAIT_S = 30.0
SERVICES = {
    "controller": "slipknot.v1.ControllerService",
    "proxy": "slipknot.v1.GatewayService",
    "replica": "slipknot.v1.ReplicaService",
}


@serve.deployment
class Says:
    """Has something to say."""

    def __call__(self) -> str:
        return "well"


def address_of(role: str, cluster: RunningCluster) -> str:
    """Where the role listens."""
    if role == "controller":
        return cluster.controller_address
    if role == "proxy":
        return cluster.gateway_address
    snapshot = _connection.current().dispatcher.snapshot
    (replica,) = snapshot.applications["default"].deployments["Says"].replicas
    return replica.address


def ask(channel: grpc.Channel, **question: Any) -> Any:
    """One question to the reflection service."""
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    requests = iter([reflection_pb2.ServerReflectionRequest(**question)])
    return next(stub.ServerReflectionInfo(requests, timeout=WAIT_S))


@pytest.mark.parametrize("role", SERVICES)
def test_services_are_listed_and_described(serve_app: ServeApp, cluster: RunningCluster, role: str) -> None:
    serve_app(Says.bind())
    service = SERVICES[role]
    with grpc.insecure_channel(address_of(role, cluster)) as channel:
        listed = ask(channel, list_services="").list_services_response
        assert {service, "grpc.health.v1.Health"} <= {found.name for found in listed.service}
        described = ask(channel, file_containing_symbol=service)
        assert described.file_descriptor_response.file_descriptor_proto


@pytest.mark.parametrize("role", SERVICES)
def test_health(serve_app: ServeApp, cluster: RunningCluster, role: str) -> None:
    serve_app(Says.bind())
    with grpc.insecure_channel(address_of(role, cluster)) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service=SERVICES[role]), timeout=WAIT_S)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
