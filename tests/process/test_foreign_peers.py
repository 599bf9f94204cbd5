"""Strangers on the internal ports: nothing they send harms a cluster, and they are told what is wrong."""

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest

from slipknot import serve
from slipknot.testing import Cluster
from slipknot_controller.config import ControllerConfig
from slipknot_controller.main import Controller
from slipknot_core.rpc.access import TOKEN_KEY
from slipknot_core.rpc.channel import new_channel
from slipknot_core.rpc.credentials import NO_CREDENTIALS, Credentials
from slipknot_proto.v1 import (
    controller_pb2,
    controller_pb2_grpc,
    discovery_pb2,
    discovery_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
    replica_pb2,
    spec_pb2,
)
from tests.support.cluster_status import application, cluster_status, wait_until

pytestmark = pytest.mark.anyio

WAIT_S = 30.0
GARBAGE = bytes(range(256)) * 64


@serve.deployment
class Says:
    """Has something to say."""

    async def __call__(self) -> str:
        """Say it."""
        return "well"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster with an application that must not suffer."""
    with Cluster() as running:
        serve.run(Says.bind())
        yield running


@pytest.fixture(autouse=True)
def unharmed(cluster: Cluster) -> Iterator[None]:
    """After each test the cluster is what it was: same term, same replica, and it serves."""
    before = (cluster_status().epoch, replica().replica_id)
    yield
    assert httpx.get(cluster.url).text == "well"
    assert (cluster_status().epoch, replica().replica_id) == before


def replica() -> Any:
    """The replica's status."""
    return application().deployments[0].replicas[0]


def address_of(role: str, cluster: Cluster) -> str:
    """Where a role listens for gRPC."""
    return {
        "controller": cluster.controller_address,
        "replica": replica().address,
        "gateway": cluster.gateway_address,
    }[role]


def connect(address: str) -> socket.socket:
    """A plain connection."""
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address.removeprefix("unix:"))
    else:
        host, _, port = address.rpartition(":")
        connection = socket.create_connection((host, int(port)))
    connection.settimeout(WAIT_S)
    return connection


def read_to_end(connection: socket.socket) -> bytes:
    """All that comes until the peer closes."""
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionError:
        pass
    return received


# --- Bytes ---


@pytest.mark.parametrize("role", ["controller", "replica", "gateway"])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(GARBAGE, id="garbage"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n", id="http"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + GARBAGE, id="garbage-in-http2"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + GARBAGE, id="tls"),
    ],
)
def test_other_protocols_are_hung_up_on(cluster: Cluster, role: str, data: bytes) -> None:
    with connect(address_of(role, cluster)) as connection:
        try:
            connection.sendall(data)
        except ConnectionError:
            return
        assert b"well" not in read_to_end(connection)


@pytest.mark.parametrize("role", ["controller", "replica", "gateway"])
def test_connections_that_are_dropped_half_way_do_no_harm(cluster: Cluster, role: str) -> None:
    for data in (b"", b"PRI * HT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04"):
        for _ in range(20):
            with connect(address_of(role, cluster)) as connection:
                connection.sendall(data)


# --- Frames ---


@pytest.fixture
async def channel_to(cluster: Cluster) -> AsyncIterator[Callable[[str], grpc.aio.Channel]]:
    """Channels by address."""
    channels: list[grpc.aio.Channel] = []

    def connect_to(address: str) -> grpc.aio.Channel:
        channels.append(new_channel(address))
        return channels[-1]

    yield connect_to
    for channel in channels:
        await channel.close(None)


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    """Status and details that a call ends with."""
    async with asyncio.timeout(WAIT_S):
        if hasattr(call, "read"):
            try:
                while await call.read() is not grpc.aio.EOF:  # the status comes after the messages
                    pass
            except grpc.aio.AioRpcError:
                pass
        return await call.code(), await call.details()


def frames(*messages: replica_pb2.CallFrame) -> bytes:
    """A CallRequest."""
    return replica_pb2.CallRequest(frames=messages).SerializeToString()


def open_frame(**changes: Any) -> replica_pb2.CallFrame:
    """The beginning of a method call."""
    values = {"request_id": "x", "app_name": "default", "deployment_name": "Says"} | changes
    return replica_pb2.CallFrame(open=replica_pb2.Open(**values))


BODY = replica_pb2.CallFrame(body=replica_pb2.BodyChunk(data=b"x"))
UNKNOWN_FRAME = b"\x0a\x03\xba\x06\x00"  # frames: [field 103: ""]


@pytest.mark.parametrize(
    ("data", "details"),
    [
        pytest.param(GARBAGE, "CallRequest", id="no message"),
        pytest.param(UNKNOWN_FRAME, "unknown", id="unknown frame"),
        pytest.param(frames(BODY), "'body' without", id="body before open"),
        pytest.param(frames(open_frame()), "without a request", id="open without a request"),
        pytest.param(
            frames(replica_pb2.CallFrame(ws_close=replica_pb2.WebSocketClose(code=1000))),
            "'ws_close' without",
            id="close before open",
        ),
    ],
)
async def test_a_frame_that_is_not_legal_ends_the_stream_with_its_name(
    cluster: Cluster, channel_to: Any, data: bytes, details: str
) -> None:
    call = channel_to(replica().address).stream_stream("/slipknot.v1.ReplicaService/Call")()
    await call.write(data)
    code, text = await refusal(call)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details in text


async def test_a_second_open_within_an_exchange_ends_the_stream(cluster: Cluster, channel_to: Any) -> None:
    request = replica_pb2.HttpRequest(method="POST", path="/", raw_path=b"/", end_of_body=False)
    call = channel_to(replica().address).stream_stream("/slipknot.v1.ReplicaService/Call")()
    await call.write(frames(open_frame(http=request), open_frame(http=request)))
    code, text = await refusal(call)
    assert (code, "'open' while" in text) == (grpc.StatusCode.INVALID_ARGUMENT, True)


async def test_an_open_for_another_deployment_is_refused(cluster: Cluster, channel_to: Any) -> None:
    call = channel_to(replica().address).stream_stream(
        "/slipknot.v1.ReplicaService/Call", response_deserializer=replica_pb2.CallResponse.FromString
    )()
    await call.write(frames(open_frame(deployment_name="Other", method=replica_pb2.MethodCall())))
    async with asyncio.timeout(WAIT_S):
        response = await call.read()
    assert response.frames[0].refused.reason == replica_pb2.Refused.REASON_WRONG_DEPLOYMENT
    call.cancel()


async def test_an_unknown_method_is_unimplemented(cluster: Cluster, channel_to: Any) -> None:
    for address in (cluster.controller_address, replica().address):
        call = channel_to(address).unary_unary("/slipknot.v1.NoService/Nothing")(b"")
        code, _ = await refusal(call)
        assert code is grpc.StatusCode.UNIMPLEMENTED


# --- Members that are none ---


async def test_a_replica_of_an_unknown_deployment_is_told_that_nobody_wants_it(
    cluster: Cluster, channel_to: Any
) -> None:
    call = registry_pb2_grpc.RegistryServiceStub(channel_to(cluster.controller_address)).JoinReplica()
    hello = registry_pb2.ReplicaHello(
        replica_id="nobody#1", app_name="nobody", deployment_name="Nothing", address="unix:/nowhere"
    )
    await call.write(registry_pb2.JoinReplicaRequest(hello=hello))
    async with asyncio.timeout(WAIT_S):
        welcome = (await call.read()).welcome
    assert (welcome.accepted, "nobody/Nothing" in welcome.message) == (False, True)
    call.cancel()
    assert [a.name for a in cluster_status().applications] == ["default"]


@pytest.mark.parametrize("method", ["JoinReplica", "JoinNode"])
async def test_a_member_that_does_not_say_hello_is_refused(
    cluster: Cluster, channel_to: Any, method: str
) -> None:
    path = f"/slipknot.v1.RegistryService/{method}"
    request = registry_pb2.JoinReplicaRequest(load=registry_pb2.ReplicaLoad(ongoing=1)).SerializeToString()
    for data in (request, b""):
        call = channel_to(cluster.controller_address).stream_stream(path)()
        await call.write(data)
        code, text = await refusal(call)
        assert (code, "hello" in text) == (grpc.StatusCode.INVALID_ARGUMENT, True)


async def test_a_second_hello_ends_the_stream(cluster: Cluster, channel_to: Any) -> None:
    call = registry_pb2_grpc.RegistryServiceStub(channel_to(cluster.controller_address)).JoinNode()
    hello = registry_pb2.JoinNodeRequest(hello=registry_pb2.NodeHello(node_id="stranger"))
    await call.write(hello)
    await call.write(hello)
    code, text = await refusal(call)
    assert (code, "hello" in text) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    wait_until(lambda: [n.node_id for n in cluster_status().nodes if n.node_id == "stranger"] == [])


# --- Orders ---


@pytest.mark.parametrize(
    ("spec", "details"),
    [
        (spec_pb2.ApplicationSpec(), "no name"),
        (spec_pb2.ApplicationSpec(name="x"), "no deployments"),
    ],
)
async def test_an_application_that_makes_no_sense_is_refused(
    cluster: Cluster, channel_to: Any, spec: Any, details: str
) -> None:
    stub = controller_pb2_grpc.ControllerServiceStub(channel_to(cluster.controller_address))
    code, text = await refusal(
        stub.DeployApplication(controller_pb2.DeployApplicationRequest(application=spec))
    )
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details in text


async def test_code_that_cannot_be_read_fails_its_own_deploy_only(cluster: Cluster, channel_to: Any) -> None:
    stub = controller_pb2_grpc.ControllerServiceStub(channel_to(cluster.controller_address))
    spec = spec_pb2.ApplicationSpec(
        name="garbled",
        ingress_deployment="D",
        deployments=[
            spec_pb2.DeploymentSpec(
                name="D",
                code=spec_pb2.CodeSource(pickle=GARBAGE),
                num_replicas=1,
                max_ongoing_requests=1,
                max_queued_requests=-1,
                max_constructor_attempts=1,
                health_check_period_s=1,
                health_check_timeout_s=1,
                graceful_shutdown_wait_loop_s=1,
                backpressure_status_code=503,
            )
        ],
    )
    await stub.DeployApplication(controller_pb2.DeployApplicationRequest(application=spec))
    failed = await asyncio.to_thread(
        wait_until,
        lambda: (found := application("garbled")) and found.status == "DEPLOY_FAILED" and found,
    )
    assert "Traceback" in failed.message
    await asyncio.to_thread(serve.delete, "garbled")


async def test_a_config_that_is_none_is_refused(cluster: Cluster, channel_to: Any) -> None:
    stub = controller_pb2_grpc.ControllerServiceStub(channel_to(cluster.controller_address))
    for text in ("", "garbage", "[]", "{}", '{"applications": [1]}'):
        code, details = await refusal(stub.ApplyConfig(controller_pb2.ApplyConfigRequest(config_json=text)))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert details


# --- Credentials ---


@pytest.mark.parametrize("token", ["", "wrong", "secre", "secret2"])
async def test_without_the_token_nothing_is_read(token: str) -> None:
    controller = Controller(ControllerConfig(address="127.0.0.1:0", credentials=Credentials("secret")))
    await controller.start()
    try:
        async with grpc.aio.insecure_channel(controller.address) as channel:
            metadata = ((TOKEN_KEY, token),) if token else ()
            for method in ("ControllerService/GetStatus", "ControllerService/DeployApplication"):
                call = channel.unary_unary(f"/slipknot.v1.{method}")(GARBAGE, metadata=metadata)
                code, text = await refusal(call)
                assert (code, "SLIPKNOT_CLUSTER_TOKEN" in text) == (grpc.StatusCode.UNAUTHENTICATED, True)
            watch = discovery_pb2_grpc.DiscoveryServiceStub(channel).Watch
            code, _ = await refusal(watch(discovery_pb2.WatchRequest(), metadata=metadata))
            assert code is grpc.StatusCode.UNAUTHENTICATED
            stub = controller_pb2_grpc.ControllerServiceStub(channel)
            answer = await stub.GetStatus(
                controller_pb2.GetStatusRequest(), metadata=((TOKEN_KEY, "secret"),)
            )
            assert answer.status.epoch == 1
    finally:
        await controller.stop()


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "10.0.0.1:0", "example.com:0", ":0"])
async def test_an_internal_port_beyond_loopback_needs_a_strong_secret(address: str) -> None:
    for credentials in (NO_CREDENTIALS, Credentials("secret")):
        controller = Controller(ControllerConfig(address=address, credentials=credentials))
        with pytest.raises(ValueError, match="refusing to listen on"):
            await controller.start()
        await controller.stop()


async def test_tcp_without_a_token_is_refused() -> None:
    controller = Controller(ControllerConfig(address="127.0.0.1:0"))
    with pytest.raises(ValueError, match="SLIPKNOT_CLUSTER_TOKEN"):
        await controller.start()
    await controller.stop()


async def test_an_internal_address_that_is_taken_is_named() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        address = f"unix:{Path(directory) / 'c.sock'}"
        first, second = (Controller(ControllerConfig(address=address)) for _ in range(2))
        await first.start()
        try:
            with pytest.raises(OSError, match="cannot listen on unix:"):
                await second.start()
        finally:
            await second.stop()
            await first.stop()
