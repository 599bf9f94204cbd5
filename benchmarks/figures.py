"""The values that metrics give."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured value."""

    metric: str
    case: str
    """Under which load, e.g. `plain c16`."""
    name: str
    """What of it, e.g. `rate`."""
    value: float
    unit: str

    @property
    def key(self) -> str:
        """What tells it from others."""
        return f"{self.metric}/{self.case}/{self.name}"


@dataclass(frozen=True)
class Observation:
    """A figure, of which system and round."""

    figure: Figure
    system: str
    round: int


@dataclass(frozen=True)
class Gap:
    """Something that was not measured, and why."""

    system: str
    metric: str
    round: int | None
    reason: str
