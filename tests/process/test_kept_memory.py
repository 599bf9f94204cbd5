"""Proxies and replicas find the memory of large bodies again."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from slipknot import serve
from tests.support.cluster_status import running_replicas
from tests.support.processes import child_running, page_faults

BODY = b"x" * (10 << 20)
CLIENTS = 4
TURNS = 4


@serve.deployment(max_ongoing_requests=2 * CLIENTS)
class Echo:
    """Sends the body back."""

    async def __call__(self, request: Request) -> Response:
        """Do it."""
        return Response(await request.body())


def _faults() -> dict[str, float]:
    """How many pages an echo touches for the first time, in proxy and replica, once there have been some."""
    serve.start(http_options={"port": 0})
    try:
        serve.run(Echo.bind())
        url = serve.http_url()
        (replica,) = running_replicas().values()
        pids = {"proxy": child_running("slipknot_proxy"), "replica": replica}

        def send(_: int) -> None:
            with httpx.Client(timeout=60) as client:
                for _ in range(TURNS):
                    assert client.post(url, content=BODY).content == BODY

        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(send, range(CLIENTS)))
            before = {role: page_faults(pid) for role, pid in pids.items()}
            list(clients.map(send, range(CLIENTS)))
        return {role: (page_faults(pid) - before[role]) / (CLIENTS * TURNS) for role, pid in pids.items()}
    finally:
        serve.shutdown()


def test_memory_is_kept_unless_the_environment_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = _faults()
    monkeypatch.setenv("GLIBC_TUNABLES", "")  # glibc's own rules, which are what it has without us
    returned = _faults()
    assert kept["replica"] < returned["replica"] / 2
    assert kept["proxy"] < returned["proxy"] / 2
