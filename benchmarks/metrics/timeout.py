"""How much later than `request_timeout_s` the 408 comes."""

import asyncio
import time
from collections.abc import AsyncIterator

from ..effort import Effort
from ..figures import Figure
from ..report.statistics import percentile
from ..systems.system import Running
from .metric import Metric

TIMEOUT_S = 0.2
AT_A_TIME = 10


async def _timeout(running: Running, effort: Effort) -> AsyncIterator[list[Figure]]:
    case = f"{AT_A_TIME} at a time"
    await asyncio.gather(*(_late_ms(running) for _ in range(AT_A_TIME)))
    late_ms: list[float] = []
    while len(late_ms) < effort.timeouts:
        late_ms += await asyncio.gather(*(_late_ms(running) for _ in range(AT_A_TIME)))
    yield [
        Figure("timeout", case, "overshoot p50", percentile(late_ms, 50), "ms"),
        Figure("timeout", case, "overshoot p99", percentile(late_ms, 99), "ms"),
    ]


async def _late_ms(running: Running) -> float:
    reader, writer = await asyncio.open_connection(running.host, running.port)
    try:
        writer.write(b"GET /hang?request=x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        sent_s = time.monotonic()
        head = await reader.readuntil(b"\r\n\r\n")
        late_ms = 1000 * (time.monotonic() - sent_s - TIMEOUT_S)
    finally:
        writer.close()
    if head[9:12] != b"408":
        raise RuntimeError(f"no 408 but {head[:60]!r}")
    return late_ms


TIMEOUT = Metric(
    "timeout",
    "fastapi",
    _timeout,
    options={"request_timeout_s": TIMEOUT_S},
    only=frozenset({"slipknot", "ray", "ray-throughput", "ray-haproxy"}),
)
