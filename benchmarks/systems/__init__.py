"""The systems that are compared, and how each is started and ended."""

from .floor import Floor
from .haproxy import HAProxy
from .peers import PEERS_PYTHON, BentoML, LitServe, Ray
from .slipknot import Slipknot
from .system import System

__all__ = ["PEERS_PYTHON", "SYSTEMS", "System"]

SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        Slipknot(),
        Floor(),
        HAProxy(),
        Ray("ray", {}),
        Ray("ray-throughput", {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}),
        Ray("ray-haproxy", {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_HA_PROXY": "1"}),
        BentoML(),
        LitServe(),
    )
}
