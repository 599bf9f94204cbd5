"""HTTP adapters: what a plain handler gets instead of the request, and the same functions as dependencies."""

import io
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import httpx
import numpy
import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from PIL import Image
from pydantic import BaseModel
from starlette.requests import Request

from slipknot import serve
from slipknot.serve import http_adapters

from .conftest import RunningCluster, ServeApp


class Item(BaseModel):
    """A body."""

    name: str
    count: int = 1


def language(accept_language: str = Header(default="en")) -> str:
    """A dependency of an adapter."""
    return accept_language


async def greeting(name: str, times: int = 1, words: str = Depends(language)) -> str:
    """An adapter of one's own: query parameters and a dependency."""
    if name == "nobody":
        raise HTTPException(418, "there is nobody")
    return f"{words} {name}" * times


def told(value: Any) -> Any:
    """What came in, as JSON."""
    if isinstance(value, numpy.ndarray):
        return ["ndarray", str(value.dtype), list(value.shape), value.ravel().tolist()]
    if isinstance(value, dict) and all(isinstance(item, numpy.ndarray) for item in value.values()):
        return {name: told(item) for name, item in value.items()}
    if isinstance(value, BaseModel):
        return [type(value).__name__, value.model_dump()]
    if isinstance(value, Request):
        return ["Request", value.method, value.url.path]
    if isinstance(value, str):
        return ["str", value]
    if hasattr(value, "to_dict"):
        return ["DataFrame", value.to_dict("list")]
    return value


def picture() -> bytes:
    """A PNG of 2 x 1 pixels."""
    file = io.BytesIO()
    Image.fromarray(numpy.array([[[1, 2, 3], [4, 5, 6]]], dtype="uint8")).save(file, "PNG")
    return file.getvalue()


ARRAY = {"array": [[1, 2], [3, 4]]}
SHAPED = {"array": [1, 2], "shape": [2, 1], "dtype": "int32"}
RECORDS = [{"a": 1, "b": 2}, {"a": 3, "b": 4}]

CASES: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "json": (http_adapters.json_request, {"json": {"a": [1]}}, {"a": [1]}),
    "request": (http_adapters.starlette_request, {}, ["Request", "POST", "/adapted/x"]),
    "ndarray": (http_adapters.json_to_ndarray, {"json": ARRAY}, ["ndarray", "float64", [2, 2], [1, 2, 3, 4]]),
    "shaped": (http_adapters.json_to_ndarray, {"json": SHAPED}, ["ndarray", "int32", [2, 1], [1, 2]]),
    "multi": (
        http_adapters.json_to_multi_ndarray,
        {"json": {"one": SHAPED}},
        {"one": ["ndarray", "int32", [2, 1], [1, 2]]},
    ),
    "image": (
        http_adapters.image_to_ndarray,
        {"files": {"img": picture()}},
        ["ndarray", "uint8", [1, 2, 3], [1, 2, 3, 4, 5, 6]],
    ),
    "pandas": (
        http_adapters.pandas_read_json,
        {"json": RECORDS, "params": {"orient": "records"}},
        ["DataFrame", {"a": [1, 3], "b": [2, 4]}],
    ),
    "model": (Item, {"json": {"name": "x"}}, ["Item", {"name": "x", "count": 1}]),
    "own": (greeting, {"params": {"name": "you", "times": 2}}, ["str", "en youen you"]),
}

api = FastAPI()


@serve.deployment
@serve.ingress(api)
class Injected:
    """The same adapters as dependencies."""

    @api.post("/json")
    async def json(self, value: Annotated[Any, Depends(http_adapters.json_request)]) -> Any:
        return told(value)

    @api.post("/ndarray")
    async def ndarray(self, value: Annotated[Any, Depends(http_adapters.json_to_ndarray)]) -> Any:
        return told(value)

    @api.post("/multi")
    async def multi(self, value: Annotated[Any, Depends(http_adapters.json_to_multi_ndarray)]) -> Any:
        return told(value)

    @api.post("/image")
    async def image(self, value: Annotated[Any, Depends(http_adapters.image_to_ndarray)]) -> Any:
        return told(value)

    @api.post("/pandas")
    async def pandas(self, value: Annotated[Any, Depends(http_adapters.pandas_read_json)]) -> Any:
        return told(value)


@pytest.fixture(scope="module")
def injected(cluster: RunningCluster) -> Iterator[httpx.Client]:
    """A client of `Injected`."""
    serve.run(Injected.bind(), name="injected", route_prefix="/injected")
    with httpx.Client(base_url=cluster.url + "/injected", timeout=30.0) as client:
        yield client
    serve.delete("injected")


@pytest.mark.parametrize("name", CASES)
def test_adapter_of_a_plain_deployment(serve_app: ServeApp, name: str) -> None:
    adapter, request, expected = CASES[name]
    app = serve_app(
        serve.deployment(http_adapter=adapter)(told).bind(), name="adapted", route_prefix="/adapted"
    )
    response = app.client.post("/x", **request)
    assert (response.status_code, response.json()) == (200, expected)


@pytest.mark.parametrize("name", ["json", "ndarray", "multi", "image", "pandas"])
def test_adapter_as_a_dependency(injected: httpx.Client, name: str) -> None:
    _, request, expected = CASES[name]
    response = injected.post(f"/{name}", **request)
    assert (response.status_code, response.json()) == (200, expected)


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        ("/ndarray", {"json": {}}),
        ("/ndarray", {"json": {"array": "no numbers"}}),
        ("/multi", {"json": {"one": 1}}),
        ("/image", {}),
    ],
)
def test_what_an_adapter_does_not_accept(injected: httpx.Client, path: str, request_: dict[str, Any]) -> None:
    response = injected.post(path, **request_)
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"][0] == "body"


def test_schema_of_the_documentation(injected: httpx.Client) -> None:
    schema = injected.get("/openapi.json").json()
    fields = schema["components"]["schemas"]["NdArray"]
    assert (set(fields["properties"]), fields["required"]) == ({"array", "shape", "dtype"}, ["array"])
    body = schema["paths"]["/image"]["post"]["requestBody"]["content"]
    assert "multipart/form-data" in body


def test_a_class_with_an_adapter(serve_app: ServeApp) -> None:
    """Every path and method goes through the adapter; a handle call does not."""

    @serve.deployment(http_adapter=greeting)
    class Greeter:
        def __call__(self, text: str) -> str:
            return text + "!"

    app = serve_app(Greeter.bind())
    assert app.client.get("/", params={"name": "you"}).text == "en you!"
    response = app.client.request(
        "PATCH", "/any/where", params={"name": "you"}, headers={"accept-language": "de"}
    )
    assert response.text == "de you!"
    refused = app.client.get("/")
    assert (refused.status_code, refused.json()["detail"][0]["loc"]) == (422, ["query", "name"])
    nobody = app.client.get("/", params={"name": "nobody"})
    assert (nobody.status_code, nobody.json()) == (418, {"detail": "there is nobody"})
    assert app.handle.remote("hello").result(timeout_s=10) == "hello!"


def test_what_is_no_adapter() -> None:
    with pytest.raises((TypeError, ValueError), match="http_adapter"):
        serve.deployment(http_adapter="text")(told)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("missing", "library", "call"),
    [
        ("numpy", "NumPy", lambda: http_adapters.json_to_ndarray(http_adapters.NdArray(array=[1.0]))),
        ("PIL.Image", "Pillow", lambda: http_adapters.image_to_ndarray(picture())),
    ],
)
def test_a_library_is_missing(monkeypatch: pytest.MonkeyPatch, missing: str, library: str, call: Any) -> None:
    image = picture()
    monkeypatch.setattr(sys.modules[__name__], "picture", lambda: image)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"needs {library}, which is not installed: pip install"):
        call()
