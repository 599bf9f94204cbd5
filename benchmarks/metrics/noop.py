"""A request that does nothing, by one connection and by many."""

from collections.abc import AsyncIterator

from ..effort import Effort
from ..figures import Figure
from ..loads.wrk import Post
from ..systems.system import Running
from .metric import Metric
from .wrk_load import measure_by_wrk


async def _plain(running: Running, effort: Effort) -> AsyncIterator[list[Figure]]:
    async for figures in _noop(running, effort, "plain"):
        yield figures


async def _fastapi(running: Running, effort: Effort) -> AsyncIterator[list[Figure]]:
    async for figures in _noop(running, effort, "fastapi"):
        yield figures


async def _noop(running: Running, effort: Effort, handler: str) -> AsyncIterator[list[Figure]]:
    for connections in effort.connections:
        case = f"{handler} c{connections}"
        # LitServe has no GET of the application's own.
        is_post = running.system.name == "litserve"
        yield await measure_by_wrk(
            running,
            effort,
            "noop",
            case,
            path="/predict" if is_post else "/",
            connections=connections,
            post=Post("application/json", text="{}") if is_post else None,
        )


NOOP_PLAIN = Metric("noop", "plain", _plain, needs_wrk=True)
NOOP_FASTAPI = Metric("noop", "fastapi", _fastapi, needs_wrk=True)
