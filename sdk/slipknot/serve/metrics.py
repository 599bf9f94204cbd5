"""Metrics of the user's own: counters, gauges and histograms, shown on the node's admin port.

    requests = serve.metrics.Counter("my_requests", description="…", tag_keys=("model",))
    requests.inc(tags={"model": "small"})

Each value also has the application, deployment and replica that the code runs in, and the route of the
request; all empty outside of a replica. From any thread. The same metric may be made more than once, as by a
constructor that runs again: it then goes on.
"""

import itertools
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Self

from slipknot_core import request_context
from slipknot_core.metrics import Counts, Distributions, Kind, Labels, Reading, counters, gauges, histogram

from .context import _replica_context_or_none

__all__ = ["Counter", "Gauge", "Histogram"]

OWN_TAGS = ("application", "deployment", "replica", "route")
"""Added to each value; not to be used as tag keys."""

DEFAULT_BOUNDARIES = (1.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1000.0, 5000.0, 10_000.0, 60_000.0)

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_TAG = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")


class _Family:
    """What all objects of the same name count into."""

    def __init__(self, kind: Kind, help_: str, tag_keys: tuple[str, ...], bounds: tuple[float, ...]) -> None:
        self.kind: Kind = kind
        self.help = help_
        self.tag_keys = tag_keys
        self.bounds = bounds
        self.numbers = Counts()
        self.distributions = Distributions(bounds)

    def reading(self, name: str) -> Reading:
        labels = (*self.tag_keys, *OWN_TAGS)
        if self.kind == "histogram":
            return histogram(name, self.help, labels, dict(self.distributions))
        if self.kind == "gauge":
            return gauges(name, self.help, labels, list(self.numbers.items()))
        return counters(name, self.help, labels, dict(self.numbers))


_families: dict[str, _Family] = {}
_lock = threading.Lock()


def user_readings() -> list[Reading]:
    """What the code of this process has counted."""
    with _lock:
        return [family.reading(name) for name, family in _families.items()]


class _Metric:
    _kind: Kind

    def __init__(
        self,
        name: str,
        description: str = "",
        tag_keys: Sequence[str] | None = None,
        *,
        _bounds: tuple[float, ...] = (),
    ) -> None:
        self._name = _checked_name(name)
        self._tag_keys = _checked_tag_keys(tag_keys)
        self._description = description
        self._default_tags: dict[str, str] = {}
        with _lock:
            family = _families.get(self._name)
            if family is None:
                family = _families[self._name] = _Family(self._kind, description, self._tag_keys, _bounds)
        if (family.kind, family.tag_keys, family.bounds) != (self._kind, self._tag_keys, _bounds):
            raise ValueError(
                f"there is already a metric {name!r} of another kind, or with other tag keys or boundaries"
            )
        self._family = family

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name}>"

    def __reduce__(self) -> Any:
        # Code that travels by value takes its metrics along; they count in the process where they arrive.
        return _renewed, (type(self), self._arguments(), self._default_tags)

    @property
    def info(self) -> dict[str, Any]:
        """Name, description, tag keys and default tags."""
        return {
            "name": self._name,
            "description": self._description,
            "tag_keys": self._tag_keys,
            "default_tags": dict(self._default_tags),
        }

    def set_default_tags(self, default_tags: Mapping[str, str]) -> Self:
        """Set the values of tags that a call does not name.

        Raises:
            ValueError: A tag is not among the tag keys.
            TypeError: A value is no text.
        """
        self._check_tags(default_tags)
        self._default_tags = dict(default_tags)
        return self

    def _arguments(self) -> dict[str, Any]:
        return {"name": self._name, "description": self._description, "tag_keys": self._tag_keys}

    def _labels(self, tags: Mapping[str, str] | None) -> Labels:
        if tags:
            self._check_tags(tags)
        given = {**self._default_tags, **(tags or {})}
        missing = [key for key in self._tag_keys if key not in given]
        if missing:
            raise ValueError(f"metric {self._name!r} needs values for the tags {', '.join(missing)}")
        replica, request = _replica_context_or_none(), request_context.current.get()
        own = ("", "", "") if replica is None else (replica.app_name, replica.deployment, replica.replica_id)
        return (*(given[key] for key in self._tag_keys), *own, "" if request is None else request.route)

    def _check_tags(self, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            if key not in self._tag_keys:
                known = ", ".join(self._tag_keys) or "none"
                raise ValueError(f"metric {self._name!r} has no tag {key!r}; its tag_keys are: {known}")
            if not isinstance(value, str):
                raise TypeError(f"tag {key!r} of metric {self._name!r} must be a str, not {value!r}")


class Counter(_Metric):
    """A number that grows.

    Args:
        name: As Prometheus shows it, followed by "_total"; other signs than letters, digits and _ become _.
        description: One line for people.
        tag_keys: Names of the tags that each value has.

    Raises:
        ValueError: The name cannot be used, or belongs to another metric.
    """

    _kind = "counter"

    def inc(self, value: float = 1.0, tags: Mapping[str, str] | None = None) -> None:
        """Add `value`.

        Raises:
            ValueError: It is not positive, or tags are missing or unknown.
        """
        if not value > 0:
            raise ValueError(f"a counter grows: inc() needs a positive value, not {value!r}")
        labels = self._labels(tags)
        with _lock:
            self._family.numbers.add(labels, value)


class Gauge(_Metric):
    """A number that goes up and down. Arguments and errors as those of `Counter`."""

    _kind = "gauge"

    def set(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        """Set it.

        Raises:
            ValueError: Tags are missing or unknown.
        """
        labels, number = self._labels(tags), float(value)
        with _lock:
            self._family.numbers.add(labels, number - self._family.numbers.get(labels, 0.0))


class Histogram(_Metric):
    """How often values fell between boundaries.

    Args:
        name: As that of `Counter`.
        description: One line for people.
        boundaries: Upper bounds of the buckets, growing and positive; None: 1 to 60,000.
        tag_keys: Names of the tags that each value has.

    Raises:
        ValueError: The name or the boundaries cannot be used, or the name belongs to another metric.
    """

    _kind = "histogram"

    def __init__(
        self,
        name: str,
        description: str = "",
        boundaries: Sequence[float] | None = None,
        tag_keys: Sequence[str] | None = None,
    ) -> None:
        bounds = DEFAULT_BOUNDARIES if boundaries is None else tuple(float(bound) for bound in boundaries)
        if not bounds or bounds[0] <= 0 or any(a >= b for a, b in itertools.pairwise(bounds)):
            raise ValueError(f"boundaries must be positive and growing, not {boundaries!r}")
        super().__init__(name, description, tag_keys, _bounds=bounds)

    def observe(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        """Count a value.

        Raises:
            ValueError: Tags are missing or unknown.
        """
        labels, number = self._labels(tags), float(value)
        with _lock:
            self._family.distributions.observe(labels, number)

    def _arguments(self) -> dict[str, Any]:
        return super()._arguments() | {"boundaries": self._family.bounds}


def _renewed(kind: type[Any], arguments: dict[str, Any], default_tags: dict[str, str]) -> Any:
    return kind(**arguments).set_default_tags(default_tags)


def _checked_name(name: str) -> str:
    clean = re.sub(r"[^a-zA-Z0-9_:]", "_", name) if isinstance(name, str) else ""
    if not _NAME.fullmatch(clean):
        raise ValueError(f"a metric's name is a text that does not begin with a digit, not {name!r}")
    if clean.startswith("slipknot_"):
        raise ValueError(f"metric {name!r}: names that begin with slipknot_ are slipknot's own")
    return clean


def _checked_tag_keys(tag_keys: Sequence[str] | None) -> tuple[str, ...]:
    if tag_keys is None:
        return ()
    if isinstance(tag_keys, str):
        raise TypeError(f"tag_keys must be a tuple of texts, not {tag_keys!r}")
    for key in tag_keys:
        if not isinstance(key, str) or not _TAG.fullmatch(key):
            raise ValueError(f"tag key {key!r} cannot be used; use letters, digits and _")
        if key in OWN_TAGS or key == "le":
            raise ValueError(f"tag key {key!r} is slipknot's own; use another one")
    return tuple(tag_keys)
