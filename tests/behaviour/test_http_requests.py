"""What a plain handler sees of a request, and what the client sees of its response's head."""

import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from slipknot import serve
from tests.support.journal import Gate, Journal, Pen
from tests.support.raw_http import RawClient

from .conftest import RunningCluster, ServeApp

PREFIX = "/requests"
HIGH_WATER_BYTES = 64 * 1024


@serve.deployment(max_ongoing_requests=50)
class Mirror:
    """Answers by the last segment of the path."""

    async def __call__(self, request: Request) -> Any:
        name = request.url.path.rpartition("/")[2]
        respond = getattr(self, f"_{name}", self._scope)
        return await respond(request)

    async def _scope(self, request: Request) -> Any:
        scope = request.scope
        names = ("method", "path", "root_path", "scheme", "http_version", "client", "server")
        return {name: scope[name] for name in names} | {
            "raw_path": scope["raw_path"].decode(),
            "query_string": scope["query_string"].decode(),
            "url": str(request.url),
            "headers": [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]],
        }

    async def _echo(self, request: Request) -> Response:
        return Response(await request.body(), media_type=request.headers.get("content-type"))

    async def _chunks(self, request: Request) -> Any:
        return [len(chunk) async for chunk in request.stream() if chunk]

    async def _form(self, request: Request) -> Any:
        async with request.form() as form:
            upload: Any = form["file"]
            return {"field": form["field"], "name": upload.filename, "size": len(await upload.read())}

    async def _headers(self, request: Request) -> Response:
        response = PlainTextResponse("x", headers={"x-request-id": "the handler's", "content-length": "1"})
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        return response

    async def _early(self, request: Request) -> str:
        return "early"

    async def _id(self, request: Request) -> str:
        return serve.get_request_context().request_id


@pytest.fixture(scope="module")
def mirror(cluster: RunningCluster) -> Iterator[httpx.Client]:
    """A client of the mirror."""
    serve.run(Mirror.bind(), name="requests", route_prefix=PREFIX)
    with httpx.Client(base_url=cluster.url + PREFIX, timeout=30.0) as client:
        yield client
    serve.delete("requests")


# --- what the handler sees ---


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
def test_every_method_reaches_the_handler(mirror: httpx.Client, method: str) -> None:
    """Any method is the handler's business."""
    assert mirror.request(method, "/x").json()["method"] == method


def test_head_has_the_headers_of_get_and_no_body(mirror: httpx.Client) -> None:
    """HEAD reaches the handler; only the body is left out."""
    head, get = mirror.head("/echo"), mirror.get("/echo")
    for name in ("content-length", "content-type", "server"):
        assert head.headers.get(name) == get.headers.get(name)
    assert (head.status_code, head.content) == (200, b"")
    long = mirror.head("/scope")
    assert int(long.headers["content-length"]) > 0
    assert long.content == b""
    assert mirror.get("/early").text == "early"


def test_scope(mirror: httpx.Client) -> None:
    """Path, prefix, addresses and query are those of the client's request."""
    response = mirror.get("/a%20b/%C3%A9?x=1&x=2&empty", headers={"x-mine": "1"})
    scope = response.json()
    assert scope["path"] == PREFIX + "/a b/é"
    assert scope["raw_path"] == PREFIX + "/a%20b/%C3%A9"
    assert scope["root_path"] == PREFIX
    assert scope["query_string"] == "x=1&x=2&empty"
    assert scope["http_version"] == "1.1"
    assert scope["scheme"] == "http"
    assert scope["server"] == [mirror.base_url.host, mirror.base_url.port]
    assert scope["client"][0] == "127.0.0.1"
    assert ["x-mine", "1"] in scope["headers"]
    response = mirror.get("/plain?x=1")
    assert response.json()["url"] == str(response.request.url)


def test_root_path_of_the_root_is_empty(serve_app: ServeApp) -> None:
    """An application at "/" has no prefix."""

    @serve.deployment
    def root(request: Request) -> Any:
        return [request.scope["root_path"], request.scope["path"]]

    assert serve_app(root.bind()).client.get("/x/").json() == ["", "/x/"]


def test_repeated_request_headers(mirror: httpx.Client) -> None:
    """Each of several equal headers arrives, in order."""
    scope = mirror.get("/x", headers=[("x-many", "1"), ("x-many", "2")]).json()
    assert [value for name, value in scope["headers"] if name == "x-many"] == ["1", "2"]


# --- bodies ---


@pytest.mark.parametrize("size", [0, 1, HIGH_WATER_BYTES, 10 * HIGH_WATER_BYTES, 100 * HIGH_WATER_BYTES + 7])
def test_body_arrives_unchanged(mirror: httpx.Client, size: int) -> None:
    """Bodies of any size, far beyond any buffer, come back as they went."""
    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    assert mirror.post("/echo", content=body).content == body


def test_chunked_upload_is_seen_in_chunks(mirror: httpx.Client) -> None:
    """A body without a length is more than one chunk for the handler."""
    sizes = mirror.post("/chunks", content=(b"x" * HIGH_WATER_BYTES for _ in range(20))).json()
    assert len(sizes) > 1
    assert sum(sizes) == 20 * HIGH_WATER_BYTES


def test_multipart_upload(mirror: httpx.Client) -> None:
    """Form fields and files arrive."""
    response = mirror.post("/form", data={"field": "v"}, files={"file": ("f.bin", b"x" * 300_000)})
    assert response.json() == {"field": "v", "name": "f.bin", "size": 300_000}


def test_answer_before_the_body_was_read(mirror: httpx.Client) -> None:
    """A handler need not read the body; the connection goes on."""
    for _ in range(2):
        assert mirror.post("/early", content=b"x" * 3_000_000).text == "early"


@pytest.mark.anyio
async def test_handler_reads_each_chunk_before_the_next_is_sent(
    cluster: RunningCluster, serve_app: ServeApp
) -> None:
    """An upload is passed on as it comes, and the answer may begin before it has ended."""

    @serve.deployment
    async def echo(request: Request) -> Response:
        from starlette.responses import StreamingResponse

        return StreamingResponse(chunk async for chunk in request.stream() if chunk)

    serve_app(echo.bind(), route_prefix="/live")
    client = await RawClient.connect(cluster.url.removeprefix("http://"))
    client.request("POST", "/live", transfer_encoding="chunked")
    client.chunk(b"one")
    assert (await client.read_head()).status == 200
    assert await client.read_chunk() == b"one"
    for part in (b"two", b"three"):
        client.chunk(part)
        assert await client.read_chunk() == part
    client.chunk(b"")
    assert await client.read_chunk() == b""
    client.close()


# --- the response's head ---


def test_handlers_headers_survive_once(mirror: httpx.Client) -> None:
    """Two cookies stay two; the length and the request id are there once."""
    response = mirror.get("/headers", headers={"x-request-id": "mine"})
    assert [value.split(";")[0] for value in response.headers.get_list("set-cookie")] == ["a=1", "b=2"]
    assert response.headers.get_list("content-length") == ["1"]
    assert response.headers.get_list("x-request-id") == ["mine"]
    assert response.headers.get_list("server") == ["uvicorn"]
    assert len(response.headers.get_list("date")) == 1


def test_request_id_is_made_up_if_there_is_none(mirror: httpx.Client) -> None:
    """Without a header a random UUID; the handler sees the same one."""
    ids = set()
    for _ in range(3):
        response = mirror.get("/id")
        assert response.headers["x-request-id"] == response.text
        assert uuid.UUID(response.text).version == 4
        ids.add(response.text)
    assert len(ids) == 3


@pytest.mark.parametrize("given", [None, "Mine-2"])
def test_request_id_is_among_the_headers_that_the_handler_sees(
    mirror: httpx.Client, given: str | None
) -> None:
    """Once, whoever made it: code that hands it on need not ask who did."""
    response = mirror.get("/scope", headers={"X-Request-ID": given} if given else {})
    seen = [value for name, value in response.json()["headers"] if name == "x-request-id"]
    assert seen == [response.headers["x-request-id"]]


@pytest.mark.parametrize("path", ["/id", "/scope", "/-/nothing"])
def test_request_id_of_the_client_comes_back(mirror: httpx.Client, path: str) -> None:
    """A given id is used verbatim and returned with every response."""
    response = mirror.get(path, headers={"X-Request-ID": "Mine-1"})
    assert response.headers.get_list("x-request-id") == ["Mine-1"]


# --- handlers ---


class _Quiet:
    async def __call__(self) -> str:
        return "method without a request"


def _startled() -> str:
    return "function without a request"


async def _async_startled() -> str:
    return "async function without a request"


async def _optional(request: Request | None = None) -> str:
    assert request is not None
    return request.method


class _SyncClass:
    def __init__(self) -> None:
        self._text = "sync class"

    def __call__(self, request: Request) -> str:
        return self._text


class _AsyncConstructor:
    async def __init__(self) -> None:  # type: ignore[misc]
        self._text = "async constructor"

    async def __call__(self, request: Request) -> str:
        return self._text


@pytest.mark.parametrize(
    ("handler", "text"),
    [
        (_Quiet, "method without a request"),
        (_startled, "function without a request"),
        (_async_startled, "async function without a request"),
        (_optional, "GET"),
        (_SyncClass, "sync class"),
        (_AsyncConstructor, "async constructor"),
    ],
)
def test_kinds_of_handlers(serve_app: ServeApp, handler: Any, text: str) -> None:
    """Sync or async, function or class, with or without a parameter."""
    response = serve_app(serve.deployment(handler).bind()).client.get("/")
    assert (response.status_code, response.text) == (200, text)


background_api = FastAPI()


@serve.deployment
class PlainBackground:
    """Leaves work behind, as Starlette has it."""

    def __init__(self, pen: Pen, gate: Gate) -> None:
        self._args = pen, gate

    async def __call__(self, request: Request) -> Response:
        return JSONResponse("answered", background=BackgroundTask(_background, *self._args))


@serve.deployment
@serve.ingress(background_api)
class FastApiBackground:
    """The same as FastAPI has it."""

    def __init__(self, pen: Pen, gate: Gate) -> None:
        self._args = pen, gate

    @background_api.get("/")
    def root(self, tasks: BackgroundTasks) -> str:
        tasks.add_task(_background, *self._args)
        return "answered"


@pytest.mark.parametrize("kind", [PlainBackground, FastApiBackground])
def test_background_task_runs_after_the_response(
    serve_app: ServeApp, journal: Journal, make_gate: Any, kind: Any
) -> None:
    """The client has its response while the task still waits; a new request is served meanwhile."""
    gate = make_gate()
    client = serve_app(kind.bind(journal.pen, gate)).client
    assert client.get("/").json() == "answered"
    journal.wait_for("begun")
    assert client.get("/").json() == "answered"
    journal.wait_for("begun", 2)
    assert "ended" not in journal.notes
    gate.open()
    journal.wait_for("ended", 2)


async def _background(pen: Pen, gate: Gate) -> None:
    pen.note("begun")
    await gate.passed()
    pen.note("ended")


# --- clients ---


@pytest.mark.anyio
async def test_http_1_0(cluster: RunningCluster, mirror: httpx.Client) -> None:
    """An HTTP/1.0 client gets a plain body and a closed connection."""
    client = await RawClient.connect(cluster.url.removeprefix("http://"))
    client.send(f"GET {PREFIX}/early HTTP/1.0\r\n\r\n".encode())
    response = await client.read()
    assert (response.status, response.body, response.chunks) == (200, b"early", None)
    assert response.header("connection") == "close"
    assert await client.ended()
    client.close()


@pytest.mark.anyio
async def test_pipelining(cluster: RunningCluster, mirror: httpx.Client) -> None:
    """Requests sent without waiting are answered in order."""
    client = await RawClient.connect(cluster.url.removeprefix("http://"))
    for number in range(5):
        client.request("POST", f"{PREFIX}/echo", b"%d" % number)
    assert [(await client.read()).body for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
    client.close()
