"""Route prefixes, unknown paths and the built-in endpoints."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request

from slipknot import serve
from slipknot.serve.exceptions import RayServeException
from slipknot.testing import Cluster

from .conftest import RunningCluster, ServeApp


@serve.deployment
class Named:
    def __init__(self, name: str) -> None:
        self._name = name

    async def __call__(self, request: Request) -> str:
        return self._name


@pytest.mark.parametrize("prefix", ["no-slash", "/ends/", "/with/{name}", "", "/}"])
def test_prefix_that_is_none(cluster: RunningCluster, prefix: str) -> None:
    """A wrong prefix is refused at once, and named."""
    with pytest.raises(ValueError, match="route_prefix") as caught:
        serve.run(Named.bind("x"), name="wrong", route_prefix=prefix)
    assert repr(prefix) in str(caught.value)
    assert "wrong" not in serve.status().applications


def test_longest_prefix_on_whole_segments(serve_app: ServeApp) -> None:
    """The longest prefix that ends with a segment wins; "/" takes the rest."""
    serve_app(Named.bind("hello"), name="hello", route_prefix="/hello")
    serve_app(Named.bind("there"), name="there", route_prefix="/hello/there")
    client = serve_app(Named.bind("root"), name="root").client
    expected = {
        "/hello": "hello",
        "/hello/": "hello",
        "/hello/a": "hello",
        "/hello/therefore": "hello",
        "/hello/there": "there",
        "/hello/there/x": "there",
        "/hellox": "root",
        "/": "root",
        "": "root",
        "/other/hello": "root",
    }
    assert {path: client.get(path).text for path in expected} == expected


def test_unknown_path(serve_app: ServeApp) -> None:
    """404 says which path, without its query, and where to look."""
    app = serve_app(Named.bind("x"), route_prefix="/known")
    response = httpx.get(app.url + "x?secret=1")
    assert (response.status_code, response.headers["content-type"]) == (404, "text/plain; charset=utf-8")
    assert response.text == "Path '/knownx' not found. Ping http://.../-/routes for available routes."
    assert response.headers["x-request-id"]


def test_unknown_path_that_is_no_text(cluster: RunningCluster) -> None:
    """A path that is no UTF-8, or looks like a header, is an unknown path like any other."""
    response = httpx.get(cluster.url + "/%ff%0d%0aset-cookie:x")
    assert response.status_code == 404
    assert response.text.startswith("Path '/\ufffd\r\nset-cookie:x' not found.")
    assert "set-cookie" not in response.headers


def test_application_without_prefix(cluster: RunningCluster, serve_app: ServeApp) -> None:
    """It cannot be reached over HTTP and is not listed; its handle works."""

    @serve.deployment
    class Quiet:
        def __call__(self) -> str:
            return "by handle"

    app = serve_app(Quiet.bind(), name="quiet", route_prefix=None)
    assert httpx.get(cluster.url + "/").status_code == 404
    assert httpx.get(cluster.url + "/quiet").status_code == 404
    assert "quiet" not in httpx.get(cluster.url + "/-/routes").text
    assert app.handle.remote().result(timeout_s=10) == "by handle"


def test_new_prefix_replaces_the_old_one(cluster: RunningCluster, serve_app: ServeApp) -> None:
    """Redeployed with another prefix, the application has left the first."""
    serve_app(Named.bind("1"), name="moves", route_prefix="/old")
    assert httpx.get(cluster.url + "/old").text == "1"
    serve_app(Named.bind("2"), name="moves", route_prefix="/new")
    assert httpx.get(cluster.url + "/new").text == "2"
    assert httpx.get(cluster.url + "/old").status_code == 404


def test_prefix_belongs_to_one_application(cluster: RunningCluster, serve_app: ServeApp) -> None:
    """A second application with the same prefix is refused and the first serves on."""
    serve_app(Named.bind("first"), name="first", route_prefix="/shared")
    with pytest.raises(RayServeException, match="/shared"):
        serve.run(Named.bind("second"), name="second", route_prefix="/shared")
    assert httpx.get(cluster.url + "/shared").text == "first"
    assert "second" not in serve.status().applications


def test_deleted_application_is_gone(cluster: RunningCluster, serve_app: ServeApp) -> None:
    """After delete its path is unknown."""
    serve_app(Named.bind("x"), name="goes", route_prefix="/goes")
    assert httpx.get(cluster.url + "/goes").text == "x"
    serve.delete("goes")
    assert httpx.get(cluster.url + "/goes").status_code == 404


def test_fastapi_below_a_prefix(serve_app: ServeApp) -> None:
    """The prefix itself redirects to its root; 404, 405 and 422 are FastAPI's."""
    api = FastAPI()

    @serve.deployment
    @serve.ingress(api)
    class Api:
        @api.get("/")
        def root(self) -> str:
            return "Hello, world!"

        @api.get("/item/{number}")
        def item(self, number: int) -> Any:
            return number

    app = serve_app(Api.bind(), route_prefix="/fa")
    redirect = httpx.get(app.url)
    assert (redirect.status_code, redirect.headers["location"]) == (307, app.url + "/")
    assert httpx.get(app.url, follow_redirects=True).json() == "Hello, world!"
    assert app.client.get("/item/3").json() == 3
    missing, wrong, invalid = app.client.get("/no"), app.client.post("/"), app.client.get("/item/x")
    assert (missing.status_code, missing.json()) == (404, {"detail": "Not Found"})
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET")
    assert (invalid.status_code, invalid.json()["detail"][0]["loc"]) == (422, ["path", "number"])


def test_builtin_endpoints_of_a_cluster_that_serves(cluster: RunningCluster, serve_app: ServeApp) -> None:
    """Health and routes, with any method, by compact JSON."""
    serve_app(Named.bind("a"), name="a", route_prefix="/a")
    serve_app(Named.bind("b"), name="b", route_prefix="/b/c")
    for method in ("GET", "POST", "OPTIONS"):
        health = httpx.request(method, cluster.url + "/-/healthz")
        assert (health.status_code, health.text) == (200, "success")
        assert health.headers["content-type"] == "text/plain; charset=utf-8"
    assert httpx.head(cluster.url + "/-/healthz").status_code == 200
    routes = httpx.get(cluster.url + "/-/routes")
    assert routes.headers["content-type"] == "application/json"
    assert routes.json() == {"/a": "a", "/b/c": "b"}
    assert " " not in routes.text


def test_builtin_endpoints_from_the_first_application_to_the_last() -> None:
    """503 before the first; afterwards the routes are there, even if there are none."""
    with Cluster() as cluster:
        for path in ("/-/healthz", "/-/routes"):
            response = httpx.get(cluster.url + path)
            assert (response.status_code, response.text) == (503, "Route table is not populated yet.")
            assert response.headers["x-request-id"]
        cluster.run(Named.bind("x"))
        assert httpx.get(cluster.url + "/-/healthz").text == "success"
        assert httpx.get(cluster.url + "/-/routes").json() == {"/": "default"}
        cluster.delete()
        assert httpx.get(cluster.url + "/-/routes").json() == {}
        assert httpx.get(cluster.url + "/-/healthz").status_code == 503
