"""A request that does nothing, by one connection and by many."""

from collections.abc import AsyncIterator

from ..effort import Effort
from ..figures import Figure
from ..loads.wrk import Post
from ..systems.system import Running
from .metric import Metric
from .wrk_load import measure_by_wrk

OWN_API = {"bentoml": "/noop", "litserve": "/predict"}
"""Systems whose handlers without a framework take POSTs of JSON, at these paths."""


async def _plain(running: Running, effort: Effort) -> AsyncIterator[list[Figure]]:
    async for figures in _noop(running, effort, "plain"):
        yield figures


async def _fastapi(running: Running, effort: Effort) -> AsyncIterator[list[Figure]]:
    async for figures in _noop(running, effort, "fastapi"):
        yield figures


async def _noop(running: Running, effort: Effort, handler: str) -> AsyncIterator[list[Figure]]:
    for connections in effort.connections:
        case = f"{handler} c{connections}"
        own_api = OWN_API.get(running.system.name) if handler == "plain" else None
        yield await measure_by_wrk(
            running,
            effort,
            "noop",
            case,
            path=own_api or "/",
            connections=connections,
            post=Post("application/json", text="{}") if own_api else None,
        )


NOOP_PLAIN = Metric("noop", "plain", _plain, needs_wrk=True)
NOOP_FASTAPI = Metric("noop", "fastapi", _fastapi, needs_wrk=True)
