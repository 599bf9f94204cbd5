"""A cluster that refuses pickle: applications come as import paths, arguments and results as MessagePack."""

import asyncio
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import numpy
import pytest

from slipknot import _connection, _control, serve
from slipknot_core import errors, payloads
from slipknot_core.rpc.channel import new_channel, token_metadata
from slipknot_core.rpc.credentials import Credentials
from slipknot_proto.v1 import replica_pb2
from tests.support.cluster_status import application
from tests.support.tcp_cluster import TcpCluster

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]

APP = """
from slipknot import serve

@serve.deployment
class Inner:
    def echo(self, value, *, twice=False):
        return [value, value] if twice else value

    def count(self, number):
        yield from range(number)

    def object(self):
        return object()

    def fail(self):
        raise ValueError("no such luck")

@serve.deployment
class Outer:
    def __init__(self, inner): self._inner = inner

    async def __call__(self, value=None):
        return str(await self._inner.echo.remote({"from": "outer"}))

    async def send_object(self):
        return await self._inner.echo.remote(object())

app = Outer.bind(Inner.bind())
"""


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


@serve.deployment
class ByValue:
    def __call__(self) -> str:
        return "never"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TcpCluster]:
    directory = tmp_path_factory.mktemp("code")
    (directory / "no_pickle_app.py").write_text(textwrap.dedent(APP))
    config = {
        "applications": [
            {
                "name": "default",
                "import_path": "no_pickle_app:app",
                "runtime_env": {"working_dir": str(directory)},
            }
        ]
    }
    environment = {"SLIPKNOT_ALLOW_PICKLE": "false"}
    with TcpCluster(tmp_path_factory.mktemp("cluster"), nodes=1, environment=environment) as running:
        connection = _connection.current()
        connection.run(_control.apply_config(connection, json.dumps(config)))
        yield running


@pytest.fixture
def inner(cluster: TcpCluster) -> Any:
    return serve.get_deployment_handle("Inner", "default")


def test_an_application_by_value_is_refused_at_deploy(cluster: TcpCluster) -> None:
    with pytest.raises(errors.SlipknotServeException, match=r"allow_pickle is false.*import path"):
        serve.run(ByValue.bind(), name="by-value", route_prefix="/by-value")
    assert application("by-value") is None


def test_calls_go_without_pickle(cluster: TcpCluster, inner: Any) -> None:
    """Over HTTP, from replica to replica, from here, with arrays, and as a stream."""
    assert httpx.get(cluster.url, timeout=20.0).text == "{'from': 'outer'}"
    assert inner.echo.remote({"a": [1, b"2", None]}, twice=True).result() == [{"a": [1, b"2", None]}] * 2
    array = inner.echo.remote(numpy.arange(6.0).reshape(2, 3)).result()
    assert array.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert list(inner.options(stream=True).count.remote(3)) == [0, 1, 2]


def test_what_cannot_travel_is_named(cluster: TcpCluster, inner: Any) -> None:
    """Arguments where the call is made, results as an error of the call."""
    with pytest.raises(errors.SerializationError, match=r"argument 0 of .*no MessagePack form"):
        inner.echo.remote(object())
    with pytest.raises(errors.SerializationError, match="object has no MessagePack form"):
        inner.object.remote().result()
    with pytest.raises(
        errors.SlipknotServeException, match=r"argument 0 of .*object has no MessagePack form"
    ):
        serve.get_app_handle("default").send_object.remote().result()
    with pytest.raises(errors.SlipknotServeException, match="ValueError: no such luck"):
        inner.fail.remote().result()


async def test_a_members_pickle_is_not_read_either(cluster: TcpCluster, tmp_path: Path) -> None:
    """A peer that does not know that, or does not care, gets an error."""
    trace = tmp_path / "executed"
    (replica,) = next(d for d in application().deployments if d.name == "Inner").replicas
    open_ = replica_pb2.Open(
        request_id="r",
        app_name="default",
        deployment_name="Inner",
        method=replica_pb2.MethodCall(
            method_name="echo", arguments=payloads.encode_arguments((Bomb(trace),), {})
        ),
    )
    async with new_channel(replica.address, cluster.credentials) as channel:
        failure = await _failure_of(channel, cluster.credentials, open_)
    assert (failure.reason, "pickle" in failure.message) == ("SERIALIZATION", True)
    assert failure.pickled_exception == b""
    assert not await asyncio.to_thread(trace.exists)


async def _failure_of(channel: grpc.aio.Channel, credentials: Credentials, open_: replica_pb2.Open) -> Any:
    call = channel.stream_stream(
        "/slipknot.v1.ReplicaService/Call",
        request_serializer=replica_pb2.CallRequest.SerializeToString,
        response_deserializer=replica_pb2.CallResponse.FromString,
    )(metadata=token_metadata(credentials))
    await call.write(replica_pb2.CallRequest(frames=[replica_pb2.CallFrame(open=open_)]))
    try:
        while True:
            for frame in (await call.read()).frames:
                if frame.HasField("failure"):
                    return frame.failure.error
    finally:
        call.cancel()
