"""Figures of one run of wrk against a running system."""

from ..effort import Effort
from ..figures import Figure
from ..loads import wrk
from ..systems.system import Running
from .cost import Cost

MAX_BAD_ANSWERS = 0.01
"""As a share; with more of them a rate is none."""


async def measure_by_wrk(
    running: Running,
    effort: Effort,
    metric: str,
    case: str,
    *,
    path: str,
    connections: int,
    post: wrk.Post | None = None,
) -> list[Figure]:
    """Rate, latency, errors, CPU and memory, after a warm-up that does not count."""
    url = running.url + path
    await wrk.run(url, connections=connections, seconds=effort.warm_up_s, post=post)
    with Cost(running) as cost:
        outcome = await wrk.run(url, connections=connections, seconds=effort.seconds, post=post)
    if outcome.bad_answers >= outcome.requests * MAX_BAD_ANSWERS:
        count = f"{outcome.bad_answers} of {outcome.requests} answers were bad, {outcome.errors} errors"
        raise RuntimeError(f"{case}: {count}")
    return [
        Figure(metric, case, "rate", outcome.rate, "1/s"),
        Figure(metric, case, "p50", outcome.p50_ms, "ms"),
        Figure(metric, case, "p99", outcome.p99_ms, "ms"),
        Figure(metric, case, "errors", outcome.errors, ""),
        *cost.figures(metric, case, outcome.requests),
    ]
