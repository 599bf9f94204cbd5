"""Requests that two servers could read differently, and clients that take their time or take too much.

A shape is followed by a request that only a server that misreads the shape would see at another place.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse

from slipknot import serve
from slipknot.testing import Cluster
from tests.support.journal import Gate, Journal, Pen
from tests.support.raw_http import RawClient

from .conftest import RunningCluster

pytestmark = pytest.mark.anyio

HEAD = b"POST /outer HTTP/1.1\r\nhost: x\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nhost: x\r\n\r\n"

REFUSED = {
    "length-and-chunked": HEAD + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked-and-length": HEAD + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
    "equal-lengths": HEAD + b"content-length: 4\r\ncontent-length: 4\r\n\r\n1234",
    "different-lengths": HEAD + b"content-length: 4\r\ncontent-length: 0\r\n\r\n1234",
    "list-of-lengths": HEAD + b"content-length: 4, 4\r\n\r\n1234",
    "length-with-plus": HEAD + b"content-length: +4\r\n\r\n1234",
    "length-in-hex": HEAD + b"content-length: 0x4\r\n\r\n1234",
    "length-with-space": HEAD + b"content-length: 4 4\r\n\r\n1234",
    "length-beyond-64-bits": HEAD + b"content-length: 18446744073709551620\r\n\r\n1234",
    "empty-length": HEAD + b"content-length: \r\n\r\n1234",
    "space-before-colon": HEAD + b"content-length : 4\r\n\r\n1234",
    "coding-with-space-before-colon": HEAD + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "coding-like-chunked": HEAD + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding-identity": HEAD + b"transfer-encoding: identity\r\n\r\n0\r\n\r\n",
    "chunked-not-last": HEAD + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "two-codings": HEAD + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
    "chunked-twice": HEAD + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "vertical-tab": HEAD + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "quoted-coding": HEAD + b'transfer-encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "coding-with-parameter": HEAD + b"transfer-encoding: chunked;a=b\r\n\r\n0\r\n\r\n",
    "folded-coding": HEAD + b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "folded-header": HEAD + b"x: y\r\n transfer-encoding: chunked\r\n\r\n",
    "bare-lf-everywhere": b"POST /outer HTTP/1.1\nhost: x\ncontent-length: 4\n\n1234",
    "bare-lf-once": HEAD + b"x: y\ncontent-length: 4\r\n\r\n1234",
    "bare-cr": HEAD + b"x: y\rtransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "lf-cr": HEAD + b"x: y\n\rcontent-length: 4\r\n\r\n1234",
    "nul": HEAD + b"x: a\x00b\r\n\r\n",
    "chunk-size-beyond-64-bits": CHUNKED + b"10000000000000004\r\nabcd\r\n0\r\n\r\n",
    "chunk-size-with-0x": CHUNKED + b"0x4\r\nabcd\r\n0\r\n\r\n",
    "chunk-size-negative": CHUNKED + b"-1\r\nabcd\r\n0\r\n\r\n",
    "chunk-size-with-plus": CHUNKED + b"+4\r\nabcd\r\n0\r\n\r\n",
    "chunk-size-with-space": CHUNKED + b"4 \r\nabcd\r\n0\r\n\r\n",
    "chunk-size-bare-lf": CHUNKED + b"4\nabcd\r\n0\r\n\r\n",
    "chunk-data-bare-lf": CHUNKED + b"4\r\nabcd\n0\r\n\r\n",
    "chunk-longer-than-said": CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
    "chunks-end-bare-lf": CHUNKED + b"4\r\nabcd\r\n0\n\n",
    "chunk-extension-with-lf": CHUNKED + b"4;a\nb\r\nabcd\r\n0\r\n\r\n",
    "length-in-trailer": CHUNKED + b"4\r\nabcd\r\n0\r\ncontent-length: 5\r\n\r\n",
    "two-hosts": b"POST /outer HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n",
    "space-in-target": b"GET /outer /next HTTP/1.1\r\nhost: x\r\n\r\n",
    "space-before-header": b"GET /outer HTTP/1.1\r\n host: x\r\n\r\n",
    "http-0.9": b"GET /outer\r\n",
    "upgrade-with-both": HEAD + b"connection: upgrade\r\nupgrade: h2c\r\ntransfer-encoding: chunked\r\n"
    b"content-length: 4\r\n\r\n0\r\n\r\n",
    "gzip-and-chunked": HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
}
SERVED = {
    "tab": (HEAD + b"transfer-encoding:\tchunked\r\n\r\n0\r\n\r\n", b""),
    "capitals": (HEAD + b"Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n", b""),
    "chunk-extension": (CHUNKED + b"4;a=b\r\nabcd\r\n0\r\n\r\n", b"abcd"),
    "leading-zeros": (CHUNKED + b"0004\r\nabcd\r\n000\r\n\r\n", b"abcd"),
    "request-as-body": (HEAD + b"content-length: %d\r\n\r\n" % len(NEXT) + NEXT, NEXT),
    "underscores": (HEAD + b"content_length: 4\r\ntransfer_encoding: chunked\r\n\r\n", b""),
}


@serve.deployment(max_ongoing_requests=20)
class Tells:
    """Notes what it was asked, and answers with what it saw."""

    def __init__(self, pen: Pen) -> None:
        self._pen = pen

    async def __call__(self, request: Request) -> Any:
        body = await request.body()
        self._pen.note(f"{request.scope['path']} {len(body)}")
        return {"body": body.decode("latin-1"), "headers": [k for k, _ in request.headers.items()]}


@pytest.fixture(scope="module")
def told(cluster: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Journal]]:
    """Address of a cluster that serves, and what its handler notes."""
    with Journal(tmp_path_factory.mktemp("journal")) as journal:
        serve.run(Tells.bind(journal.pen), name="tells", route_prefix="/")
        yield cluster.url.removeprefix("http://"), journal
        serve.delete("tells")


async def _sent(address: str, data: bytes) -> RawClient:
    client = await RawClient.connect(address)
    client.send(data)
    return client


@pytest.mark.parametrize("shape", list(REFUSED))
async def test_what_could_be_misread_is_refused(told: tuple[str, Journal], shape: str) -> None:
    """With one answer and a closed connection; what follows is read by nobody."""
    address, journal = told
    before = len(journal.notes)
    client = await _sent(address, REFUSED[shape] + NEXT)
    response = await client.read()
    assert response.status in (400, 501)
    assert response.all("connection") == ["close"] and await client.ended()
    client.close()
    probe = await _sent(address, b"GET /probe HTTP/1.1\r\nhost: x\r\n\r\n")
    assert (await probe.read()).status == 200
    probe.close()
    assert journal.notes[before:] == ["/probe 0"]


@pytest.mark.parametrize("shape", list(SERVED))
async def test_what_is_merely_odd_is_read_as_the_standard_says(told: tuple[str, Journal], shape: str) -> None:
    """And the next request begins where this one ends."""
    address, journal = told
    before = len(journal.notes)
    data, body = SERVED[shape]
    client = await _sent(address, data + NEXT)
    assert [(await client.read()).status for _ in range(2)] == [200, 200]
    client.close()
    assert journal.notes[before:] == [f"/outer {len(body)}", "/next 0"]


async def test_trailers_are_no_headers(told: tuple[str, Journal]) -> None:
    """Whoever checked the head has not seen them."""
    client = await _sent(
        told[0], CHUNKED + b"4\r\nabcd\r\n0\r\nauthorization: me\r\nx-forwarded-for: 1.2.3.4\r\n\r\n"
    )
    found = httpx.Response(200, content=(await client.read()).body).json()
    assert found == {"body": "abcd", "headers": ["host", "transfer-encoding", "x-request-id"]}
    client.close()


@pytest.mark.parametrize(
    "endless",
    [
        pytest.param(b"4\r\nabcd\r\n0\r\nx-endless: ", id="trailer"),
        pytest.param(b"4;extension=", id="extension"),
        pytest.param(b"4\r\nabcd\r\n", id="size"),
    ],
)
async def test_between_the_data_of_a_body_there_are_bounds_too(
    told: tuple[str, Journal], endless: bytes
) -> None:
    """What is no data is held by nobody."""
    client = await _sent(told[0], CHUNKED + endless)
    try:
        for _ in range(200):
            client.send(b"0" * 10_000)
            await client.flush()
    except ConnectionError:
        pass
    assert (await client.read()).status in (400, 431)
    client.close()


# --- clients that take their time ---


@serve.deployment(max_ongoing_requests=20)
class Waits:
    """Reads bodies at once, behind a gate, or while it answers."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def __call__(self, request: Request) -> Any:
        if request.url.path.endswith("/gate"):
            await self._gate.passed()
        if request.url.path.endswith("/both"):
            return StreamingResponse(self._echo(request))
        return str(len(await request.body()))

    async def _echo(self, request: Request) -> AsyncIterator[bytes]:
        yield b"begun"
        async for chunk in request.stream():
            yield chunk


PATIENCE_S = 1.0
LONGER_S = 2 * PATIENCE_S


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    return Gate(tmp_path_factory.mktemp("gate") / "open")


@pytest.fixture(scope="module")
def impatient(gate: Gate) -> Iterator[str]:
    """Address of a cluster with little patience, for few."""
    options = {"head_timeout_s": PATIENCE_S, "body_timeout_s": PATIENCE_S, "max_connections": 8}
    with Cluster(http_options=options) as cluster:
        cluster.run(Waits.bind(gate))
        yield cluster.url.removeprefix("http://")


async def test_a_head_that_does_not_come_ends_the_connection(impatient: str) -> None:
    """Neither nothing nor a drop now and then keeps it."""
    for drops in (False, True):
        client = await _sent(impatient, b"" if not drops else b"GET / HTTP/1.1\r\n")
        dripping = asyncio.ensure_future(_drip(client, b"x: y\r\n")) if drops else None
        assert await client.ended()
        if dripping is not None:
            dripping.cancel()
        client.close()


async def _drip(client: RawClient, data: bytes) -> None:
    while True:
        client.send(data)
        await asyncio.sleep(PATIENCE_S / 10)


@pytest.mark.parametrize("data", [HEAD + b"content-length: 8\r\n\r\n1234", CHUNKED + b"4\r\n12"])
async def test_a_body_that_does_not_come_is_answered_with_408(impatient: str, data: bytes) -> None:
    """The handler that waits for it is cancelled, and the connection ends."""
    client = await _sent(impatient, data)
    response = await client.read()
    assert (response.status, response.body) == (408, b"The request's body did not arrive in time.")
    assert await client.ended()
    client.close()


async def test_who_is_being_answered_may_pause(impatient: str) -> None:
    """A conversation is no slow upload."""
    head = b"POST /both HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    client = await _sent(impatient, head + b"1\r\na\r\n")
    await asyncio.sleep(LONGER_S)
    client.send(b"1\r\nb\r\n0\r\n\r\n")
    assert (await client.read()).body == b"begunab"
    client.close()


async def test_who_waits_to_be_asked_may_wait(impatient: str, gate: Gate) -> None:
    """`expect: 100-continue` behind another request: nobody has asked for the body yet."""
    client = await _sent(impatient, b"GET /gate HTTP/1.1\r\nhost: x\r\n\r\n")
    client.send(HEAD + b"expect: 100-continue\r\ncontent-length: 4\r\n\r\n")
    await asyncio.sleep(LONGER_S)
    gate.open()
    assert (await client.read()).body == b"0"
    assert (await client.read_head()).status == 100
    client.send(b"1234")
    assert (await client.read()).body == b"4"
    client.close()


async def test_a_flood_of_connections_is_turned_away(impatient: str) -> None:
    """Those above the bound hear 503; later ones are served again."""
    clients = [await _sent(impatient, b"") for _ in range(24)]
    turned_away = [client for client in clients if await _hears_503(client)]
    assert 0 < len(turned_away) <= 24 - 8
    for client in clients:
        client.close()
    await _until_served(impatient)


async def _hears_503(client: RawClient) -> bool:
    try:
        return (await client.read()).status == 503
    except (AssertionError, EOFError, OSError):
        return False


async def _until_served(address: str) -> None:
    async with httpx.AsyncClient() as client:
        while (await client.post(f"http://{address}/", content=b"1234")).text != "4":
            await asyncio.sleep(0.01)
