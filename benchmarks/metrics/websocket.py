"""A short text over a WebSocket and back."""

import asyncio
import time
from collections.abc import AsyncIterator

from ..effort import Effort
from ..figures import Figure
from ..loads.websockets import echo
from ..report.statistics import percentile
from ..systems.system import Running
from .cost import Cost
from .metric import Metric


async def _websocket(running: Running, effort: Effort) -> AsyncIterator[list[Figure]]:
    case = f"{effort.sockets} sockets"
    await _echo(running, effort.sockets, effort.warm_up_s)
    with Cost(running) as cost:
        elapsed_s = await _echo(running, effort.sockets, effort.seconds)
    elapsed_ms = [1000 * elapsed for elapsed in elapsed_s]
    yield [
        Figure("websocket", case, "rate", len(elapsed_s) / effort.seconds, "1/s"),
        Figure("websocket", case, "p50", percentile(elapsed_ms, 50), "ms"),
        Figure("websocket", case, "p99", percentile(elapsed_ms, 99), "ms"),
        *cost.figures("websocket", case, len(elapsed_s)),
    ]


async def _echo(running: Running, sockets: int, seconds: float) -> list[float]:
    until_s = time.monotonic() + seconds
    done = await asyncio.gather(*(echo(running.host, running.port, "/ws", until_s) for _ in range(sockets)))
    return [elapsed_s for echoes in done for elapsed_s in echoes.elapsed_s]


WEBSOCKET = Metric("websocket", "fastapi", _websocket)
