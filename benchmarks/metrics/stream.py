"""Streams as fast as they go, and streams that tick."""

import asyncio
import itertools
from collections.abc import AsyncIterator

from ..effort import Effort
from ..figures import Figure
from ..loads.streams import PacedStream, count_chunks, paced, repeat
from ..report.statistics import percentile
from ..systems.system import Running
from .cost import Cost
from .metric import Metric


async def _stream(running: Running, effort: Effort) -> AsyncIterator[list[Figure]]:
    path = f"/stream?chunks={effort.stream_chunks}"

    async def one() -> int:
        count = await count_chunks(running.host, running.port, path)
        if count != effort.stream_chunks:
            raise RuntimeError(f"{count} chunks of {effort.stream_chunks} came")
        return count

    for at_a_time in effort.streams:
        await repeat(one, at_a_time, effort.warm_up_s)
        with Cost(running) as cost:
            chunks, elapsed_s = await repeat(one, at_a_time, effort.seconds)
        case = f"{at_a_time} at a time"
        yield [
            Figure("stream", case, "chunks", chunks / elapsed_s, "1/s"),
            *cost.figures("stream", case, chunks),
        ]


async def _paced(running: Running, effort: Effort) -> AsyncIterator[list[Figure]]:
    case = f"{effort.paced_streams} streams"
    path = f"/paced?ticks={effort.paced_ticks}&interval_ms={effort.paced_interval_ms:g}"
    await paced(running.host, running.port, "/paced?ticks=10&interval_ms=10")
    with Cost(running) as cost:
        streams = await asyncio.gather(
            *(paced(running.host, running.port, path) for _ in range(effort.paced_streams))
        )
    expected = effort.paced_streams * effort.paced_ticks
    ticks = [tick for stream in streams for tick in stream.ticks]
    late_ms = [1000 * (tick.came_s - tick.made_s) for tick in ticks]
    jitter_ms = [gap for stream in streams for gap in _jitter_ms(stream, effort.paced_interval_ms)]
    first_ms = [1000 * (stream.first_s - stream.asked_s) for stream in streams if stream.first_s]
    yield [
        Figure("paced", case, "first byte p50", percentile(first_ms, 50), "ms"),
        Figure("paced", case, "first byte p99", percentile(first_ms, 99), "ms"),
        Figure("paced", case, "delay p50", percentile(late_ms, 50), "ms"),
        Figure("paced", case, "delay p99", percentile(late_ms, 99), "ms"),
        Figure("paced", case, "jitter p99", percentile(jitter_ms, 99), "ms"),
        Figure("paced", case, "lost", expected - _in_order(streams), ""),
        *cost.figures("paced", case, expected),
    ]


def _jitter_ms(stream: PacedStream, interval_ms: float) -> list[float]:
    came_s = [tick.came_s for tick in stream.ticks]
    return [abs(1000 * (after - before) - interval_ms) for before, after in itertools.pairwise(came_s)]


def _in_order(streams: list[PacedStream]) -> int:
    return sum(tick.number == number for stream in streams for number, tick in enumerate(stream.ticks))


STREAM = Metric("stream", "fastapi", _stream)
PACED = Metric("paced", "fastapi", _paced)
