"""Who may do what on a cluster over TCP with mutual TLS and a token: every role at every method."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest

import slipknot
from slipknot import serve
from slipknot._certificates import Authority
from slipknot_core import errors, payloads
from slipknot_core.rpc.channel import REFUSALS, new_channel, token_metadata
from slipknot_core.rpc.credentials import NO_CREDENTIALS, Credentials, TlsFiles
from slipknot_core.rpc.roles import Role, required_role, role_token
from slipknot_proto.v1 import (
    controller_pb2,
    discovery_pb2,
    discovery_pb2_grpc,
    gateway_pb2,
    gateway_pb2_grpc,
    registry_pb2,
    replica_pb2,
)
from tests.support.cluster_status import application, cluster_status
from tests.support.tcp_cluster import TcpCluster

pytest.importorskip("cryptography", reason="needs cryptography: pip install slipknot[tls]")

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]

WAIT_S = 20.0
GARBAGE = bytes(range(256)) * 64
SECRET = "the-secret-of-this-cluster"
SERVICES = {
    "controller": (controller_pb2, discovery_pb2, registry_pb2),
    "gateway": (gateway_pb2,),
    "replica": (replica_pb2,),
}


@serve.deployment
class Inner:
    def __call__(self) -> str:
        return "well"


@serve.deployment
class Outer:
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def __call__(self, _value: Any = None) -> str:
        return await self._inner.remote()


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TlsFiles]:
    """Certificates of each role, an expired one, and one of another authority."""
    ours, others = tmp_path_factory.mktemp("ca"), tmp_path_factory.mktemp("other-ca")
    authority = Authority.open(ours)
    found = {str(role): authority.issue(ours, role) for role in Role}
    found["expired"] = authority.issue(ours, Role.MEMBER, name="expired", days=-1)
    foreign = Authority.open(others).issue(others, Role.MEMBER)
    found["foreign"] = TlsFiles(found["member"].ca, foreign.cert, foreign.key)
    found["foreign with its own ca"] = foreign
    return found


@pytest.fixture(scope="module")
def cluster(files: dict[str, TlsFiles], tmp_path_factory: pytest.TempPathFactory) -> Iterator[TcpCluster]:
    running = TcpCluster(
        tmp_path_factory.mktemp("cluster"),
        credentials=Credentials(SECRET, files["member"]),
        proxy_options={"gateway_access": "credentials"},
    )
    with running:
        serve.run(Outer.bind(Inner.bind()))
        yield running


@pytest.fixture(autouse=True)
def unharmed(cluster: TcpCluster) -> Iterator[None]:
    """After each test the cluster is what it was, and serves."""
    before = (cluster_status().epoch, replicas())
    yield
    assert httpx.get(cluster.url, timeout=WAIT_S).text == "well"
    assert (cluster_status().epoch, replicas()) == before


@pytest.fixture
async def channel_to(cluster: TcpCluster) -> AsyncIterator[Callable[..., grpc.aio.Channel]]:
    channels: list[grpc.aio.Channel] = []

    def connect(where: str, credentials: Credentials) -> grpc.aio.Channel:
        channels.append(new_channel(address_of(cluster, where), credentials))
        return channels[-1]

    yield connect
    for channel in channels:
        await channel.close(None)


def replicas() -> list[str]:
    return [r.replica_id for d in application().deployments for r in d.replicas]


def address_of(cluster: TcpCluster, where: str) -> str:
    return {
        "controller": cluster.address,
        "gateway": cluster.proxies[0].ready_line.split()[2],
        "replica": application().deployments[0].replicas[0].address,
    }[where]


async def outcome(channel: grpc.aio.Channel, method: str, credentials: Credentials) -> tuple[Any, str]:
    """How a call with a garbled message ends."""
    call = channel.unary_stream(method)(GARBAGE, metadata=token_metadata(credentials), timeout=WAIT_S)
    with contextlib.suppress(grpc.aio.AioRpcError):
        async for _ in call:
            pass
    return await call.code(), await call.details()


def with_token_of(role: Role, tls: TlsFiles) -> Credentials:
    return Credentials(role_token(SECRET, role), tls)


@pytest.mark.parametrize("role", list(Role), ids=str)
@pytest.mark.parametrize("where", list(SERVICES))
@pytest.mark.parametrize("by", ["token", "certificate"])
async def test_each_role_gets_as_far_as_the_table_says(
    files: dict[str, TlsFiles], channel_to: Callable[..., Any], role: Role, where: str, by: str
) -> None:
    """The message is garbled: a call that may not be made is refused before anybody notices that."""
    credentials = (
        with_token_of(role, files["member"]) if by == "token" else Credentials(SECRET, files[str(role)])
    )
    channel = channel_to(where, credentials)
    for module in SERVICES[where]:
        for service in module.DESCRIPTOR.services_by_name.values():
            for described in service.methods:
                method = f"/{service.full_name}/{described.name}"
                required = required_role(method)
                code, details = await outcome(channel, method, credentials)
                if required is not None and role < required:
                    assert code is grpc.StatusCode.PERMISSION_DENIED, (method, code, details)
                    assert f"role {required}" in details and f"{by} is a {role}'s" in details
                else:
                    assert code not in (*REFUSALS, grpc.StatusCode.OK), (method, code, details)


@pytest.mark.parametrize("where", list(SERVICES))
@pytest.mark.parametrize("token", ["", "a-token-of-another-cluster", SECRET[:-1], f"{SECRET}x"])
async def test_a_wrong_token_is_told_the_remedy(
    files: dict[str, TlsFiles], channel_to: Callable[..., Any], where: str, token: str
) -> None:
    """Whatever certificate comes with it."""
    credentials = Credentials(token, files["member"])
    channel = channel_to(where, credentials)
    for method in (
        "/slipknot.v1.ReplicaService/Call",
        "/slipknot.v1.ControllerService/GetStatus",
        "/no/thing",
    ):
        code, details = await outcome(channel, method, credentials)
        assert (code, "SLIPKNOT_CLUSTER_TOKEN" in details) == (grpc.StatusCode.UNAUTHENTICATED, True)


@pytest.mark.parametrize("where", list(SERVICES))
@pytest.mark.parametrize("certificate", ["foreign", "foreign with its own ca", "none"])
async def test_without_a_certificate_of_this_cluster_there_is_no_connection(
    files: dict[str, TlsFiles], channel_to: Callable[..., Any], where: str, certificate: str
) -> None:
    """The right token does not help."""
    credentials = Credentials(SECRET, files.get(certificate))
    channel = channel_to(where, credentials)
    code, _ = await outcome(channel, "/slipknot.v1.ControllerService/GetStatus", credentials)
    assert code is grpc.StatusCode.UNAVAILABLE


async def test_an_expired_certificate_is_named_at_home_and_refused_by_the_peer(
    cluster: TcpCluster, files: dict[str, TlsFiles]
) -> None:
    expired = files["expired"]
    with pytest.raises(ValueError, match="has expired"):
        new_channel(cluster.address, Credentials(SECRET, expired))
    paths = [Path(file) for file in (expired.ca, expired.key, expired.cert)]
    tls = grpc.ssl_channel_credentials(*[await asyncio.to_thread(path.read_bytes) for path in paths])
    options = [("grpc.ssl_target_name_override", Role.MEMBER.domain_name)]
    async with grpc.aio.secure_channel(cluster.address, tls, options=options) as channel:
        code, _ = await outcome(channel, "/slipknot.v1.ControllerService/GetStatus", Credentials(SECRET))
    assert code is grpc.StatusCode.UNAVAILABLE


async def test_a_deployer_is_no_proxy(files: dict[str, TlsFiles], channel_to: Callable[..., Any]) -> None:
    """Members tell their credentials to the proxies they are told of."""
    credentials = with_token_of(Role.DEPLOYER, files["member"])
    stub = discovery_pb2_grpc.DiscoveryServiceStub(channel_to("controller", credentials))
    request = discovery_pb2.WatchRequest(proxy=discovery_pb2.ProxyInfo(proxy_id="thief"))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await anext(aiter(stub.Watch(request)))
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert [proxy.proxy_id for proxy in cluster_status().proxies] == ["proxy-0"]


async def test_nothing_of_a_client_is_ever_unpickled(
    files: dict[str, TlsFiles], channel_to: Callable[..., Any], tmp_path: Path
) -> None:
    """Neither by a replica, which does not listen to clients, nor through the gateway, which does."""
    trace = tmp_path / "executed"
    arguments = payloads.encode_arguments((Bomb(trace),), {})
    credentials = Credentials(role_token(SECRET, Role.CLIENT), files["client"])
    open_ = replica_pb2.Open(
        request_id="r",
        app_name="default",
        deployment_name="Outer",
        method=replica_pb2.MethodCall(method_name="__call__", arguments=arguments),
    )
    frames = replica_pb2.CallRequest(frames=[replica_pb2.CallFrame(open=open_)])
    call = channel_to("replica", credentials).unary_stream(
        "/slipknot.v1.ReplicaService/Call", request_serializer=replica_pb2.CallRequest.SerializeToString
    )(frames)
    assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
    stub = gateway_pb2_grpc.GatewayServiceStub(channel_to("gateway", credentials))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.CallMethod(
            gateway_pb2.CallMethodRequest(target=gateway_pb2.MethodTarget(arguments=arguments))
        )
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not await asyncio.to_thread(trace.exists)
    # What a member sends is: this bomb works.
    await serve.get_app_handle("default").remote(Bomb(trace))
    assert await asyncio.to_thread(trace.exists)


async def test_clients_outside_use_the_gateway(cluster: TcpCluster, files: dict[str, TlsFiles]) -> None:
    """Both kinds of client, with a client's credentials; without, they are told."""
    address = address_of(cluster, "gateway")
    credentials = Credentials(role_token(SECRET, Role.CLIENT), files["client"])
    async with slipknot.AsyncClient(address, credentials=credentials, timeout_s=WAIT_S) as client:
        assert await client.get_app_handle("default").remote() == "well"
        assert (await client.request("GET", "/")).text == "well"

    def blocking(given: Credentials) -> str:
        with slipknot.Client(address, credentials=given, timeout_s=WAIT_S) as client:
            assert client.applications() == ["default"]
            result: str = client.get_app_handle("default").remote().result()
            return result

    assert await asyncio.to_thread(blocking, credentials) == "well"
    with pytest.raises(errors.UnauthenticatedError, match="SLIPKNOT_CLUSTER_TOKEN"):
        await asyncio.to_thread(blocking, Credentials("wrong", files["client"]))
    with pytest.raises(errors.SlipknotServeException, match="cannot be reached"):
        await asyncio.to_thread(blocking, NO_CREDENTIALS)


async def test_health_is_open_to_all_who_get_there(
    files: dict[str, TlsFiles], channel_to: Callable[..., Any]
) -> None:
    """Without a token; reflection wants one of any role."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    without, client = (
        Credentials(tls=files["client"]),
        Credentials(role_token(SECRET, Role.CLIENT), files["client"]),
    )
    for where in SERVICES:
        stub = health_pb2_grpc.HealthStub(channel_to(where, without))
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=WAIT_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        method = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        code, _ = await outcome(channel_to(where, without), method, without)
        assert code is grpc.StatusCode.UNAUTHENTICATED
        code, _ = await outcome(channel_to(where, client), method, client)
        assert code not in REFUSALS


def test_the_command_line_says_what_is_missing(cluster: TcpCluster, files: dict[str, TlsFiles]) -> None:
    """At once, not after a timeout."""
    credentials = [
        (Credentials("a-token-of-another-cluster", files["member"]), "SLIPKNOT_CLUSTER_TOKEN"),
        (with_token_of(Role.CLIENT, files["member"]), "needs the role deployer"),
    ]
    for given, message in credentials:
        done = subprocess.run(
            [sys.executable, "-m", "slipknot", "shutdown", "-y", "-a", cluster.address],
            env={**os.environ, **given.environment()},
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert (done.returncode, message in done.stderr) == (1, True), done.stderr
        assert "Traceback" not in done.stderr
