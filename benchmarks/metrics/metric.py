"""What a metric is."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

from ..effort import Effort
from ..figures import Figure
from ..systems.system import Running

Measure = Callable[[Running, Effort], AsyncIterator[list[Figure]]]
"""Yields the figures of each load as soon as they are there, so that a later failure does not cost them."""


class NotOffered(Exception):
    """The system cannot do what would be measured; no failure."""


@dataclass(frozen=True)
class Metric:
    """A name for the command line, and how to measure it on a running system."""

    group: str
    application: str
    measure: Measure
    needs_wrk: bool = False
    options: Mapping[str, object] = field(default_factory=dict)
    """Of the start; metrics with other options than none get a system of their own."""
    only: frozenset[str] | None = None
    """Names of the systems for which it means something; None: all that serve the application."""
    within_s: float = 180.0
