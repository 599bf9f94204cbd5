"""A proxy gets SIGTERM: clients, streams, WebSockets and balancers notice nothing they need not notice."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from slipknot import serve
from tests.support.balancers import UPSTREAM_IDLE_S, Balancer, is_installed
from tests.support.cluster_status import wait_until
from tests.support.extra_proxy import ExtraProxy
from tests.support.load import Load

app = FastAPI()


@serve.deployment(max_ongoing_requests=100)
@serve.ingress(app)
class Serves:
    """Short answers, streams, WebSockets."""

    @app.api_route("/", methods=["GET", "POST"])
    async def short(self) -> str:
        """Answer at once."""
        return "here"

    @app.get("/stream")
    async def stream(self, seconds: float) -> StreamingResponse:
        """Send a line at its beginning and at its end."""

        async def lines() -> AsyncIterator[str]:
            yield "begin\n"
            await asyncio.sleep(seconds)
            yield "end\n"

        return StreamingResponse(lines())

    @app.websocket("/echo")
    async def echo(self, websocket: WebSocket) -> None:
        """Send back what comes."""
        await websocket.accept()
        while True:
            await websocket.send_text(await websocket.receive_text())


@pytest.fixture(scope="module")
def application(url: str) -> Iterator[str]:
    """The application above."""
    serve.run(Serves.bind())
    yield url
    serve.delete("default")


def _healthz(proxy: ExtraProxy) -> tuple[int, str]:
    response = httpx.get(f"{proxy.url}/-/healthz")
    return response.status_code, response.text


@pytest.mark.timeout(60)
def test_while_it_is_a_lame_duck_everything_is_answered_and_connections_end_with_their_response(
    application: str,
) -> None:
    with ExtraProxy(lame_duck_s=3.0) as proxy, httpx.Client() as client:
        assert client.get(proxy.url).headers.get("connection") != "close"
        proxy.terminate()
        wait_until(lambda: _healthz(proxy) == (503, "This node is being drained."))
        response = client.get(proxy.url)  # on the connection of before
        assert (response.status_code, response.headers["connection"]) == (200, "close")
        assert client.get(proxy.url).status_code == 200  # on a new one
        assert proxy.wait() == 0


@pytest.mark.timeout(60)
def test_an_idle_connection_is_closed_without_a_reset_whatever_is_on_its_way(application: str) -> None:
    request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
    with ExtraProxy(lame_duck_s=0.3) as proxy:
        idle = [socket.create_connection(("127.0.0.1", proxy.port), timeout=20) for _ in range(20)]
        for connection in idle:
            connection.sendall(request)
            assert b" 200 " in connection.recv(65536)
        proxy.terminate()
        outcomes = set()
        for connection in idle:  # they send all through the end of the lame duck
            time.sleep(0.02)
            with contextlib.suppress(BrokenPipeError):
                connection.sendall(request)
            answer = connection.recv(65536)  # a reset would raise
            outcomes.add(answer[9:12])
            connection.close()
        assert outcomes <= {b"200", b""}
        assert proxy.wait() == 0


@pytest.mark.timeout(60)
def test_a_stream_that_fits_in_the_drain_is_completed_and_one_that_does_not_is_cut(application: str) -> None:
    with ExtraProxy(drain_timeout_s=2.0) as proxy, ThreadPoolExecutor(2) as pool:
        begun = threading.Barrier(3)

        def read(seconds: float) -> str:
            got = ""
            url = f"{proxy.url}/stream?seconds={seconds}"
            with contextlib.suppress(httpx.RemoteProtocolError), httpx.stream("GET", url, timeout=30) as got_:
                for text in got_.iter_text():
                    got += text
                    if text == "begin\n":
                        begun.wait()
            return got

        short, long = pool.submit(read, 0.5), pool.submit(read, 25.0)
        begun.wait()
        proxy.terminate()
        assert short.result() == "begin\nend\n"
        assert long.result() == "begin\n"
        assert proxy.wait() == 0


@pytest.mark.timeout(60)
def test_a_websocket_hears_1001_at_the_end_and_the_second_signal_forces_it(application: str) -> None:
    with (
        ExtraProxy(drain_timeout_s=60.0) as proxy,
        connect(f"ws://{proxy.address}/echo") as websocket,
    ):
        websocket.send("one")
        assert websocket.recv(timeout=20) == "one"
        proxy.terminate()
        wait_until(lambda: not _accepts(proxy.port))
        websocket.send("two")  # it goes on through the drain
        assert websocket.recv(timeout=20) == "two"
        proxy.terminate()
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv(timeout=20)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        assert proxy.wait() == 0


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_behind_a_balancer_with_keepalive_nobody_sees_one_of_two_proxies_end(
    application: str, name: str, tmp_path: Path
) -> None:
    if not is_installed(name):
        pytest.skip(f"{name} is not installed (Debian: apt-get install nginx-light haproxy)")
    options: dict[str, Any] = {
        "lame_duck_s": 2.0 * UPSTREAM_IDLE_S,
        "keep_alive_timeout_s": 4.0 * UPSTREAM_IDLE_S,
    }
    with (
        ExtraProxy(**options) as first,
        ExtraProxy(**options) as second,
        Balancer(name, [first.port, second.port], tmp_path) as balancer,
        Load(balancer.url, clients=3) as getting,
        Load(balancer.url, clients=3, method="POST") as posting,
    ):
        first.terminate()
        assert first.wait() == 0
        for load in (getting, posting):
            load.wait_for_more(50)
    assert getting.failures + posting.failures == []


class NewConnections:
    """Threads that send each request on a connection of its own, until they are refused."""

    def __init__(self, port: int) -> None:
        self.answered = 0
        self.broken: list[str] = []
        """What became of requests whose connection had been accepted."""
        self._port = port
        self._threads = [threading.Thread(target=self._run) for _ in range(24)]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until all are refused."""
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _run(self) -> None:
        while True:
            try:
                connection = socket.create_connection(("127.0.0.1", self._port), 20)
            except ConnectionRefusedError:
                return
            with connection:
                try:
                    connection.sendall(b"POST / HTTP/1.1\r\nhost: proxy\r\ncontent-length: 0\r\n\r\n")
                    answer = connection.recv(65536)
                except OSError as error:
                    self.broken.append(repr(error))
                    continue
            if answer.startswith(b"HTTP/1.1 200 "):
                self.answered += 1
            else:
                self.broken.append(repr(answer))


@pytest.mark.timeout(120)
@pytest.mark.skipif(sys.platform != "linux", reason="other kernels cannot be told to take no new connections")
def test_a_connection_that_was_accepted_is_served_whenever_the_proxy_ends(application: str) -> None:
    for _ in range(5):
        with ExtraProxy(lame_duck_s=0.0) as proxy:
            clients = NewConnections(proxy.port)
            clients.start()
            wait_until(lambda: clients.answered > 50)  # noqa: B023 - called at once
            proxy.terminate()
            assert proxy.wait() == 0
            clients.join()
        assert clients.broken == []


@pytest.mark.timeout(60)
def test_a_proxy_that_was_stopped_for_five_seconds_goes_on_with_its_requests(application: str) -> None:
    with ExtraProxy() as proxy, ThreadPoolExecutor(2) as pool:
        long = pool.submit(httpx.get, f"{proxy.url}/stream?seconds=7", timeout=40)
        with Load(proxy.url, clients=2) as load:
            load.wait_for_more(5)
            os.kill(proxy.pid, signal.SIGSTOP)
            time.sleep(5)
            os.kill(proxy.pid, signal.SIGCONT)
            load.wait_for_more(20)
        assert load.failures == []
        assert long.result().text == "begin\nend\n"
