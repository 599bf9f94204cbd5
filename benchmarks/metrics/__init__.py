"""What is measured: one function a metric, from a running system to figures."""

from .call import CALL, CHAIN
from .cancel import CANCEL
from .idle import IDLE
from .metric import Metric, NotOffered
from .noop import NOOP_FASTAPI, NOOP_PLAIN
from .overload import OVERLOAD
from .post import POST
from .start import START
from .stream import PACED, STREAM
from .timeout import TIMEOUT
from .websocket import WEBSOCKET

__all__ = ["METRICS", "Metric", "NotOffered"]

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
)
