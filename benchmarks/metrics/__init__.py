"""What is measured: one function a metric, from a running system to figures."""

from .metric import Metric, NotOffered
from .noop import NOOP_FASTAPI, NOOP_PLAIN

__all__ = ["METRICS", "Metric", "NotOffered"]

METRICS: tuple[Metric, ...] = (NOOP_PLAIN, NOOP_FASTAPI)
