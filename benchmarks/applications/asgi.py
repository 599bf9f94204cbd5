"""The applications for bare uvicorn: calls between deployments become HTTP requests to further uvicorns."""

import os

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from ..loads.http import Pool
from .api import api as fastapi
from .api import hang

__all__ = ["chain", "fastapi", "leaf", "middle", "plain"]

MIDDLE_VARIABLE = "SLIPKNOT_BENCHMARK_MIDDLE_PORT"
LEAF_VARIABLE = "SLIPKNOT_BENCHMARK_LEAF_PORT"

chain = FastAPI()
middle = FastAPI()
leaf = FastAPI()

_pools: dict[str, Pool] = {}


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    """A handler without a framework; gets and gives what one of slipknot or Ray Serve does."""
    if scope["type"] == "http":
        await (await _plain(Request(scope, receive)))(scope, receive, send)


async def _plain(request: Request) -> Response:
    return PlainTextResponse("ok")


async def _get(variable: str, path: str) -> str:
    if variable not in _pools:
        _pools[variable] = Pool("127.0.0.1", int(os.environ[variable]))
    response = await _pools[variable].get(path)
    if response.status != 200:
        raise RuntimeError(f"status {response.status}")
    return response.body.decode()


@chain.get("/")
async def one() -> str:
    """One call."""
    return await _get(LEAF_VARIABLE, "/")


@chain.get("/two")
async def two() -> str:
    """A chain of three servers."""
    return await _get(MIDDLE_VARIABLE, "/")


@chain.get("/hang/0")
async def hang_here(request: str, seconds: float) -> str:
    """Hang in the first server."""
    await hang(0, request, seconds)
    return "ok"


@chain.get("/hang/1")
async def hang_below(request: str, seconds: float) -> str:
    """Hang one hop down."""
    return await _get(LEAF_VARIABLE, f"/hang?hop=1&request={request}&seconds={seconds}")


@chain.get("/hang/2")
async def hang_two_below(request: str, seconds: float) -> str:
    """Hang two hops down."""
    return await _get(MIDDLE_VARIABLE, f"/hang?request={request}&seconds={seconds}")


@middle.get("/")
async def middle_noop() -> str:
    """What the leaf says."""
    return await _get(LEAF_VARIABLE, "/")


@middle.get("/hang")
async def middle_hang(request: str, seconds: float) -> str:
    """Until the leaf is done."""
    return await _get(LEAF_VARIABLE, f"/hang?hop=2&request={request}&seconds={seconds}")


@leaf.get("/")
async def leaf_noop() -> str:
    """Answer."""
    return "ok"


@leaf.get("/hang")
async def leaf_hang(hop: int, request: str, seconds: float) -> str:
    """Hang here."""
    await hang(hop, request, seconds)
    return "ok"
