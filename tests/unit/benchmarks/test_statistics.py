import pytest

from benchmarks.figures import Figure, Observation
from benchmarks.report.statistics import percentile, summaries, summary


def test_a_summary_has_the_median_and_the_ends() -> None:
    """And all values, in the order of the rounds."""
    its = summary([3.0, 1.0, 2.0])
    assert (its.median, its.low, its.high, its.values) == (2.0, 1.0, 3.0, (3.0, 1.0, 2.0))


def test_a_percentile_is_one_of_the_values() -> None:
    """The smallest that so many do not exceed."""
    values = [float(n) for n in range(100, 0, -1)]
    assert percentile(values, 50) == 50
    assert percentile(values, 99) == 99
    assert percentile(values, 100) == 100
    assert percentile([7.0], 1) == 7


def test_a_percentile_of_nothing_is_refused() -> None:
    """Rather than be zero."""
    with pytest.raises(ValueError):
        percentile([], 50)


def test_rounds_are_gathered_by_figure_and_system() -> None:
    """A system that lacks a figure is not there."""
    rate, p50 = Figure("noop", "c1", "rate", 10, "1/s"), Figure("noop", "c1", "p50", 3, "ms")
    again = Figure("noop", "c1", "rate", 20, "1/s")
    seen = [Observation(rate, "a", 1), Observation(p50, "b", 1), Observation(again, "a", 2)]
    found = summaries(seen)
    assert list(found) == ["noop/c1/rate", "noop/c1/p50"]
    assert found["noop/c1/rate"]["a"].median == 15
    assert list(found["noop/c1/p50"]) == ["b"]
