"""What a plain handler may return, and what the client gets for it."""

import dataclasses
import importlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pydantic
import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse

from slipknot import serve

from .conftest import RunningCluster, ServeApp

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
ERROR = (500, TEXT, b"Internal Server Error")


class Model(pydantic.BaseModel):
    """A model."""

    a: int = 1
    b: list[str] = ["x"]


@dataclasses.dataclass
class Record:
    """A dataclass."""

    a: int = 1
    nested: Model = dataclasses.field(default_factory=Model)


class Opaque:
    """Nothing can serialise it."""

    __slots__ = ()


def _items() -> Iterator[str]:
    yield "x"


async def _async_items() -> AsyncIterator[str]:
    yield "x"


def _itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def _of(module: str, make: Callable[[Any], Any]) -> Callable[[], Any]:
    return lambda: make(importlib.import_module(module))


VALUES: dict[str, tuple[Callable[[], Any], str, bytes]] = {
    "none": (lambda: None, "text/plain", b""),
    "str": (lambda: "héllo", TEXT, "héllo".encode()),
    "empty str": (lambda: "", TEXT, b""),
    "bytes": (lambda: b"\x00raw", "text/plain", b"\x00raw"),
    "bytearray": (lambda: bytearray(b"raw"), "text/plain", b"raw"),
    "memoryview": (lambda: memoryview(b"\x00raw")[1:], "text/plain", b"raw"),
    "dict": (lambda: {"a": [1, 2.5, None, True]}, JSON, b'{"a":[1,2.5,null,true]}'),
    "not ascii": (lambda: {"ä": "ö"}, JSON, '{"ä":"ö"}'.encode()),
    "list": (lambda: [1, 2], JSON, b"[1,2]"),
    "tuple": (lambda: (1, 2), JSON, b"[1,2]"),
    "set": (lambda: {3}, JSON, b"[3]"),
    "int": (lambda: 42, JSON, b"42"),
    "float": (lambda: 1.5, JSON, b"1.5"),
    "bool": (lambda: True, JSON, b"true"),
    "model": (Model, JSON, b'{"a":1,"b":["x"]}'),
    "dataclass": (Record, JSON, b'{"a":1,"nested":{"a":1,"b":["x"]}}'),
    "nested": (lambda: {"m": [Model()], "s": {1}}, JSON, b'{"m":[{"a":1,"b":["x"]}],"s":[1]}'),
    "array": (_of("numpy", lambda np: np.array([[1, 2], [3, 4]])), JSON, b"[[1,2],[3,4]]"),
    "scalar": (_of("numpy", lambda np: np.float32(1.5)), JSON, b"1.5"),
    "array inside": (_of("numpy", lambda np: {"x": np.arange(2)}), JSON, b'{"x":[0,1]}'),
    "frame": (_of("pandas", lambda pd: pd.DataFrame({"a": [1], "b": ["x"]})), JSON, b'[{"a":1,"b":"x"}]'),
}

RESPONSES: dict[str, tuple[Callable[[], Response], int, str, bytes]] = {
    "plain": (lambda: PlainTextResponse("x", 201), 201, TEXT, b"x"),
    "html": (lambda: HTMLResponse("<p>"), 200, "text/html; charset=utf-8", b"<p>"),
    "redirect": (lambda: RedirectResponse("/elsewhere"), 307, "", b""),
    "stream": (lambda: StreamingResponse(_items(), 418, media_type="foo/bar"), 418, "foo/bar", b"x"),
    "no content": (lambda: Response(status_code=204), 204, "", b""),
    "media": (lambda: Response(b"\xff", media_type="image/png"), 200, "image/png", b"\xff"),
}

UNSERIALISABLE: dict[str, Callable[[], Any]] = {
    "object": Opaque,
    "inside": lambda: {"x": Opaque()},
    "itself": _itself,
    "generator": _items,
    "async generator": _async_items,
}


@serve.deployment
class Returns:
    """Returns what the query names."""

    async def __call__(self, request: Request) -> Any:
        table, name = request.query_params["table"], request.query_params["name"]
        if table == "values":
            return VALUES[name][0]()
        if table == "responses":
            return RESPONSES[name][0]()
        return UNSERIALISABLE[name]()


@pytest.fixture(scope="module")
def returns(cluster: RunningCluster) -> Iterator[httpx.Client]:
    """A client of `Returns`."""
    serve.run(Returns.bind(), name="returns", route_prefix="/returns")
    with httpx.Client(base_url=cluster.url + "/returns", timeout=30.0) as client:
        yield client
    serve.delete("returns")


@pytest.mark.parametrize("name", VALUES)
def test_value_becomes_body(returns: httpx.Client, name: str) -> None:
    """Text for text and bytes, compact JSON for the rest."""
    _, content_type, body = VALUES[name]
    response = returns.get("", params={"table": "values", "name": name})
    assert (response.status_code, response.headers["content-type"], response.content) == (
        200,
        content_type,
        body,
    )
    assert response.headers["content-length"] == str(len(body))


@pytest.mark.parametrize("name", RESPONSES)
def test_response_passes_through(returns: httpx.Client, name: str) -> None:
    """Status, headers and media type are the handler's."""
    _, status, content_type, body = RESPONSES[name]
    response = returns.get("", params={"table": "responses", "name": name})
    assert (response.status_code, response.headers.get("content-type", ""), response.content) == (
        status,
        content_type,
        body,
    )
    if name == "redirect":
        assert response.headers["location"] == "/elsewhere"


@pytest.mark.parametrize("name", UNSERIALISABLE)
def test_what_cannot_be_serialised(returns: httpx.Client, name: str) -> None:
    """It is a 500 that tells nothing, and the replica goes on."""
    response = returns.get("", params={"table": "unserialisable", "name": name})
    assert (response.status_code, response.headers["content-type"], response.content) == ERROR
    assert returns.get("", params={"table": "values", "name": "int"}).json() == 42


def test_query_params_become_an_object(serve_app: ServeApp) -> None:
    """Starlette's QueryParams are no dict, but a mapping."""

    @serve.deployment
    def query(request: Request) -> Any:
        return request.query_params

    assert serve_app(query.bind()).client.get("/?k=qp").json() == {"k": "qp"}
