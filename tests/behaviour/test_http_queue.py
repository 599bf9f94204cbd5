"""What happens to requests for which there is no free slot, and to those whose client does not wait."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from slipknot import serve
from tests.support.journal import Gate, Journal, Pen
from tests.support.raw_http import RawClient

from .conftest import RunningCluster, ServeApp

MakeGate = Callable[..., Gate]


@serve.deployment(max_ongoing_requests=1)
class OneAtATime:
    """Notes each request and whether it was alone."""

    def __init__(self, pen: Pen, gate: Gate) -> None:
        self._pen, self._gate = pen, gate
        self._ongoing = 0

    async def __call__(self, request: Request) -> str:
        self._ongoing += 1
        self._pen.note(f"{request.url.query} with {self._ongoing}")
        try:
            await self._gate.passed()
        finally:
            self._ongoing -= 1
        return request.url.query


async def _has_read_all(url: str) -> None:
    """The proxy has taken what was sent to it before."""
    async with httpx.AsyncClient() as client:
        for _ in range(2):
            await client.get(url + "/-/healthz")


@pytest.mark.anyio
async def test_requests_wait_for_a_slot_in_order(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate
) -> None:
    """Nobody is turned away, nobody overtakes, and there is never more than one."""
    gate = make_gate()
    serve_app(OneAtATime.bind(journal.pen, gate))
    clients = []
    for number in range(8):
        client = await RawClient.connect(cluster.url.removeprefix("http://"))
        client.get(f"/?{number}")
        await _has_read_all(cluster.url)
        clients.append(client)
    await journal.wait_for_async("0 with 1")
    gate.open()
    for number, client in enumerate(clients):
        response = await client.read()
        assert (response.status, response.body) == (200, b"%d" % number)
        client.close()
    assert journal.notes == [f"{number} with 1" for number in range(8)]


def test_the_last_free_slot_of_many_replicas_is_found(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate
) -> None:
    """There are so many that not all are looked at for each request; yet all work at the same time."""
    count, gate = 20, make_gate()
    running = serve_app(OneAtATime.options(num_replicas=count).bind(journal.pen, gate))
    with ThreadPoolExecutor(count) as pool:
        answers = [pool.submit(running.client.get, f"/?{number}", timeout=60) for number in range(count)]
        for number in range(count):
            journal.wait_for(f"{number} with 1")
        gate.open()
        assert sorted(int(answer.result().text) for answer in answers) == list(range(count))


def test_slots_bound_all_callers_together(serve_app: ServeApp, journal: Journal, make_gate: MakeGate) -> None:
    """HTTP and handles share the slots of a replica."""

    @serve.deployment(max_ongoing_requests=2)
    class Bounded:
        def __init__(self, pen: Pen) -> None:
            self._pen = pen
            self._ongoing = 0

        async def __call__(self) -> int:
            self._ongoing += 1
            await asyncio.sleep(0.002)
            ongoing, self._ongoing = self._ongoing, self._ongoing - 1
            return ongoing

    app = serve_app(Bounded.bind(journal.pen))
    with ThreadPoolExecutor(10) as pool:
        by_http = [pool.submit(httpx.get, app.url, timeout=30) for _ in range(30)]
        by_handle = [app.handle.remote() for _ in range(30)]
        seen = [call.result().json() for call in by_http]
        seen += [response.result(timeout_s=30) for response in by_handle]
    assert set(seen) <= {1, 2}
    assert len(seen) == 60


@pytest.mark.anyio
async def test_client_that_leaves_may_want_its_request_done(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate
) -> None:
    """With `x-request-disconnect-disabled: ?1` the handler runs to its end without its client."""
    pen, gate = journal.pen, make_gate()

    @serve.deployment
    class Finishes:
        async def __call__(self, request: Request) -> str:
            pen.note("begun")
            await gate.passed()
            pen.note("finished")
            return "x"

    serve_app(Finishes.bind())
    client = await RawClient.connect(cluster.url.removeprefix("http://"))
    client.get("/", x_request_disconnect_disabled="?1")
    await journal.wait_for_async("begun")
    client.close()
    await _has_read_all(cluster.url)
    gate.open()
    await journal.wait_for_async("finished")


def test_equal_request_ids_do_not_mix(serve_app: ServeApp) -> None:
    """Twenty requests at once with one id each get their own answer."""

    @serve.deployment(max_ongoing_requests=20)
    async def echo(request: Request) -> Any:
        await asyncio.sleep(0.005)
        return [request.url.query, serve.get_request_context().request_id]

    app = serve_app(echo.bind())
    with ThreadPoolExecutor(20) as pool:
        answers = list(
            pool.map(lambda n: httpx.get(f"{app.url}/?{n}", headers={"x-request-id": "same"}), range(20))
        )
    assert [answer.json() for answer in answers] == [[str(number), "same"] for number in range(20)]
    assert all(answer.headers["x-request-id"] == "same" for answer in answers)
