"""What is measured: one function a metric, from a running system to figures."""

from .call import CALL, CHAIN
from .cancel import CANCEL
from .growth import GROWTH
from .idle import IDLE
from .metric import Metric, NotOffered
from .noop import NOOP_FASTAPI, NOOP_PLAIN
from .overload import OVERLOAD
from .post import POST
from .simulations import SIMULATIONS
from .start import START
from .stream import PACED, STREAM
from .timeout import TIMEOUT
from .websocket import WEBSOCKET

__all__ = ["METRICS", "USUAL_GROUPS", "Metric", "NotOffered"]

# Idle before any load: what it leaves in memory is the load's.
METRICS: tuple[Metric, ...] = (
    NOOP_PLAIN,
    START,
    IDLE,
    NOOP_FASTAPI,
    POST,
    STREAM,
    PACED,
    WEBSOCKET,
    CALL,
    CHAIN,
    *CANCEL,
    TIMEOUT,
    OVERLOAD,
    *SIMULATIONS,
    *GROWTH,
)

USUAL_GROUPS = tuple(dict.fromkeys(metric.group for metric in METRICS if metric.group != "growth"))
"""Growth takes minutes and is about slipknot alone, so it is only measured when it is asked for."""
