"""Pure: medians, spreads and percentiles."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from ..figures import Observation


@dataclass(frozen=True)
class Summary:
    """The values of all rounds."""

    values: tuple[float, ...]
    median: float
    low: float
    high: float


def summary(values: Sequence[float]) -> Summary:
    """Of at least one value."""
    return Summary(tuple(values), median(values), min(values), max(values))


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all values do not exceed."""
    if not values:
        raise ValueError("no values")
    rank = math.ceil(len(values) * percent / 100)
    return sorted(values)[max(0, rank - 1)]


def summaries(observations: Iterable[Observation]) -> dict[str, dict[str, Summary]]:
    """By figure, then by system, in the order in which they were first seen."""
    values: dict[str, dict[str, list[float]]] = {}
    for seen in observations:
        values.setdefault(seen.figure.key, {}).setdefault(seen.system, []).append(seen.figure.value)
    return {
        key: {system: summary(its) for system, its in by_system.items()} for key, by_system in values.items()
    }
