"""From the closing of the client's socket to `CancelledError` in the handler; what ran on all the same."""

import asyncio
import random
import time
from collections.abc import AsyncIterator

from ..applications.journal import Journal
from ..effort import Effort
from ..figures import Figure
from ..loads.disconnects import Leaver, leave_all
from ..report.statistics import percentile
from ..systems.system import Running, status
from .metric import Metric, NotOffered

HOPS = ("ingress", "downstream", "two hops down")
BEGIN_WITHIN_S = 30.0
NOTICE_WITHIN_S = 2.0
"""Who has heard nothing for so long after a single client has left will hear nothing at all."""
ALL_NOTICE_WITHIN_S = 15.0
"""The same for many, where one was heard of."""
HANG_S = 6.0
PROBE_WITHIN_S = 15.0
LONG_HANG_S = 25.0
"""For many together, who take a while to begin; where nobody would end it but time, `HANG_S` must do."""
RANDOM_HANG_S = 4.0
"""Much longer than the news of a departure takes, or lateness would look like loss."""
RANDOM_WITHIN_S = 1.0


async def _single(running: Running, effort: Effort) -> AsyncIterator[list[Figure]]:
    _offered(running)
    for hop, name in enumerate(HOPS):
        journal = running.journal()
        left_s: dict[str, float] = {}
        for number in range(effort.single_disconnects):
            left_s |= await _leave(running, journal, hop, [f"single{number}"])
            if number == 0 and not journal.times_s("cancelled", hop):
                break  # nobody hears of it here, and each costs the whole wait
        yield _lateness(f"{name}, 1 at a time", left_s, journal.times_s("cancelled", hop))


async def _together(running: Running, effort: Effort) -> AsyncIterator[list[Figure]]:
    _offered(running)
    requests = [f"together{number}" for number in range(effort.disconnects)]
    for hop, name in enumerate(HOPS):
        journal = running.journal()
        await _leave(running, journal, hop, ["alone"])
        is_heard = bool(journal.times_s("cancelled", hop))
        hang_s, within_s = (LONG_HANG_S, ALL_NOTICE_WITHIN_S) if is_heard else (HANG_S, 0.0)
        left_s = await _leave(running, journal, hop, requests, hang_s=hang_s, within_s=within_s)
        heard_s = journal.times_s("cancelled", hop)
        yield _lateness(f"{name}, {effort.disconnects} together", left_s, heard_s)


def _lateness(case: str, left_s: dict[str, float], heard_s: dict[str, float]) -> list[Figure]:
    late_ms = [1000 * (heard_s[its] - at_s) for its, at_s in left_s.items() if its in heard_s]
    figures = [Figure("cancel", case, "heard of", 100 * len(late_ms) / len(left_s), "%")]
    if late_ms:
        figures.append(Figure("cancel", case, "p50", percentile(late_ms, 50), "ms"))
        figures.append(Figure("cancel", case, "p99", percentile(late_ms, 99), "ms"))
    return figures


async def _leave(
    running: Running,
    journal: Journal,
    hop: int,
    requests: list[str],
    *,
    hang_s: float = HANG_S,
    within_s: float = NOTICE_WITHIN_S,
) -> dict[str, float]:
    """Let them begin, let their clients leave, wait until all were heard of; when each left."""
    leavers = {its: Leaver(running.host, running.port, _path(hop, its, hang_s)) for its in requests}
    try:
        if not await _all_in(journal, "began", hop, requests, BEGIN_WITHIN_S):
            raise RuntimeError(f"not all of {len(requests)} requests began")
    finally:
        leave_all(leavers.values())
    await _all_in(journal, "cancelled", hop, requests, within_s)
    return {its: leaver.left_s for its, leaver in leavers.items() if leaver.left_s is not None}


async def _all_in(journal: Journal, what: str, hop: int, requests: list[str], within_s: float) -> bool:
    until_s = time.monotonic() + within_s
    while not set(requests) <= journal.times_s(what, hop).keys():
        if time.monotonic() > until_s:
            return False
        await asyncio.sleep(0.01)
    return True


async def _random(running: Running, effort: Effort) -> AsyncIterator[list[Figure]]:
    _offered(running)
    case = f"random, {effort.random_cancels} requests"
    journal = running.journal()
    moments_s = random.Random(0)

    async def one(number: int) -> None:
        leaver = Leaver(running.host, running.port, _path(2, f"random{number}", RANDOM_HANG_S))
        await asyncio.sleep(moments_s.uniform(0.0, RANDOM_WITHIN_S))
        leaver.leave()

    await asyncio.gather(*(one(number) for number in range(effort.random_cancels)))
    await asyncio.sleep(RANDOM_HANG_S + 1.0)
    yield [
        Figure("cancel", case, name, sum(its.startswith("random") for its in journal.times_s(what, 2)), "")
        for name, what in (
            ("began downstream", "began"),
            ("were cancelled", "cancelled"),
            ("ran to the end", "completed"),
        )
    ]


def _path(hop: int, request: str, seconds: float) -> str:
    return f"/hang/{hop}?request={request}&seconds={seconds}"


def _offered(running: Running) -> None:
    probe = status(running.port, _path(2, "probe", 0.0), PROBE_WITHIN_S)
    if probe == 404:
        raise NotOffered("there is no chain of three")
    if probe != 200:
        raise RuntimeError(f"the chain of three answers {probe}")


CANCEL = (
    Metric("cancel", "chain", _single),
    Metric("cancel", "chain", _random),
    Metric("cancel", "chain", _together),
)
