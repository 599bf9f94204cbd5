"""What the figures should be, judged within one run."""

from collections.abc import Mapping
from dataclasses import dataclass

from .statistics import Summary


@dataclass(frozen=True)
class Target:
    """A bound for a figure of slipknot, or for its ratio to the same figure of another system."""

    key: str
    at_least: float | None = None
    at_most: float | None = None
    relative_to: str | None = None
    """The system that it is divided by; None: the figure itself is judged."""


@dataclass(frozen=True)
class Verdict:
    """A target and what came of it."""

    target: Target
    value: float | None
    """The figure or the ratio of medians; None: it was not measured."""
    is_met: bool | None


def _ratio(key: str, relative_to: str, bound: float) -> Target:
    return Target(key, at_least=bound, relative_to=relative_to)


TARGETS = (
    _ratio("noop/plain c16/rate", "ray", 20),
    _ratio("noop/fastapi c16/rate", "ray", 20),
    _ratio("noop/plain c16/rate", "haproxy", 0.8),
    _ratio("noop/fastapi c16/rate", "haproxy", 0.8),
    _ratio("noop/plain c64/rate", "ray", 25),
    _ratio("noop/fastapi c64/rate", "ray", 25),
    _ratio("noop/plain c64/rate", "haproxy", 1.0),
    _ratio("noop/fastapi c64/rate", "haproxy", 1.0),
    Target("noop/plain c1/p50", at_most=1 / 8, relative_to="ray"),
    Target("noop/fastapi c1/p50", at_most=1 / 8, relative_to="ray"),
    Target("noop/plain c1/p50", at_most=2, relative_to="haproxy"),
    Target("noop/fastapi c1/p50", at_most=2, relative_to="haproxy"),
    Target("noop/plain c16/CPU per 1,000", at_most=0.35),
    Target("noop/fastapi c16/CPU per 1,000", at_most=0.35),
    _ratio("call/one call c16/rate", "ray", 20),
    _ratio("call/one call c16/rate", "floor", 0.8),
    _ratio("call/one call c16/rate", "haproxy", 0.8),
    _ratio("post/1 KiB c16/rate", "ray", 20),
    _ratio("post/10 MiB c4/rate", "ray", 2),
    _ratio("stream/16 at a time/chunks", "ray", 1.5),
    _ratio("stream/16 at a time/chunks", "floor", 0.8),
    Target("paced/100 streams/delay p99", at_most=5),
    Target("paced/100 streams/lost", at_most=0),
    _ratio("websocket/16 sockets/rate", "ray", 20),
    Target("start/first 200, script/time", at_most=1.5),
    Target("idle/fastapi/processes", at_most=5),
    Target("idle/fastapi/PSS", at_most=220),
    Target("idle/fastapi/CPU", at_most=1),
    Target("cancel/ingress, 1 at a time/p50", at_most=1.5),
    Target("cancel/ingress, 1 at a time/p99", at_most=4),
    Target("cancel/downstream, 1 at a time/p50", at_most=2.5),
    Target("cancel/downstream, 1 at a time/p99", at_most=6),
    Target("cancel/random, 400 requests/ran to the end", at_most=0),
    Target("timeout/10 at a time/overshoot p99", at_most=5),
    Target("overload/5 times the peak/goodput of peak", at_least=90),
    Target("overload/5 times the peak/refusal p99", at_most=10),
)


def judge(target: Target, figures: Mapping[str, Mapping[str, Summary]], subject: str = "slipknot") -> Verdict:
    """By medians."""
    by_system = figures.get(target.key, {})
    if subject not in by_system or (target.relative_to or subject) not in by_system:
        return Verdict(target, None, None)
    value = by_system[subject].median
    if target.relative_to is not None:
        divisor = by_system[target.relative_to].median
        if divisor == 0:
            return Verdict(target, None, None)
        value /= divisor
    is_met = (target.at_least is None or value >= target.at_least) and (
        target.at_most is None or value <= target.at_most
    )
    return Verdict(target, value, is_met)
