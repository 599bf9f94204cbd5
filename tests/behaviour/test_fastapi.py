"""FastAPI ingress: a class is the view of an application, with all that FastAPI has."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Cookie,
    Depends,
    FastAPI,
    File,
    Form,
    Header,
    HTTPException,
    Query,
    Request,
    Response,
    UploadFile,
)
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from slipknot import serve
from slipknot.serve.handle import DeploymentHandle
from tests.support.journal import Journal, Pen

from .conftest import RunningCluster, ServeApp

PREFIX = "/api/v1"


class OddError(Exception):
    """Has a handler of its own."""


class Order(BaseModel):
    """A body, and part of an answer."""

    item: str
    count: int = 1


api = FastAPI(title="Shop", version="7")
api.add_middleware(CORSMiddleware, allow_origins=["https://friend.example"])
router = APIRouter(prefix="/routed", tags=["routed"])
inner = FastAPI()


@api.middleware("http")
async def mark(request: Request, call_next: Any) -> Response:
    """Marks each response."""
    response: Response = await call_next(request)
    response.headers["x-marked"] = request.url.path
    return response


@api.exception_handler(OddError)
async def on_odd(request: Request, error: OddError) -> JSONResponse:
    """Answers an exception."""
    return JSONResponse({"odd": str(error)}, 418)


@inner.get("/hello")
def inner_hello(request: Request) -> list[str]:
    """A route of a mounted application."""
    return [request.scope["root_path"], request.url.path]


async def session(request: Request) -> AsyncIterator[str]:
    """A dependency that is cleaned up after the answer."""
    yield "open"
    request.app.state.pen.note("session closed")


async def ask(text: str) -> str:
    """A dependency that calls another deployment."""
    answer: str = await serve.get_deployment_handle("Upper", "shop").remote(text)
    return answer


@serve.deployment
class Upper:
    """Downstream."""

    def __call__(self, text: str) -> str:
        return text.upper()


@api.get("/outside")
def outside() -> str:
    """Belongs to no class."""
    return "outside"


api.include_router(router, prefix="/more")
api.mount("/mounted", inner)


@serve.deployment(max_ongoing_requests=10)
@serve.ingress(api)
class Shop:
    """The view."""

    def __init__(self, upper: DeploymentHandle, pen: Pen) -> None:
        self.upper = upper
        self.pen = pen
        self.sold = 0

    @api.get("/sync")
    def sync(self) -> int:
        return self.sold

    @api.get("/own/{number}")
    async def own(self, number: int, factor: int = Query(default=2, le=9)) -> int:
        return self.sold + number * factor

    def undecorated(self, number: int) -> int:
        return number + 1

    @api.post("/orders", status_code=201, response_model=Order, response_model_exclude={"count"})
    async def order(self, order: Order) -> dict[str, Any]:
        return {**order.model_dump(), "secret": "not in the model"}

    @api.get("/header")
    async def header(self, response: Response, x_mine: str = Header(), tasty: str = Cookie()) -> list[str]:
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        return [x_mine, tasty]

    @api.post("/upload")
    async def upload(self, file: UploadFile, note: str = Form(), raw: bytes = File()) -> list[Any]:
        return [file.filename, len(await file.read()), note, len(raw)]

    @api.get("/session")
    async def session(self, request: Request, opened: str = Depends(session)) -> str:
        request.app.state.pen = self.pen
        return opened

    @api.get("/later")
    async def later(self, tasks: BackgroundTasks) -> str:
        tasks.add_task(self.pen.note, "later")
        return "now"

    @api.get("/odd")
    async def odd(self) -> None:
        raise OddError("three")

    @api.get("/teapot")
    async def teapot(self) -> None:
        raise HTTPException(418, {"why": "short"}, {"x-stout": "1"})

    @api.get("/crash")
    async def crash(self) -> None:
        raise ZeroDivisionError("a secret")

    @api.get("/upper")
    async def call_upper(self, text: str, asked: str = Depends(ask)) -> list[str]:
        return [await self.upper.remote(text), asked]

    @api.get("/urls")
    async def urls(self, request: Request) -> str:
        return str(request.url_for("own", number=3))

    @router.get("/{name}")
    async def routed(self, name: str) -> str:
        return f"{name} {type(self).__name__}"


@pytest.fixture(scope="module")
def shop(cluster: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, ...]]:
    """A client of `Shop`, a handle to it, and its journal."""
    with Journal(tmp_path_factory.mktemp("shop")) as journal:
        handle = serve.run(Shop.bind(Upper.bind(), journal.pen), name="shop", route_prefix=PREFIX)
        with httpx.Client(base_url=cluster.url + PREFIX, timeout=30.0) as client:
            yield client, handle, journal
        serve.delete("shop")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/outside", "outside"),
        ("/sync", 0),
        ("/own/4", 8),
        ("/own/4?factor=3", 12),
        ("/upper?text=abc", ["ABC", "ABC"]),
        ("/mounted/hello", [f"{PREFIX}/mounted", f"{PREFIX}/mounted/hello"]),
        ("/session", "open"),
    ],
)
def test_routes(shop: Any, path: str, expected: Any) -> None:
    response = shop[0].get(path)
    assert (response.status_code, response.json()) == (200, expected)
    assert response.headers["x-marked"] == PREFIX + path.partition("?")[0]


def test_urls_have_the_prefix(shop: Any) -> None:
    assert shop[0].get("/urls").json() == f"{shop[0].base_url}own/3"
    redirect = shop[0].get("/sync/")
    assert (redirect.status_code, redirect.headers["location"]) == (307, f"{shop[0].base_url}sync")


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        ("GET", "/nowhere", 404, "Not Found"),
        ("DELETE", "/sync", 405, "Method Not Allowed"),
        ("GET", "/teapot", 418, {"why": "short"}),
    ],
)
def test_errors_of_the_framework(shop: Any, method: str, path: str, status: int, detail: Any) -> None:
    response = shop[0].request(method, path)
    assert (response.status_code, response.json()) == (status, {"detail": detail})
    assert status != 405 or response.headers["allow"] == "GET"
    assert status != 418 or response.headers["x-stout"] == "1"


@pytest.mark.parametrize(
    ("method", "path", "where"),
    [
        ("GET", "/own/four", ["path", "number"]),
        ("GET", "/own/4?factor=10", ["query", "factor"]),
        ("GET", "/header", ["header", "x-mine"]),
        ("POST", "/orders", ["body"]),
    ],
)
def test_validation(shop: Any, method: str, path: str, where: list[str]) -> None:
    response = shop[0].request(method, path)
    assert (response.status_code, response.json()["detail"][0]["loc"]) == (422, where)


def test_errors_of_handlers(shop: Any) -> None:
    odd, crash = shop[0].get("/odd"), shop[0].get("/crash")
    assert (odd.status_code, odd.json()) == (418, {"odd": "three"})
    assert (crash.status_code, crash.text) == (500, "Internal Server Error")


def test_bodies_headers_and_cookies(shop: Any) -> None:
    client = shop[0]
    order = client.post("/orders", json={"item": "x"})
    assert (order.status_code, order.json()) == (201, {"item": "x"})
    seen = client.get("/header", headers={"x-mine": "1", "cookie": "tasty=yes"})
    assert seen.json() == ["1", "yes"]
    assert [cookie.partition(";")[0] for cookie in seen.headers.get_list("set-cookie")] == ["a=1", "b=2"]
    files = {"file": ("name.txt", b"x" * 300_000), "raw": b"four"}
    assert client.post("/upload", files=files, data={"note": "n"}).json() == ["name.txt", 300_000, "n", 4]
    origin = client.get("/sync", headers={"origin": "https://friend.example"}).headers
    assert origin["access-control-allow-origin"] == "https://friend.example"


def test_what_runs_after_the_response(shop: Any) -> None:
    assert shop[0].get("/later").json() == "now"
    shop[2].wait_for("later")
    assert shop[0].get("/session").json() == "open"
    shop[2].wait_for("session closed")


def test_methods_by_handle(shop: Any) -> None:
    """Those that are routes, and those that are not; the latter have no URL."""
    handle = shop[1]
    assert handle.undecorated.remote(41).result(timeout_s=10) == 42
    assert handle.own.remote(4, factor=1).result(timeout_s=10) == 4
    assert shop[0].get("/undecorated").status_code == 404


def test_routers(shop: Any) -> None:
    """A method that is a route of an included router gets `self`, as one of the application does."""
    response = shop[0].get("/more/routed/x")
    assert (response.status_code, response.json()) == (200, "x Shop")


def test_documentation(shop: Any, cluster: RunningCluster) -> None:
    schema = shop[0].get("/openapi.json").json()
    assert (schema["info"]["title"], schema["info"]["version"]) == ("Shop", "7")
    assert schema["servers"] == [{"url": PREFIX}]
    assert {"/own/{number}", "/outside", "/orders"} <= set(schema["paths"])
    parameters = schema["paths"]["/own/{number}"]["get"]["parameters"]
    assert [parameter["name"] for parameter in parameters] == ["number", "factor"]
    for page in ("/docs", "/redoc"):
        assert f"{PREFIX}/openapi.json" in shop[0].get(page).text


def test_own_paths_of_the_documentation(serve_app: ServeApp) -> None:
    own = FastAPI(docs_url="/my-docs", openapi_url="/my-schema.json", redoc_url=None)
    app = serve_app(serve.deployment(serve.ingress(own)()).bind(), name="own", route_prefix="/own")
    assert "/own/my-schema.json" in app.client.get("/my-docs").text
    assert app.client.get("/my-schema.json").status_code == 200
    assert {app.client.get(path).status_code for path in ("/docs", "/redoc")} == {404}
    assert serve.status().applications["own"].docs_path == "/my-docs"


# --- life ---


@pytest.mark.parametrize("is_async", [False, True])
def test_order_of_hooks(serve_app: ServeApp, journal: Journal, is_async: bool) -> None:
    """The constructor, the start-up hook, requests, the shutdown hook, `__del__`."""
    pen = journal.pen

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, int]]:
        pen.note("startup")
        yield {"number": 5}
        pen.note("shutdown")

    hooked = FastAPI(lifespan=lifespan)

    class Base:
        def __init__(self) -> None:
            pen.note("constructor")

        @hooked.get("/")
        async def number(self, request: Request) -> int:
            pen.note("request")
            number: int = request.state.number
            return number

    async def delete(self: Any) -> None:
        pen.note("del")

    Base.__del__ = delete if is_async else lambda self: pen.note("del")  # type: ignore[attr-defined]
    app = serve_app(serve.deployment(serve.ingress(hooked)(Base)).bind(), name="hooked")
    assert app.client.get("/").json() == 5
    serve.delete("hooked")
    journal.wait_for("del")
    assert journal.notes == ["constructor", "startup", "request", "shutdown", "del"]


def test_a_startup_hook_fails(serve_app: ServeApp) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        raise LookupError("no tables today")
        yield

    app = serve.deployment(serve.ingress(FastAPI(lifespan=lifespan))()).bind()
    with pytest.raises(RuntimeError, match="no tables today"):
        serve_app(app, name="failing")
    serve.delete("failing")


# --- one application, several classes ---


def test_routes_of_each_class(serve_app: ServeApp) -> None:
    """Each class serves its own methods and what belongs to none; what is added later is not served."""
    shared = FastAPI()

    @shared.get("/common")
    def common() -> str:
        return "common"

    @serve.deployment
    @serve.ingress(shared)
    class One:
        @shared.get("/one")
        def one(self) -> str:
            return "one"

    @shared.get("/late")
    def late() -> str:
        return "late"

    @serve.deployment
    @serve.ingress(shared)
    class Two:
        @shared.get("/two")
        def two(self) -> str:
            return "two"

    first = serve_app(One.bind(), name="first", route_prefix="/first").client
    second = serve_app(Two.bind(), name="second", route_prefix="/second").client
    paths = ("/common", "/one", "/late", "/two")
    assert [first.get(path).status_code for path in paths] == [200, 200, 404, 404]
    assert [second.get(path).status_code for path in paths] == [200, 404, 200, 200]
    assert set(first.get("/openapi.json").json()["paths"]) == {"/common", "/one"}


def test_a_class_that_derives_from_an_ingress(serve_app: ServeApp) -> None:
    base_api = FastAPI()

    @serve.ingress(base_api)
    class Base:
        word = "base"

        @base_api.get("/")
        def say(self) -> str:
            return self.word

    class Derived(Base):
        word = "derived"

    assert serve_app(serve.deployment(Derived).bind()).client.get("/").json() == "derived"
