"""Timeouts of requests and of idle connections."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import StreamingResponse

from slipknot import serve
from slipknot.serve.handle import DeploymentHandle
from slipknot.testing import Cluster
from tests.support.journal import Journal, Pen
from tests.support.raw_http import RawClient

from .conftest import RunningCluster, ServeApp

SHORT = {"x-request-timeout-seconds": "0.2", "x-request-id": "r1"}
TIMED_OUT = "Request r1 timed out after 0.2s."


@serve.deployment(max_ongoing_requests=10)
class Endless:
    """Waits for ever, as the path says, and notes how it ended."""

    def __init__(self, pen: Pen) -> None:
        self._pen = pen

    async def __call__(self, request: Request) -> Any:
        match request.url.path.rpartition("/")[2]:
            case "now":
                return "now"
            case "stream":
                return StreamingResponse(self._stream())
        await self.wait()
        return "never"

    async def wait(self) -> None:
        """Do nothing until cancelled."""
        self._pen.note("begun")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self._pen.note("cancelled")
            raise

    async def _stream(self) -> AsyncIterator[str]:
        yield "first"
        await self.wait()


def test_408_by_the_clients_header(serve_app: ServeApp, journal: Journal) -> None:
    """The handler is cancelled, the client told; the connection and the replica go on."""
    client = serve_app(Endless.bind(journal.pen)).client
    response = client.get("/", headers=SHORT)
    assert (response.status_code, response.text) == (408, TIMED_OUT)
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers.get_list("x-request-id") == ["r1"]
    journal.wait_for("cancelled")
    assert client.get("/now", headers=SHORT).text == "now"


def test_408_with_an_unread_body(serve_app: ServeApp, journal: Journal) -> None:
    """The answer gets through although the handler reads nothing of a large body."""
    client = serve_app(Endless.bind(journal.pen)).client
    response = client.post("/", headers=SHORT, content=b"x" * 5_000_000)
    assert (response.status_code, response.text) == (408, TIMED_OUT)
    journal.wait_for("cancelled")


def test_408_in_the_queue(serve_app: ServeApp, journal: Journal) -> None:
    """A request that never got a slot never starts."""
    app = serve_app(Endless.options(max_ongoing_requests=1).bind(journal.pen))
    blocking = app.handle.wait.remote()
    journal.wait_for("begun")
    response = app.client.get("/", headers=SHORT)
    assert (response.status_code, response.text) == (408, TIMED_OUT)
    blocking.cancel()
    journal.wait_for("cancelled")
    assert app.client.get("/now").text == "now"
    assert journal.notes == ["begun", "cancelled"]


def test_timeout_in_the_middle_of_a_stream(serve_app: ServeApp, journal: Journal) -> None:
    """The status has gone out already: the connection is cut."""
    client = serve_app(Endless.bind(journal.pen)).client
    with client.stream("GET", "/stream", headers=SHORT) as response:
        assert response.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            list(response.iter_raw())
    journal.wait_for("cancelled")


api = FastAPI()


@serve.deployment
@serve.ingress(api)
class Parent:
    """Awaits a child that never answers."""

    def __init__(self, child: DeploymentHandle) -> None:
        self._child = child

    @api.get("/await")
    async def by_await(self) -> None:
        await self._child.wait.remote()

    @api.get("/result")
    def by_result(self) -> None:
        self._child.wait.remote().result()


@pytest.mark.parametrize("way", ["await", "result"])
def test_408_while_a_child_runs(serve_app: ServeApp, journal: Journal, way: str) -> None:
    """The child is cancelled with its parent."""
    client = serve_app(Parent.bind(Endless.bind(journal.pen))).client
    response = client.get(f"/{way}", headers=SHORT)
    assert (response.status_code, response.text) == (408, TIMED_OUT)
    journal.wait_for("cancelled")


@pytest.mark.parametrize("value", ["0", "-1", "soon", "nan", ""])
def test_header_that_sets_no_timeout(serve_app: ServeApp, value: str) -> None:
    """Zero and less disable the timeout, and what is no number is ignored."""

    @serve.deployment
    async def handler() -> str:
        await asyncio.sleep(0.02)
        return "fine"

    client = serve_app(handler.bind()).client
    assert client.get("/", headers={"x-request-timeout-seconds": value}).text == "fine"


# --- configured ---


@pytest.fixture(scope="module")
def impatient() -> Iterator[Cluster]:
    """A cluster with a request timeout and a short keep-alive."""
    with Cluster(http_options={"request_timeout_s": 0.3, "keep_alive_timeout_s": 1}) as cluster:
        yield cluster


def test_configured_timeout(impatient: Cluster, journal: Journal) -> None:
    """`request_timeout_s` holds for every request; the header changes it for one."""
    impatient.run(Endless.bind(journal.pen))
    with httpx.Client(base_url=impatient.url) as client:
        response = client.get("/", headers={"x-request-id": "r1"})
        assert (response.status_code, response.text) == (408, "Request r1 timed out after 0.3s.")
        journal.wait_for("cancelled")
        assert client.get("/now").text == "now"
        response = client.get("/", headers=SHORT)
        assert response.text == TIMED_OUT
        journal.wait_for("cancelled", 2)
    impatient.delete()


def test_configured_timeout_can_be_lifted(impatient: Cluster) -> None:
    """0 in the header is no timeout at all."""

    @serve.deployment
    async def slow() -> str:
        await asyncio.sleep(0.5)
        return "done"

    impatient.run(slow.bind())
    assert httpx.get(impatient.url).status_code == 408
    assert httpx.get(impatient.url, headers={"x-request-timeout-seconds": "0"}).text == "done"
    impatient.delete()


# --- keep-alive ---


async def _idle_s(url: str) -> float:
    """How long a connection stays open after its last response."""
    loop = asyncio.get_running_loop()
    client = await RawClient.connect(url.removeprefix("http://"))
    client.get("/-/healthz")
    await client.read()
    since_s = loop.time()
    async with asyncio.timeout(20):
        assert await client.reader.read() == b""
    client.close()
    return loop.time() - since_s


@pytest.mark.anyio
async def test_keep_alive_by_config(impatient: Cluster) -> None:
    """An idle connection is closed after the configured time, and not before."""
    assert await _idle_s(impatient.url) > 0.9


@pytest.mark.anyio
async def test_keep_alive_by_default(cluster: RunningCluster) -> None:
    """Without configuration it is 5 seconds."""
    if cluster.mode == "in_process":
        pytest.skip("five seconds once are enough")
    idle_s = await _idle_s(cluster.url)
    assert 4.9 < idle_s < 15


@pytest.mark.anyio
@pytest.mark.parametrize(
    "name", ["SLIPKNOT_SERVE_HTTP_KEEP_ALIVE_TIMEOUT_S", "RAY_SERVE_HTTP_KEEP_ALIVE_TIMEOUT_S"]
)
async def test_keep_alive_by_environment(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The environment wins over the configuration, which would let this test hang."""
    monkeypatch.setenv(name, "1")
    with Cluster(http_options={"keep_alive_timeout_s": 3600}) as cluster:
        assert await _idle_s(cluster.url) > 0.9
