"""One handle call behind the ingress, and a chain of three deployments."""

from collections.abc import AsyncIterator

from ..effort import Effort
from ..figures import Figure
from ..systems.system import Running, status
from .metric import Metric, NotOffered
from .wrk_load import measure_by_wrk


async def _call(running: Running, effort: Effort) -> AsyncIterator[list[Figure]]:
    yield await measure_by_wrk(running, effort, "call", "one call c16", path="/", connections=16)


async def _chain(running: Running, effort: Effort) -> AsyncIterator[list[Figure]]:
    if status(running.port, "/two") != 200:
        raise NotOffered("there is no chain of three")
    yield await measure_by_wrk(running, effort, "call", "chain of three c16", path="/two", connections=16)


CALL = Metric("call", "chain", _call, needs_wrk=True)
CHAIN = Metric("call", "chain", _chain, needs_wrk=True)
