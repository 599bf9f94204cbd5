from collections.abc import AsyncIterator

from benchmarks.figures import Figure
from benchmarks.metrics.metric import Metric
from benchmarks.run import in_turn, together_started


async def _nothing(*_: object) -> AsyncIterator[list[Figure]]:
    yield []


def test_systems_take_turns_in_coming_first() -> None:
    """Forwards and backwards."""
    from benchmarks.systems import SYSTEMS

    three = list(SYSTEMS.values())[:3]
    assert in_turn(three, 1) == three
    assert in_turn(three, 2) == three[::-1]


def test_metrics_of_one_application_share_a_start() -> None:
    """Unless one wants it started with options; the order is that of the first of each."""
    a = Metric("a", "fastapi", _nothing)
    b = Metric("b", "chain", _nothing)
    c = Metric("c", "fastapi", _nothing)
    d = Metric("d", "fastapi", _nothing, options={"request_timeout_s": 1})
    assert list(together_started([a, b, c, d])) == [[a, c], [b], [d]]
