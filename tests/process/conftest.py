"""The process tests share one event loop: a second one in a process would get late events of gRPC that were
meant for the first.
"""

from collections.abc import AsyncIterator

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The loop that all roles run on: its transports are what many of these tests are about."""
    return ("asyncio", {"use_uvloop": True})


@pytest.fixture(scope="session", autouse=True)
async def _one_loop(anyio_backend: object) -> AsyncIterator[None]:
    yield
