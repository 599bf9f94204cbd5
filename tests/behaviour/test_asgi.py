"""Ingress applications that are not FastAPI's: Starlette, plain ASGI, Django, WSGI."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.sync.client import connect

from slipknot import serve
from tests.support.journal import Journal, Pen

from .conftest import ServeApp

PREFIX = "/p"


# --- Starlette ---


def starlette_app(pen: Pen) -> Starlette:
    """Routes, a mount, a WebSocket, middleware and a lifespan with state."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
        pen.note("up")
        yield {"word": "stated"}
        pen.note("down")

    async def home(request: Request) -> Response:
        return JSONResponse([request.state.word, str(request.url_for("item", name="x"))])

    def item(request: Request) -> Response:
        return PlainTextResponse(request.path_params["name"])

    async def fail(request: Request) -> Response:
        raise KeyError("a secret")

    async def on_key_error(request: Request, error: Exception) -> Response:
        return PlainTextResponse("no such key", 410)

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text() + "!")
        await websocket.close()

    return Starlette(
        routes=[
            Route("/", home),
            Route("/item/{name}", item, name="item"),
            Route("/fail", fail),
            Mount("/inner", Starlette(routes=[Route("/item/{name}", item, methods=["POST"])])),
            WebSocketRoute("/ws", socket),
        ],
        middleware=[Middleware(CORSMiddleware, allow_origins=["https://friend.example"])],
        exception_handlers={KeyError: on_key_error},
        lifespan=lifespan,
    )


def test_starlette(serve_app: ServeApp, journal: Journal) -> None:
    pen = journal.pen
    app = serve_app(
        serve.deployment(serve.ingress(lambda: starlette_app(pen))()).bind(), name="st", route_prefix=PREFIX
    )
    journal.wait_for("up")
    home = app.client.get("/", headers={"origin": "https://friend.example"})
    assert home.json() == ["stated", f"{app.url}/item/x"]
    assert home.headers["access-control-allow-origin"] == "https://friend.example"
    assert app.client.get("/item/a%20b").text == "a b"
    assert app.client.post("/inner/item/deep").text == "deep"
    assert app.client.get("/inner/item/deep").status_code == 405
    assert (app.client.get("/fail").status_code, app.client.get("/fail").text) == (410, "no such key")
    assert app.client.get("/nowhere").status_code == 404
    with connect(app.websocket_url + "/ws") as websocket:
        websocket.send("hello")
        assert websocket.recv(10) == "hello!"
    assert "down" not in journal.notes
    serve.delete("st")
    journal.wait_for("down")


def test_starlette_application_on_a_class(serve_app: ServeApp) -> None:
    """The application itself instead of a function that makes it."""

    async def home(request: Request) -> Response:
        return PlainTextResponse(request.method)

    @serve.deployment
    @serve.ingress(Starlette(routes=[Route("/", home, methods=["GET", "PUT"])]))
    class Shop:
        def open_from(self) -> int:
            return 9

    app = serve_app(Shop.bind())
    assert (app.client.get("/").text, app.client.put("/").text) == ("GET", "PUT")
    assert app.client.delete("/").headers["allow"]
    assert app.handle.open_from.remote().result(timeout_s=10) == 9


# --- plain ASGI ---


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Knows HTTP only: any other protocol, lifespan too, is refused as ASGI says."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message["more_body"]:
            break
    if scope["path"].endswith("/crash"):
        raise ZeroDivisionError("a secret")
    head = f"{scope['method']} {scope['root_path']} {scope['path']} {scope['query_string'].decode()} "
    await send({"type": "http.response.start", "status": 202, "headers": [(b"X-Mine", b"1")]})
    await send({"type": "http.response.body", "body": head.encode(), "more_body": True})
    await send({"type": "http.response.body", "body": body})


class Object:
    """An application that is an object."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await echo(scope, receive, send)


@pytest.mark.parametrize("asgi", [echo, Object(), lambda: echo], ids=["function", "object", "builder"])
def test_plain_asgi(serve_app: ServeApp, asgi: Any) -> None:
    """Told apart from a builder by its signature; that it has no lifespan does not matter."""
    app = serve_app(serve.deployment(serve.ingress(asgi)()).bind(), name="plain", route_prefix=PREFIX)
    response = app.client.post("/a?b=c", content=b"body")
    assert (response.status_code, response.headers["x-mine"]) == (202, "1")
    assert response.text == "POST /p /p/a b=c body"
    failed = app.client.post("/crash")
    assert (failed.status_code, failed.text) == (500, "Internal Server Error")


async def silent(scope: Any, receive: Any, send: Any) -> None:
    """Returns without an answer, to lifespan as well."""


async def half(scope: Any, receive: Any, send: Any) -> None:
    """Sends a body before a start."""
    await send({"type": "http.response.body", "body": b"x"})


@pytest.mark.parametrize("asgi", [silent, half])
def test_broken_protocol(serve_app: ServeApp, asgi: Any) -> None:
    app = serve_app(serve.deployment(serve.ingress(asgi)()).bind())
    response = app.client.get("/")
    assert (response.status_code, response.text) == (500, "Internal Server Error")


async def never_starts(scope: Any, receive: Any, send: Any) -> None:
    """Says that its start-up failed."""
    assert (await receive())["type"] == "lifespan.startup"
    await send({"type": "lifespan.startup.failed", "message": "no tables"})


def test_failed_startup(serve_app: ServeApp) -> None:
    with pytest.raises(RuntimeError, match="no tables"):
        serve_app(serve.deployment(serve.ingress(never_starts)()).bind(), name="failing")
    serve.delete("failing")


# --- what `serve.ingress` takes ---


def test_name_of_an_ingress_without_a_class() -> None:
    assert serve.deployment(serve.ingress(echo)()).name == "ASGIIngressDeployment"


def test_what_cannot_be_decorated() -> None:
    with pytest.raises(ValueError, match=r"^@serve\.ingress must be used with a class\.$"):
        serve.ingress(echo)(lambda: None)
    with pytest.raises(
        ValueError, match=r"^Classes passed to @serve\.ingress may not have __call__ method\.$"
    ):
        serve.ingress(echo)(type("Called", (), {"__call__": lambda self: None}))


@pytest.mark.parametrize("app", [None, 42, Starlette, lambda one, two: None])
def test_what_is_no_application(app: Any) -> None:
    with pytest.raises(TypeError, match="application"):
        serve.ingress(app)


def test_a_builder_that_makes_no_application(serve_app: ServeApp) -> None:
    with pytest.raises(RuntimeError, match="return an ASGI application"):
        serve_app(serve.deployment(serve.ingress(lambda: 42)()).bind(), name="failing")
    serve.delete("failing")


# --- Django and WSGI ---


def django_app() -> Any:
    """A project in one function."""
    import django.conf  # type: ignore[import-untyped]
    from django.core.asgi import get_asgi_application  # type: ignore[import-untyped]
    from django.http import HttpRequest, HttpResponse  # type: ignore[import-untyped]
    from django.http import JsonResponse as DjangoJsonResponse
    from django.urls import path  # type: ignore[import-untyped]

    def home(request: HttpRequest, name: str) -> DjangoJsonResponse:
        body = request.body.decode()
        return DjangoJsonResponse(
            {"name": name, "method": request.method, "body": body, "path": request.path, "q": request.GET}
        )

    async def later(request: HttpRequest) -> HttpResponse:
        return HttpResponse("later", status=201)

    urls = type("urls", (), {"urlpatterns": [path("hello/<name>", home), path("later", later)]})
    if not django.conf.settings.configured:
        django.conf.settings.configure(
            ROOT_URLCONF=urls, ALLOWED_HOSTS=["*"], SECRET_KEY="not one", USE_TZ=True, LOGGING_CONFIG=None
        )
    return get_asgi_application()


def test_django(serve_app: ServeApp) -> None:
    app = serve_app(serve.deployment(serve.ingress(django_app)()).bind(), name="dj", route_prefix=PREFIX)
    response = app.client.post("/hello/you?a=b", content=b"body")
    assert response.json() == {
        "name": "you",
        "method": "POST",
        "body": "body",
        "path": "/p/hello/you",
        "q": {"a": "b"},
    }
    assert (app.client.get("/later").status_code, app.client.get("/later").text) == (201, "later")
    assert app.client.get("/nowhere").status_code == 404


def wsgi(environ: Any, start_response: Any) -> Iterable[bytes]:
    """An old application."""
    body = environ["wsgi.input"].read()
    start_response("202 Accepted", [("content-type", "text/plain"), ("x-mine", "1")])
    yield f"{environ['REQUEST_METHOD']} {environ['SCRIPT_NAME']} {environ['PATH_INFO']} ".encode()
    yield body


def wsgi_app() -> Any:
    """The old application as a new one."""
    from a2wsgi import WSGIMiddleware

    return WSGIMiddleware(wsgi)


def test_wsgi(serve_app: ServeApp) -> None:
    app = serve_app(serve.deployment(serve.ingress(wsgi_app)()).bind(), name="ws", route_prefix=PREFIX)
    body = b"x" * 200_000
    response = app.client.post("/a", content=body)
    assert (response.status_code, response.headers["x-mine"]) == (202, "1")
    assert response.content == b"POST /p /a " + body
