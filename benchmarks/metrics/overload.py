"""Five times as many requests as a deployment can take: what it still answers, and how soon it refuses."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

from ..effort import Effort
from ..figures import Figure
from ..loads.http import Pool, Response
from ..report.statistics import percentile
from ..systems.system import Running
from .cost import Cost
from .metric import Metric

PEAK_AT_A_TIME = 8
"""Twice the slots of the deployment: always somebody waits, nobody is refused."""
TIMES = 5
REFUSED = 503


async def _overload(running: Running, effort: Effort) -> AsyncIterator[list[Figure]]:
    pool = Pool(running.host, running.port)
    try:
        await _closed_loop(pool, effort.warm_up_s)
        peak = await _closed_loop(pool, effort.seconds)
        with Cost(running) as cost:
            answers, elapsed_s = await _open_loop(pool, TIMES * peak, effort.seconds)
    finally:
        pool.close()
    case = f"{TIMES} times the peak"
    count = Counter(answer.status for answer in answers)
    goodput = count[200] / elapsed_s
    good_ms = [1000 * answer.elapsed_s for answer in answers if answer.status == 200]
    refused_ms = [1000 * answer.elapsed_s for answer in answers if answer.status == REFUSED]
    figures = [
        Figure("overload", case, "peak", peak, "1/s"),
        Figure("overload", case, "sent", len(answers) / effort.seconds, "1/s"),
        Figure("overload", case, "goodput", goodput, "1/s"),
        Figure("overload", case, "goodput of peak", 100 * goodput / peak, "%"),
        Figure("overload", case, "refused", 100 * len(refused_ms) / len(answers), "%"),
        Figure("overload", case, "errors", len(answers) - len(good_ms) - len(refused_ms), ""),
        *cost.figures("overload", case, len(answers)),
    ]
    for name, times_ms in (("answer", good_ms), ("refusal", refused_ms)):
        if times_ms:
            figures.append(Figure("overload", case, f"{name} p50", percentile(times_ms, 50), "ms"))
            figures.append(Figure("overload", case, f"{name} p99", percentile(times_ms, 99), "ms"))
    yield figures


async def _closed_loop(pool: Pool, seconds: float) -> float:
    until_s = time.monotonic() + seconds
    good = 0

    async def one_after_another() -> None:
        nonlocal good
        while time.monotonic() < until_s:
            answer = await pool.get("/")
            good += answer.status == 200

    await asyncio.gather(*(one_after_another() for _ in range(PEAK_AT_A_TIME)))
    return good / seconds


async def _open_loop(pool: Pool, rate: float, seconds: float) -> tuple[list[Response], float]:
    """Requests at even distances, whether or not the earlier ones were answered."""
    begun_s = time.monotonic()
    tasks: list[asyncio.Task[Response]] = []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(begun_s + number / rate - time.monotonic())
        tasks.append(asyncio.create_task(pool.get("/"), name=f"request {number}"))
    answers = await asyncio.gather(*tasks)
    return answers, time.monotonic() - begun_s


OVERLOAD = Metric("overload", "overload", _overload)
