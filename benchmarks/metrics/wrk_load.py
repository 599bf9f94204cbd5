"""Figures of one run of wrk against a running system."""

from ..effort import Effort
from ..figures import Figure
from ..loads import wrk
from ..systems.system import Running
from .cost import Cost


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
    if outcome.requests == 0:
        raise RuntimeError(f"{case}: no request was answered, {outcome.errors} errors")
    return [
        Figure(metric, case, "rate", outcome.rate, "1/s"),
        Figure(metric, case, "p50", outcome.p50_ms, "ms"),
        Figure(metric, case, "p99", outcome.p99_ms, "ms"),
        Figure(metric, case, "errors", outcome.errors, ""),
        *cost.figures(metric, case, outcome.requests),
    ]
