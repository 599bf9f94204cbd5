"""A body that is sent, read by the handler, and sent back."""

from collections.abc import AsyncIterator

from ..effort import Effort
from ..figures import Figure
from ..loads.wrk import Post
from ..systems.system import Running
from .metric import Metric
from .wrk_load import measure_by_wrk

LARGE_BYTES = 1 << 20
"""From here on four connections are enough."""


async def _post(running: Running, effort: Effort) -> AsyncIterator[list[Figure]]:
    for size_bytes in effort.body_bytes:
        connections = 4 if size_bytes >= LARGE_BYTES else 16
        case = f"{_size(size_bytes)} c{connections}"
        post = Post("application/octet-stream", size_bytes=size_bytes)
        yield await measure_by_wrk(
            running, effort, "post", case, path="/echo", connections=connections, post=post
        )


def _size(size_bytes: int) -> str:
    return f"{size_bytes >> 20} MiB" if size_bytes >= 1 << 20 else f"{size_bytes >> 10} KiB"


POST = Metric("post", "fastapi", _post, needs_wrk=True)
