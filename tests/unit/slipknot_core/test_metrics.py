"""Counting, reading, merging and exposing metrics."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipknot_core.exposition import expose
from slipknot_core.metrics import (
    MAX_SERIES,
    OTHER,
    Counts,
    Distribution,
    Distributions,
    Reading,
    counters,
    gauge,
    gauges,
    histogram,
    known_method,
    merged,
)
from tests.support.metrics import Metrics


@given(st.lists(st.floats(min_value=0, max_value=1e7)))
def test_distribution_counts_each_value_once(values: list[float]) -> None:
    """Under the first bound that it does not exceed."""
    distribution = Distribution((1.0, 10.0))
    for value in values:
        distribution.observe(value)
    assert distribution.counts == [
        sum(v <= 1 for v in values),
        sum(1 < v <= 10 for v in values),
        sum(v > 10 for v in values),
    ]
    assert distribution.count == len(values)


def test_labels_are_bounded() -> None:
    """Whatever clients send, a metric has at most so many series and one for the rest."""
    counts, distributions = Counts(), Distributions()
    for number in range(MAX_SERIES + 10):
        counts.add((number,))
        distributions.observe((number,), 1.0)
    assert len(counts) == len(distributions) == MAX_SERIES + 1
    assert counts[(OTHER,)] == distributions[(OTHER,)].count == 10
    counts.add((0,))
    assert counts[(0,)] == 2
    assert known_method("GET") == "GET"
    assert known_method("BREW") == OTHER


def test_readings_travel_as_json() -> None:
    """And come back the same."""
    distributions = Distributions((1.0, 2.0))
    distributions.observe(("a", 200), 1.5)
    readings = [
        counters("c", "help", ("x", "status"), {("a", 200): 3.0}),
        histogram("h", "help", ("x", "status"), distributions),
        gauge("g", "help", 1.5),
    ]
    for reading in readings:
        back = Reading.from_plain(json.loads(json.dumps(reading.to_plain())))
        assert expose([back]) == expose([reading])


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {
            "name": "n",
            "kind": "gauge",
            "help": "",
            "label_names": ["a"],
            "numbers": [[[], 1]],
            "distributions": [],
        },
        {
            "name": "n",
            "kind": "histogram",
            "help": "",
            "label_names": [],
            "numbers": [],
            "distributions": [[[], [1.0], [1], 1.0]],
        },
    ],
)
def test_what_is_no_reading_is_refused(broken: dict[str, object]) -> None:
    with pytest.raises((KeyError, ValueError)):
        Reading.from_plain(broken)


def test_the_same_metric_of_several_members_becomes_one() -> None:
    """Labels that one of them does not have are empty in it."""
    readings = [
        gauges("g", "help", ("a",), [(("1",), 1.0)]).labelled({"member": "m"}),
        gauge("g", "help", 2.0),
        gauge("b", "help", 3.0),
    ]
    assert [reading.name for reading in merged(readings)] == ["b", "g"]
    text = expose(readings)[1].decode()
    assert text.count("# TYPE g gauge") == 1
    metrics = Metrics(text)
    assert metrics.sum("g", member="m", a="1") == 1.0
    assert metrics.sum("g", member="", a="") == 2.0


def test_prometheus_and_openmetrics() -> None:
    """What the reader asks for; buckets are cumulated."""
    distributions = Distributions((1.0, 2.0))
    for value in (0.5, 1.5, 5.0):
        distributions.observe(("a",), value)
    reading = histogram("h_ms", "help", ("x",), distributions)
    content_type, text = expose([reading])
    assert content_type.startswith("text/plain")
    metrics = Metrics(text.decode())
    assert [metrics.sum("h_ms_bucket", le=le) for le in ("1.0", "2.0", "+Inf")] == [1, 2, 3]
    assert metrics.sum("h_ms_sum") == 7.0
    content_type, text = expose([reading], "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")
