"""Readings as the text that Prometheus reads. `prometheus_client` is imported when somebody first looks."""

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from .metrics import Distribution, Reading, merged

if TYPE_CHECKING:
    from prometheus_client.core import Metric


def expose(readings: Iterable[Reading], accept: str = "") -> tuple[str, bytes]:
    """Write them; the same metric may come from several members.

    Args:
        readings: What to show.
        accept: The reader's Accept header: Prometheus's own text, or OpenMetrics.

    Returns:
        Content type and text.
    """
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(merged(readings)))
    encode, content_type = choose_encoder(accept)
    return content_type, encode(registry)


class _Collector:
    def __init__(self, readings: list[Reading]) -> None:
        self._readings = readings

    def describe(self) -> "Iterator[Metric]":
        return iter(())

    def collect(self) -> "Iterator[Metric]":
        return map(_metric, self._readings)


def _metric(reading: Reading) -> "Metric":
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    if reading.kind == "histogram":
        histogram = HistogramMetricFamily(reading.name, reading.help, labels=reading.label_names)
        for labels, distribution in reading.distributions:
            histogram.add_metric(_texts(labels), _buckets(distribution), distribution.total)
        return histogram
    kind = CounterMetricFamily if reading.kind == "counter" else GaugeMetricFamily
    family = kind(reading.name, reading.help, labels=reading.label_names)
    for labels, number in reading.numbers:
        family.add_metric(_texts(labels), number)
    return family


def _texts(labels: tuple[str | int, ...]) -> list[str]:
    return [str(label) for label in labels]


def _buckets(distribution: Distribution) -> list[tuple[str, float]]:
    bounds = [str(float(bound)) for bound in distribution.bounds]
    return list(zip((*bounds, "+Inf"), accumulate(distribution.counts), strict=True))
