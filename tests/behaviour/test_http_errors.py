"""What a client gets when something fails: each row of the table of errors."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse

from slipknot import serve
from slipknot.serve.config import BackpressureConfig
from slipknot.serve.exceptions import ReplicaUnavailableError
from slipknot.serve.handle import DeploymentHandle
from tests.support.journal import Gate, Journal, Pen
from tests.support.raw_http import RawClient

from .conftest import RunningCluster, ServeApp

ERROR = (500, "text/plain; charset=utf-8", "Internal Server Error")
SECRET = "the secret of the handler"


def _seen(response: httpx.Response) -> tuple[int, str, str]:
    return response.status_code, response.headers.get("content-type", ""), response.text


# --- the handler raises ---


class _NoException(BaseException):
    """What `except Exception` does not see."""


@serve.deployment(max_ongoing_requests=10)
class Raises:
    """Raises what the query names."""

    async def __call__(self, request: Request) -> Any:  # noqa: C901 - one line for each kind
        match request.query_params["kind"]:
            case "ok":
                return "fine"
            case "http":
                raise HTTPException(418, SECRET)
            case "timeout":
                raise TimeoutError(SECRET)
            case "cancelled":
                raise asyncio.CancelledError(SECRET)
            case "cancels itself":
                future = asyncio.get_running_loop().create_future()
                future.cancel()
                await future
            case "exit":
                raise SystemExit(SECRET)
            case "interrupt":
                raise KeyboardInterrupt(SECRET)
            case "generator exit":
                raise GeneratorExit(SECRET)
            case "no Exception":
                raise _NoException(SECRET)
            case "stop iteration":
                return next(iter(()))
            case "group":
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._raise())
            case "recursion":
                return self._recurse()
            case "status":
                return PlainTextResponse("x", 1000)
            case _:
                raise RuntimeError(SECRET)

    async def _raise(self) -> None:
        raise RuntimeError(SECRET)

    def _recurse(self) -> Any:
        return [self._recurse()]


@pytest.fixture(scope="module")
def raises(cluster: RunningCluster) -> Iterator[httpx.Client]:
    """A client of `Raises`."""
    serve.run(Raises.bind(), name="raises", route_prefix="/raises")
    with httpx.Client(base_url=cluster.url + "/raises", timeout=30.0) as client:
        yield client
    serve.delete("raises")


@pytest.mark.parametrize(
    "kind",
    [
        "runtime",
        "http",
        "timeout",
        "cancelled",
        "cancels itself",
        "exit",
        "interrupt",
        "generator exit",
        "no Exception",
        "stop iteration",
        "group",
        "recursion",
        "status",
    ],
)
def test_handler_raises(raises: httpx.Client, kind: str) -> None:
    """Always the same 500 that tells nothing, on a connection and a replica that go on."""
    response = raises.get("", params={"kind": kind}, headers={"x-request-id": "r1"})
    assert _seen(response) == ERROR
    assert response.headers.get_list("x-request-id") == ["r1"]
    assert "connection" not in response.headers
    assert raises.get("", params={"kind": "ok"}).text == "fine"


def _sync_raises(request: Request) -> str:
    raise RuntimeError(SECRET)


def _takes_two(request: Request, other: int) -> str:
    return SECRET


def _keyword_only(*, request: Request) -> str:
    return SECRET


def _is_generator(request: Request) -> Iterator[str]:
    yield SECRET


async def _is_async_generator(request: Request) -> AsyncIterator[str]:
    yield SECRET


class _NoCall:
    def method(self) -> str:
        return SECRET


@pytest.mark.parametrize(
    "handler",
    [_sync_raises, _takes_two, _keyword_only, _is_generator, _is_async_generator, _NoCall],
)
def test_handler_that_cannot_be_called(serve_app: ServeApp, handler: Any) -> None:
    """Wrong arity, no `__call__`, an unwrapped generator: 500."""
    client = serve_app(serve.deployment(handler).bind()).client
    assert _seen(client.get("/")) == ERROR
    assert _seen(client.post("/", content=b"x" * 500_000)) == ERROR


def test_fastapi_errors_are_the_users(serve_app: ServeApp) -> None:
    """HTTPException and exception handlers of the application count; the rest is our 500."""
    api = FastAPI()

    class Mine(Exception):
        """Has a handler."""

    @api.exception_handler(Mine)
    async def handle(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse("handled", 409)

    @serve.deployment
    @serve.ingress(api)
    class Api:
        @api.get("/http")
        async def http(self) -> None:
            raise HTTPException(418, "teapot", headers={"x-tea": "green"})

        @api.get("/mine")
        async def mine(self) -> None:
            raise Mine

        @api.get("/other")
        async def other(self) -> None:
            raise RuntimeError(SECRET)

        @api.get("/sync")
        def sync(self) -> None:
            raise RuntimeError(SECRET)

        @api.post("/model")
        async def model(self, body: dict[str, int]) -> Any:
            return body

    client = serve_app(Api.bind()).client
    teapot = client.get("/http")
    assert (teapot.status_code, teapot.json(), teapot.headers["x-tea"]) == (
        418,
        {"detail": "teapot"},
        "green",
    )
    assert (client.get("/mine").status_code, client.get("/mine").text) == (409, "handled")
    for path in ("/other", "/sync"):
        response = client.get(path)
        assert (response.status_code, response.text) == ERROR[::2]
    bad = client.post("/model", content=b"{not json", headers={"content-type": "application/json"})
    assert (bad.status_code, bad.json()["detail"][0]["type"]) == (422, "json_invalid")
    assert client.post("/model", json={"a": 1}).json() == {"a": 1}


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_sync_endpoint_that_exits(serve_app: ServeApp, error: type[BaseException]) -> None:
    """It fails like any other; the replica and what else it does go on."""
    api = FastAPI()

    @serve.deployment
    @serve.ingress(api)
    class Api:
        @api.get("/exit")
        def exit(self) -> None:
            raise error(SECRET)

        @api.get("/pid")
        def pid(self) -> int:
            return os.getpid()

    client = serve_app(Api.bind()).client
    replica = client.get("/pid").json()
    response = client.get("/exit")
    assert (response.status_code, response.text) == ERROR[::2]
    assert client.get("/pid").json() == replica


@pytest.mark.parametrize("is_async", [True, False])
def test_error_in_the_middle_of_a_stream(serve_app: ServeApp, is_async: bool) -> None:
    """What was yielded arrives, then the connection breaks: nobody takes it for complete."""

    @serve.deployment
    class Streams:
        def _sync(self) -> Iterator[str]:
            yield "first"
            raise RuntimeError(SECRET)

        async def _async(self) -> AsyncIterator[str]:
            yield "first"
            raise RuntimeError(SECRET)

        async def __call__(self, request: Request) -> StreamingResponse:
            return StreamingResponse(self._async() if is_async else self._sync())

    client = serve_app(Streams.bind()).client
    with client.stream("GET", "/") as response:
        assert response.status_code == 200
        chunks = []
        with pytest.raises(httpx.RemoteProtocolError):
            for chunk in response.iter_raw():
                chunks.append(chunk)
    assert chunks == [b"first"]


@pytest.mark.anyio
async def test_error_in_the_middle_of_an_unsent_body(cluster: RunningCluster, serve_app: ServeApp) -> None:
    """The answer to HEAD is complete with its head: the connection serves the next request."""

    async def items() -> AsyncIterator[str]:
        yield "first"
        await asyncio.sleep(0.05)
        raise RuntimeError(SECRET)

    async def handler(request: Request) -> Any:
        return StreamingResponse(items()) if request.method == "HEAD" else "next"

    serve_app(serve.deployment(handler).bind())
    client = await RawClient.connect(cluster.url.removeprefix("http://"))
    client.request("HEAD")
    head = await client.read("HEAD")
    assert (head.status, head.all("connection")) == (200, [])
    client.get()
    assert (await client.read()).body == b"next"
    client.close()


# --- no room ---


@pytest.mark.parametrize(
    ("config", "status", "retry_after"),
    [
        (None, 503, []),
        (BackpressureConfig(status_code=429, retry_after_s=7), 429, ["7"]),
    ],
)
def test_full_queue(
    serve_app: ServeApp, journal: Journal, make_gate: Any, config: Any, status: int, retry_after: list[str]
) -> None:
    """Above `max_queued_requests` a request is turned away at once; those in the queue are served."""
    gate, pen = make_gate(), journal.pen

    async def slow(request: Request) -> str:
        pen.note("runs")
        await gate.passed()
        return "done"

    options: dict[str, Any] = {"max_ongoing_requests": 1, "max_queued_requests": 1}
    if config is not None:
        options["backpressure_config"] = config
    app = serve_app(serve.deployment(slow).options(**options).bind())
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(httpx.get, app.url, timeout=30)
        journal.wait_for("runs")
        others = [pool.submit(httpx.get, app.url, timeout=30) for _ in range(3)]
        refused: list[httpx.Response] = []
        while len(refused) < 2:
            refused = [other.result() for other in others if other.done()]
        gate.open()
        answers = [first.result(), *(other.result() for other in others)]
    for response in refused:
        assert response.status_code == status
        assert response.text.startswith("Request dropped due to backpressure")
        assert response.headers.get_list("retry-after") == retry_after
    assert [a.text for a in answers if a.status_code == 200] == ["done", "done"]


@serve.deployment(
    max_ongoing_requests=1,
    max_queued_requests=1,
    backpressure_config=BackpressureConfig(status_code=429, retry_after_s=7),
)
class Full:
    """Holds its only slot until the gate opens."""

    async def __call__(self, pen: Pen, gate: Gate) -> None:
        pen.note("full")
        await gate.passed()


full_api = FastAPI()


@serve.deployment
@serve.ingress(full_api)
class FullRoutes:
    """Calls a full deployment from FastAPI routes."""

    def __init__(self, child: DeploymentHandle, *args: Any) -> None:
        self._child, self._args = child, args

    @full_api.get("/await")
    async def by_await(self) -> Any:
        return await self._child.remote(*self._args)

    @full_api.get("/result")
    def by_result(self) -> Any:
        return self._child.remote(*self._args).result()


@serve.deployment
class FullPlain:
    """The same from a plain handler."""

    def __init__(self, child: DeploymentHandle, *args: Any) -> None:
        self._child, self._args = child, args

    async def __call__(self, request: Request) -> Any:
        return await self._child.remote(*self._args)


@pytest.mark.parametrize(
    ("parent", "path"), [(FullPlain, "/"), (FullRoutes, "/await"), (FullRoutes, "/result")]
)
def test_full_queue_further_down(
    serve_app: ServeApp, journal: Journal, make_gate: Any, parent: Any, path: str
) -> None:
    """A handler that does not catch the child's back pressure passes it on to the client."""
    gate = make_gate()
    app = serve_app(parent.bind(Full.bind(), journal.pen, gate))
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(httpx.get, app.url + path, timeout=30) for _ in range(3)]
        first, _ = wait(calls, return_when=FIRST_COMPLETED)
        gate.open()
    (response,) = (call.result() for call in first)
    assert response.status_code == 429
    assert response.headers.get_list("retry-after") == ["7"]
    assert response.text.startswith("Request dropped due to backpressure")
    assert sorted(call.result().status_code for call in calls) == [200, 200, 429]
    journal.wait_for("full", 2)


# --- nobody there ---


def test_failed_deployment(cluster: RunningCluster) -> None:
    """An application that could not be deployed is 503 and says so."""

    @serve.deployment
    class Broken:
        def __init__(self) -> None:
            raise RuntimeError("constructor failed")

        async def __call__(self, request: Request) -> str:
            return "never"

    try:
        with pytest.raises(RuntimeError, match="constructor failed"):
            serve.run(Broken.bind(), name="broken", route_prefix="/broken")
        response = httpx.get(cluster.url + "/broken")
        assert response.status_code == 503
        assert response.text.endswith("is unavailable because it failed to deploy.")
    finally:
        serve.delete("broken")


@serve.deployment
class Mortal:
    """Dies as the path says."""

    async def __call__(self, request: Request) -> Any:
        match request.url.path:
            case "/die":
                os.kill(os.getpid(), signal.SIGKILL)
                await asyncio.Event().wait()
            case "/stream":
                return StreamingResponse(self._stream())
        return str(os.getpid())

    async def _stream(self) -> AsyncIterator[str]:
        yield "first"
        await asyncio.sleep(0.05)  # the chunk is on its way before the process is not
        os.kill(os.getpid(), signal.SIGKILL)


def test_replica_process_dies(cluster: RunningCluster, serve_app: ServeApp) -> None:
    """While serving: 500; in the middle of a stream: cut; the next request waits for the replacement."""
    if cluster.mode == "in_process":
        pytest.skip("the replica is not a process of its own")
    client = serve_app(Mortal.bind()).client
    before = client.get("/").text
    assert _seen(client.get("/die")) == ERROR
    after = client.get("/")
    assert after.status_code == 200
    assert after.text != before
    with client.stream("GET", "/stream") as response:
        assert response.status_code == 200
        chunks = []
        with pytest.raises(httpx.RemoteProtocolError):
            for chunk in response.iter_raw():
                chunks.append(chunk)
    assert chunks == [b"first"]
    assert client.get("/").status_code == 200


lost_api = FastAPI()


@serve.deployment
@serve.ingress(lost_api)
class LostRoutes:
    """Calls a deployment that dies of it, from FastAPI routes."""

    def __init__(self, child: DeploymentHandle) -> None:
        self._child = child

    @lost_api.get("/await")
    async def by_await(self) -> Any:
        return await self._child.die.remote()

    @lost_api.get("/result")
    def by_result(self) -> Any:
        return self._child.die.remote().result()

    @lost_api.get("/caught")
    async def caught(self) -> str:
        try:
            await self._child.die.remote()
        except ReplicaUnavailableError as error:
            return type(error).__name__
        return "nothing was raised"


@serve.deployment
class LostPlain:
    """The same from a plain handler, and as a link of a longer chain."""

    def __init__(self, child: DeploymentHandle) -> None:
        self._child = child

    async def __call__(self, request: Request) -> Any:
        return await self._child.die.remote()

    async def die(self) -> None:
        await self._child.die.remote()


@serve.deployment
class DiesOfCalls:
    """Its process dies of a call."""

    async def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("app", "path"),
    [
        (LostPlain.bind(DiesOfCalls.bind()), "/"),
        (LostPlain.bind(LostPlain.options(name="Between").bind(DiesOfCalls.bind())), "/"),
        (LostRoutes.bind(DiesOfCalls.bind()), "/await"),
        (LostRoutes.bind(DiesOfCalls.bind()), "/result"),
    ],
)
def test_replica_further_down_dies(
    cluster: RunningCluster, serve_app: ServeApp, app: serve.Application, path: str
) -> None:
    """A handler that does not catch the loss of the replica that it called: 503, which tells no address."""
    if cluster.mode == "in_process":
        pytest.skip("the replica is not a process of its own")
    response = serve_app(app).client.get(path)
    assert _seen(response) == (
        503,
        "text/plain; charset=utf-8",
        "A replica was lost while it worked on this request.",
    )
    assert response.headers["x-request-id"]


def test_loss_of_a_replica_further_down_is_caught(cluster: RunningCluster, serve_app: ServeApp) -> None:
    if cluster.mode == "in_process":
        pytest.skip("the replica is not a process of its own")
    assert serve_app(LostRoutes.bind(DiesOfCalls.bind())).client.get("/caught").json() == (
        "ReplicaUnavailableError"
    )
