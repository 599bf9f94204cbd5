"""What a system takes while nobody asks for anything."""

import asyncio
from collections.abc import AsyncIterator

from ..effort import Effort
from ..figures import Figure
from ..systems.system import Running
from .cost import Cost
from .metric import Metric


async def _idle(running: Running, effort: Effort) -> AsyncIterator[list[Figure]]:
    await asyncio.sleep(effort.idle_s / 2)  # what belongs to the start is over
    with Cost(running) as cost:
        await asyncio.sleep(effort.idle_s)
    usage = running.processes.usage()
    yield [
        Figure("idle", "fastapi", "processes", usage.processes, ""),
        Figure("idle", "fastapi", "PSS", running.processes.pss_bytes() / 2**20, "MiB"),
        Figure("idle", "fastapi", "RSS", usage.rss_bytes / 2**20, "MiB"),
        Figure("idle", "fastapi", "CPU", 100 * cost.cpu_s / cost.elapsed_s, "% of a core"),
    ]


IDLE = Metric("idle", "fastapi", _idle)
