"""Counters and distributions that cost next to nothing to count, and readings of them for those who look.

Counting is a dictionary lookup and an addition on the role's own loop; there is no lock and no library in it.
What can be read from the role's real state (ongoing, queued, connections) is not counted at all but read when
somebody looks, so it is right after every kind of end. `exposition.py` turns readings into Prometheus's text.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Labels = tuple[str | int, ...]
"""Values in the order of the label names; numbers (status codes) become text when somebody looks."""

Kind = Literal["counter", "gauge", "histogram"]

LATENCY_BOUNDS_MS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 3e4, 6e4, 6e5)
"""Upper bounds of latency histograms, in milliseconds."""

MAX_SERIES = 2000
"""Combinations of labels of one metric; those beyond are counted together, each label being "other"."""

OTHER = "other"

KNOWN_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "WS", "CALL"}
)
"""Methods of HTTP, and our words for WebSockets and handle calls."""


def known_method(method: str) -> str:
    """An HTTP method as a label: clients may send any word, and labels must stay few."""
    return method if method in KNOWN_METHODS else OTHER


class Distribution:
    """Values by size. `repr` tells how many."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = LATENCY_BOUNDS_MS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """By bound, not cumulated; the last one is above all bounds."""
        self.total = 0.0

    def __repr__(self) -> str:
        return f"<Distribution: {self.count} values>"

    @property
    def count(self) -> int:
        """Number of values."""
        return sum(self.counts)

    def observe(self, value: float) -> None:
        """Count a value; a bound includes itself."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Counts(dict[Labels, float]):
    """Numbers by labels."""

    def add(self, labels: Labels, amount: float = 1) -> None:
        """Count; a combination of labels that was not there before begins at 0."""
        if labels not in self and len(self) >= MAX_SERIES:
            labels = (OTHER,) * len(labels)
        self[labels] = self.get(labels, 0) + amount


class Distributions(dict[Labels, Distribution]):
    """Distributions by labels."""

    def __init__(self, bounds: Sequence[float] = LATENCY_BOUNDS_MS) -> None:
        super().__init__()
        self._bounds = bounds

    def observe(self, labels: Labels, value: float) -> None:
        """Count a value."""
        found = self.get(labels)
        (self._new(labels) if found is None else found).observe(value)

    def _new(self, labels: Labels) -> Distribution:
        if len(self) >= MAX_SERIES:
            labels = (OTHER,) * len(labels)
        return self.setdefault(labels, Distribution(self._bounds))


@dataclass(frozen=True, slots=True)
class Reading:
    """One metric with all its values at one moment.

    Raises:
        ValueError: A value has another number of labels.
    """

    name: str
    kind: Kind
    help: str
    label_names: tuple[str, ...]
    numbers: tuple[tuple[Labels, float], ...] = ()
    """Of counters and gauges."""
    distributions: tuple[tuple[Labels, Distribution], ...] = ()
    """Of histograms."""

    def __post_init__(self) -> None:
        for labels, _ in (*self.numbers, *self.distributions):
            if len(labels) != len(self.label_names):
                raise ValueError(f"metric {self.name}: labels {labels} do not fit {self.label_names}")

    def labelled(self, labels: Mapping[str, str]) -> "Reading":
        """The same with more labels, put in front."""
        before = tuple(labels.values())
        return Reading(
            self.name,
            self.kind,
            self.help,
            (*labels, *self.label_names),
            tuple(((*before, *own), number) for own, number in self.numbers),
            tuple(((*before, *own), distribution) for own, distribution in self.distributions),
        )

    def to_plain(self) -> dict[str, Any]:
        """As values that JSON knows."""
        return {
            "name": self.name,
            "kind": self.kind,
            "help": self.help,
            "label_names": self.label_names,
            "numbers": self.numbers,
            "distributions": [(labels, d.bounds, d.counts, d.total) for labels, d in self.distributions],
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Reading":
        """Back from `to_plain`.

        Raises:
            KeyError, TypeError, ValueError: It is none.
        """
        return cls(
            plain["name"],
            plain["kind"],
            plain["help"],
            tuple(plain["label_names"]),
            tuple((tuple(labels), number) for labels, number in plain["numbers"]),
            tuple((tuple(row[0]), _distribution(*row[1:])) for row in plain["distributions"]),
        )


def gauge(name: str, help_: str, value: float) -> Reading:
    """A gauge without labels."""
    return Reading(name, "gauge", help_, (), (((), value),))


def counter(name: str, help_: str, value: float) -> Reading:
    """A counter without labels."""
    return Reading(name, "counter", help_, (), (((), value),))


def gauges(
    name: str, help_: str, label_names: tuple[str, ...], values: Iterable[tuple[Labels, float]]
) -> Reading:
    """A gauge by labels."""
    return Reading(name, "gauge", help_, label_names, tuple(values))


def counters(name: str, help_: str, label_names: tuple[str, ...], values: Mapping[Labels, float]) -> Reading:
    """A counter by labels."""
    return Reading(name, "counter", help_, label_names, tuple(values.items()))


def histogram(
    name: str, help_: str, label_names: tuple[str, ...], values: Mapping[Labels, Distribution]
) -> Reading:
    """A histogram by labels."""
    return Reading(name, "histogram", help_, label_names, distributions=tuple(values.items()))


def merged(readings: Iterable[Reading]) -> list[Reading]:
    """Readings of the same metric as one, in the order of their names; labels that one does not have are
    empty in it.
    """
    by_name: dict[str, list[Reading]] = {}
    for reading in readings:
        by_name.setdefault(reading.name, []).append(reading)
    return [_merged(by_name[name]) for name in sorted(by_name)]


def _merged(same: list[Reading]) -> Reading:
    first = same[0]
    if len(same) == 1:
        return first
    names = tuple(dict.fromkeys(name for reading in same for name in reading.label_names))
    of_a_kind = [reading for reading in same if reading.kind == first.kind]
    return Reading(
        first.name,
        first.kind,
        first.help,
        names,
        tuple((_widened(r, labels, names), number) for r in of_a_kind for labels, number in r.numbers),
        tuple((_widened(r, labels, names), d) for r in of_a_kind for labels, d in r.distributions),
    )


def _widened(reading: Reading, labels: Labels, names: tuple[str, ...]) -> Labels:
    own = dict(zip(reading.label_names, labels, strict=True))
    return tuple(own.get(name, "") for name in names)


def _distribution(bounds: Sequence[float], counts: Sequence[int], total: float) -> Distribution:
    distribution = Distribution(bounds)
    if len(counts) != len(distribution.counts):
        raise ValueError("a distribution has one count more than bounds")
    distribution.counts[:] = counts
    distribution.total = total
    return distribution
