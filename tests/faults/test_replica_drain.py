"""Replicas end under load, by a signal, a scale-down, an update: nobody's request fails."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from slipknot import serve
from tests.support.cluster_status import running_replicas, wait_until
from tests.support.journal import Journal, Pen
from tests.support.load import Load

app = FastAPI()


@serve.deployment(graceful_shutdown_timeout_s=1.5)
@serve.ingress(app)
class Serves:
    """Short answers, streams, WebSockets."""

    def __init__(self, pen: Pen | None = None) -> None:
        self._pen = pen

    @app.api_route("/", methods=["GET", "POST"])
    async def short(self) -> str:
        """Answer soon."""
        await asyncio.sleep(0.01)
        return "here"

    @app.get("/stream")
    async def stream(self, seconds: float) -> StreamingResponse:
        """Send a line at its beginning and at its end."""
        context = serve.get_request_context()

        async def lines() -> AsyncIterator[str]:
            yield "begin\n"
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                assert self._pen is not None
                self._pen.note(f"cancelled because {context.cancel_reason}")
                raise
            yield "end\n"

        return StreamingResponse(lines())

    @app.websocket("/echo")
    async def echo(self, websocket: WebSocket) -> None:
        """Send back what comes."""
        await websocket.accept()
        while True:
            await websocket.send_text(await websocket.receive_text())


@pytest.mark.timeout(60)
def test_replicas_that_end_in_order_fail_no_request(url: str) -> None:
    serve.run(Serves.options(num_replicas=3).bind())
    with Load(url, clients=3) as getting, Load(url, clients=3, method="POST") as posting:
        for _ in range(2):
            ending, pid = next(iter(running_replicas().items()))
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda ending=ending: ending not in (now := running_replicas()) and len(now) == 3)
        serve.run(Serves.options(num_replicas=1).bind())
        serve.run(Serves.options(num_replicas=3).bind())
        serve.run(Serves.options(num_replicas=2, ray_actor_options={"num_cpus": 0.5}).bind())
        for load in (getting, posting):
            load.wait_for_more(20)
    assert getting.failures + posting.failures == []


@pytest.mark.timeout(60)
def test_long_requests_finish_within_the_drain_or_are_told_that_it_is_over(
    url: str, journal: Journal
) -> None:
    serve.run(Serves.bind(journal.pen))
    ((_, pid),) = running_replicas().items()

    def read(seconds: float) -> str:
        got = ""
        stream = httpx.stream("GET", f"{url}/stream?seconds={seconds}", timeout=30)
        with contextlib.suppress(httpx.RemoteProtocolError), stream as response:
            for text in response.iter_text():
                got += text
                journal.pen.note(text.strip())
        return got

    with (
        ThreadPoolExecutor(2) as pool,
        connect(f"ws://{url.removeprefix('http://')}/echo") as websocket,
    ):
        websocket.send("one")
        assert websocket.recv(timeout=20) == "one"
        short, long = pool.submit(read, 0.5), pool.submit(read, 25.0)
        journal.wait_for("begin", count=2)
        os.kill(pid, signal.SIGTERM)
        websocket.send("two")
        assert websocket.recv(timeout=20) == "two"
        assert (short.result(), long.result()) == ("begin\nend\n", "begin\n")
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv(timeout=20)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001
    journal.wait_for("cancelled because DRAIN_TIMEOUT")
