"""What a plain handler may return, and what the client gets for it."""

from typing import Any

import pytest
from starlette.requests import Request

from slipknot import serve

from .conftest import ServeApp

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"


@serve.deployment
class Returns:
    def __init__(self, value: Any) -> None:
        self._value = value

    async def __call__(self, request: Request) -> Any:
        return self._value


@pytest.mark.parametrize(
    ("value", "content_type", "body"),
    [
        (None, "text/plain", b""),
        ("héllo", TEXT, "héllo".encode()),
        (b"\x00raw", "text/plain", b"\x00raw"),
        ({"a": [1, 2.5, None, True]}, JSON, b'{"a":[1,2.5,null,true]}'),
        ([1, 2], JSON, b"[1,2]"),
        ((1, 2), JSON, b"[1,2]"),
        ({3}, JSON, b"[3]"),
        (42, JSON, b"42"),
        (1.5, JSON, b"1.5"),
        (True, JSON, b"true"),
    ],
)
def test_value_becomes_body(serve_app: ServeApp, value: Any, content_type: str, body: bytes) -> None:
    response = serve_app(Returns.bind(value)).client.get("/")
    assert (response.status_code, response.headers["content-type"], response.content) == (
        200,
        content_type,
        body,
    )


def test_query_params_become_an_object(serve_app: ServeApp) -> None:
    @serve.deployment
    def query(request: Request) -> Any:
        return request.query_params

    assert serve_app(query.bind()).client.get("/?k=qp").json() == {"k": "qp"}
