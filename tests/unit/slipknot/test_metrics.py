"""`serve.metrics` outside of replicas: names, tags, and what is refused."""

from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest

from slipknot import serve
from slipknot.serve.metrics import user_readings
from slipknot_core.exposition import expose
from tests.support.metrics import Metrics


def shown() -> Metrics:
    return Metrics(expose(user_readings())[1].decode())


def test_counting_without_a_replica() -> None:
    """It works, and the tags of the replica are empty."""
    counter = serve.metrics.Counter("unit-counted", "Help.", ("a", "b")).set_default_tags({"a": "1"})
    counter.inc(tags={"b": "2"})
    counter.inc(2.5, tags={"a": "3", "b": "2"})
    metrics = shown()
    assert metrics.sum("unit_counted_total", a="1", b="2", application="", replica="", route="") == 1
    assert metrics.sum("unit_counted_total", a="3") == 2.5
    assert counter.info["tag_keys"] == ("a", "b")
    assert repr(counter) == "<Counter unit_counted>"


def test_the_same_metric_goes_on() -> None:
    """A constructor that runs again makes it again; code that travels by value takes it along."""
    for _ in range(2):
        serve.metrics.Counter("unit_again").inc()
    histogram = serve.metrics.Histogram("unit_travelled", boundaries=[1, 2])
    cloudpickle.loads(cloudpickle.dumps(histogram)).observe(1.5)
    gauge = serve.metrics.Gauge("unit_gauge")
    gauge.set(3)
    gauge.set(1)
    metrics = shown()
    assert metrics.sum("unit_again_total") == 2
    assert metrics.sum("unit_travelled_bucket", le="2.0") == 1
    assert metrics.sum("unit_gauge") == 1


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: serve.metrics.Counter(""), ValueError),
        (lambda: serve.metrics.Counter("1x"), ValueError),
        (lambda: serve.metrics.Counter("slipknot_x"), ValueError),
        (lambda: serve.metrics.Counter("x", tag_keys=("replica",)), ValueError),
        (lambda: serve.metrics.Counter("x", tag_keys=("a-b",)), ValueError),
        (lambda: serve.metrics.Counter("x", tag_keys="ab"), TypeError),
        (lambda: serve.metrics.Histogram("x", boundaries=[]), ValueError),
        (lambda: serve.metrics.Histogram("x", boundaries=[2, 1]), ValueError),
        (lambda: serve.metrics.Histogram("x", boundaries=[0, 1]), ValueError),
        (lambda: serve.metrics.Counter("unit_bad", tag_keys=("a",)).inc(), ValueError),
        (lambda: serve.metrics.Counter("unit_bad", tag_keys=("a",)).inc(tags={"b": "1"}), ValueError),
        (lambda: serve.metrics.Counter("unit_bad", tag_keys=("a",)).set_default_tags({"b": ""}), ValueError),
        (lambda: serve.metrics.Counter("unit_bad", tag_keys=("a",)).inc(tags={"a": 1}), TypeError),  # type: ignore[dict-item]
        (lambda: serve.metrics.Counter("unit_bad", tag_keys=("a",)).inc(0, tags={"a": "1"}), ValueError),
        (lambda: serve.metrics.Gauge("unit_bad", tag_keys=("a",)), ValueError),
    ],
)
def test_what_is_refused(make: Callable[[], Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        make()
