"""Streaming responses: each item a chunk, at once."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import StreamingResponse

from slipknot import serve
from slipknot.serve.handle import DeploymentHandle
from tests.support.journal import Gate
from tests.support.raw_http import RawClient

from .conftest import RunningCluster, ServeApp

STEPS = 5


class _Gates:
    """A gate before each item."""

    def __init__(self, gates: list[Gate]) -> None:
        self._gates = gates

    def sync_items(self) -> Iterator[str]:
        for number, gate in enumerate(self._gates):
            gate.wait()
            yield f"item {number}"

    async def async_items(self) -> AsyncIterator[str]:
        for number, gate in enumerate(self._gates):
            await gate.passed()
            yield f"item {number}"


api = FastAPI()


@serve.deployment(max_ongoing_requests=10)
@serve.ingress(api)
class FastApiStreams(_Gates):
    """Streams from FastAPI routes."""

    @api.get("/sync")
    def sync(self) -> StreamingResponse:
        return StreamingResponse(self.sync_items(), 203, {"x-mine": "1"}, "foo/bar")

    @api.get("/async")
    async def async_(self) -> StreamingResponse:
        return StreamingResponse(self.async_items(), 203, {"x-mine": "1"}, "foo/bar")


@serve.deployment(max_ongoing_requests=10)
class PlainStreams(_Gates):
    """Streams from `__call__`."""

    async def __call__(self, request: Request) -> StreamingResponse:
        items: Any = self.sync_items() if request.url.path.endswith("/sync") else self.async_items()
        return StreamingResponse(items, 203, {"x-mine": "1"}, "foo/bar")


@serve.deployment(max_ongoing_requests=10)
class Source(_Gates):
    """Streams to handles."""

    async def items(self) -> AsyncIterator[str]:
        async for item in self.async_items():
            yield item


@serve.deployment(max_ongoing_requests=10)
class PassesOn:
    """Gives another deployment's stream to its client."""

    def __init__(self, source: DeploymentHandle) -> None:
        self._source = source.options(stream=True)

    async def __call__(self, request: Request) -> StreamingResponse:
        return StreamingResponse(self._source.items.remote(), 203, {"x-mine": "1"}, "foo/bar")


def _app(kind: str, gates: list[Gate]) -> serve.Application:
    if kind == "handle":
        return PassesOn.bind(Source.bind(gates))
    return (FastApiStreams if kind.startswith("fastapi") else PlainStreams).bind(gates)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["plain/sync", "plain/async", "fastapi/sync", "fastapi/async", "handle"])
async def test_each_item_is_a_chunk_at_once(
    cluster: RunningCluster, serve_app: ServeApp, make_gate: Any, kind: str
) -> None:
    """Each item arrives, alone in its chunk, while the generator waits for the next one."""
    gates = [make_gate(str(number)) for number in range(STEPS)]
    serve_app(_app(kind, gates), route_prefix="/s")
    client = await RawClient.connect(cluster.url.removeprefix("http://"))
    client.get(f"/s/{kind.rpartition('/')[2]}")
    gates[0].open()
    head = await client.read_head()
    assert (head.status, head.header("x-mine"), head.header("content-type")) == (203, "1", "foo/bar")
    for number in range(STEPS):
        gates[number].open()
        assert await client.read_chunk() == b"item %d" % number
    assert await client.read_chunk() == b""
    client.get("/s/nothing")
    assert (await client.read()).status in {203, 404}
    client.close()


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["plain/sync", "plain/async"])
async def test_streams_progress_side_by_side(
    cluster: RunningCluster, serve_app: ServeApp, make_gate: Any, kind: str
) -> None:
    """Several streams of one replica are under way at the same time."""
    gates = [make_gate(str(number)) for number in range(2)]
    serve_app(_app(kind, gates), route_prefix="/s")
    clients = [await RawClient.connect(cluster.url.removeprefix("http://")) for _ in range(4)]
    for client in clients:
        client.get(f"/s/{kind.rpartition('/')[2]}")
    for number, gate in enumerate(gates):
        gate.open()
        for client in clients:
            if number == 0:
                assert (await client.read_head()).status == 203
            assert await client.read_chunk() == b"item %d" % number
    for client in clients:
        assert await client.read_chunk() == b""
        client.close()


@pytest.mark.anyio
async def test_head_of_a_stream_does_not_wait_for_its_first_item(
    cluster: RunningCluster, serve_app: ServeApp, make_gate: Any
) -> None:
    """Status and headers are there while the generator has given nothing."""
    gate = make_gate()
    serve_app(_app("plain/async", [gate]), route_prefix="/s")
    client = await RawClient.connect(cluster.url.removeprefix("http://"))
    client.get("/s/async")
    assert (await client.read_head()).status == 203
    gate.open()
    assert await client.read_chunk() == b"item 0"
    assert await client.read_chunk() == b""
    client.close()


@pytest.mark.anyio
async def test_many_chunks_at_once_keep_their_boundaries(
    cluster: RunningCluster, serve_app: ServeApp
) -> None:
    """Chunks that travel together, in whatever number and size, are chunks of their own for the client."""
    draw = random.Random(7)
    sizes = [draw.choice((1, 9, 100, 2_000, 7_000, 9_000)) for _ in range(3_000)]

    @serve.deployment
    async def streams(request: Request) -> StreamingResponse:
        async def items() -> AsyncIterator[bytes]:
            for number, size in enumerate(sizes):
                yield number.to_bytes(2, "big").ljust(size, b".")[:size]
                if number % 500 == 499:
                    await asyncio.sleep(0)

        return StreamingResponse(items())

    serve_app(streams.bind())
    client = await RawClient.connect(cluster.url.removeprefix("http://"))
    client.get("/")
    assert (await client.read_head()).status == 200
    for number, size in enumerate(sizes):
        assert await client.read_chunk() == number.to_bytes(2, "big").ljust(size, b".")[:size], number
    assert await client.read_chunk() == b""
    client.close()


def test_large_and_small_chunks_arrive_whole(serve_app: ServeApp) -> None:
    """A stream of many sizes comes as it was yielded, beyond every window of flow control."""
    sizes = [1, 70_000, 3_000_000, 2, 0, 500_000, 1]

    @serve.deployment
    def streams(request: Request) -> StreamingResponse:
        return StreamingResponse(bytes([number]) * size for number, size in enumerate(sizes))

    with serve_app(streams.bind()).client.stream("GET", "/") as response:
        body = b"".join(response.iter_raw())
    assert body == b"".join(bytes([number]) * size for number, size in enumerate(sizes))


def test_stream_with_a_length_is_not_chunked(serve_app: ServeApp) -> None:
    """A stream whose length the handler knows is framed by it."""

    @serve.deployment
    def streams(request: Request) -> StreamingResponse:
        return StreamingResponse((b"x" * 10 for _ in range(3)), headers={"content-length": "30"})

    response: httpx.Response = serve_app(streams.bind()).client.get("/")
    assert (response.content, response.headers["content-length"]) == (b"x" * 30, "30")
    assert "transfer-encoding" not in response.headers
