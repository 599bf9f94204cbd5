"""How long and how much is measured."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """Sizes of the loads."""

    seconds: float = 4.0
    """Of each load that has no size of its own."""
    warm_up_s: float = 1.0
    settle_s: float = 15.0
    """How long a system that is to start waits for a quiet machine."""
    connections: tuple[int, ...] = (1, 16, 64, 512)
    body_bytes: tuple[int, ...] = (1 << 10, 100 << 10, 10 << 20)
    stream_chunks: int = 2000
    streams: tuple[int, ...] = (1, 16)
    paced_streams: int = 100
    paced_ticks: int = 200
    paced_interval_ms: float = 10.0
    sockets: int = 16
    idle_s: float = 4.0
    single_disconnects: int = 200
    disconnects: int = 1000
    random_cancels: int = 400
    timeouts: int = 300
    starts: int = 2
    replicas: tuple[int, ...] = (1, 4, 16, 64)
    proxies: tuple[int, ...] = (1, 2, 4)
    applications: tuple[int, ...] = (1, 10, 100, 1000)
    idle_connections: tuple[int, ...] = (1, 100, 1000, 10_000)
    snapshot_replicas: tuple[int, ...] = (1, 100, 1000, 10_000)


QUICK = Effort(
    seconds=1.0,
    warm_up_s=0.2,
    settle_s=0.0,
    connections=(1, 16),
    body_bytes=(1 << 10,),
    stream_chunks=200,
    streams=(1, 4),
    paced_streams=10,
    paced_ticks=30,
    sockets=4,
    idle_s=0.5,
    single_disconnects=5,
    disconnects=50,
    random_cancels=50,
    timeouts=10,
    starts=1,
    replicas=(1, 2),
    proxies=(1, 2),
    applications=(1, 100),
    idle_connections=(1, 100),
    snapshot_replicas=(1, 100),
)
"""Enough to see that everything works; the figures mean little."""
