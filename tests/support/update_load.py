"""Clients of all kinds at once: keep-alive HTTP, streams, handle calls, short and long WebSockets."""

import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

import httpx
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from starlette.responses import StreamingResponse
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from slipknot import serve

from .load import Load

CHUNKS = 10
CHUNK_PAUSE_S = 0.05
GOING_AWAY = 1001
QUIET = {"log_level": "ERROR", "enable_access_log": False}

api = FastAPI()


@serve.deployment(name="Mixed", logging_config=QUIET)
@serve.ingress(api)
class Mixed:
    """Says which version it is, at once, in pieces and over WebSockets."""

    def __init__(self, version: str, fails: bool = False) -> None:
        if fails:
            raise ValueError(f"{version} cannot start")
        self._version = version

    @api.get("/")
    async def whole(self) -> str:
        return self._version

    @api.get("/stream")
    async def stream(self) -> StreamingResponse:
        async def chunks() -> AsyncIterator[str]:
            import asyncio

            for _ in range(CHUNKS):
                yield "x"
                await asyncio.sleep(CHUNK_PAUSE_S)

        return StreamingResponse(chunks())

    @api.websocket("/ws")
    async def echo(self, websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text(await websocket.receive_text())
        except WebSocketDisconnect:
            pass

    async def version(self) -> str:
        return self._version


class UpdateLoad:
    """Use as a context manager. `repr` tells what went well, `failures` what did not.

    Args:
        url: Of the application `Mixed`.
        handle: To it.
        clients: Of the plain kind; there are one or two of the others.
    """

    def __init__(self, url: str, handle: Any, clients: int = 3) -> None:
        self._plain = Load(url + "/", clients=clients)
        self._url, self._handle = url, handle
        self._done: Counter[str] = Counter()
        self._failures: list[str] = []
        self._news = threading.Condition()
        self._is_ending = threading.Event()
        kinds: list[Callable[[httpx.Client], str]] = [
            self._stream, self._stream, self._call, self._short_socket, self._long_socket
        ]  # fmt: skip
        self._threads = [threading.Thread(target=self._repeat, args=(kind,)) for kind in kinds]

    def __enter__(self) -> Self:
        self._plain.__enter__()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_ending.set()
        for thread in self._threads:
            thread.join()
        self._plain.__exit__(*error)

    @property
    def failures(self) -> list[str]:
        """What went wrong, of all kinds."""
        with self._news:
            return [*self._failures, *(repr(answer) for answer in self._plain.failures)]

    @property
    def done(self) -> dict[str, int]:
        """Counts of what went well, by kind."""
        with self._news:
            return {"plain": sum(a.status == 200 for a in self._plain.answers), **self._done}

    @property
    def longest_gap_s(self) -> float:
        """The longest time without a good answer to a plain request."""
        return self._plain.longest_gap_s

    def wait_for_more(self, count: int) -> None:
        """Wait until so many more plain requests were answered."""
        self._plain.wait_for_more(count)

    def _repeat(self, kind: Callable[[httpx.Client], str]) -> None:
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._is_ending.is_set():
                try:
                    word = kind(client)
                except Exception as error:  # noqa: BLE001 - whatever it is counts as a failure
                    with self._news:
                        self._failures.append(f"{kind.__name__}: {error!r}")
                    time.sleep(0.05)
                else:
                    with self._news:
                        self._done[word] += 1

    def _stream(self, client: httpx.Client) -> str:
        text = client.get("/stream").text
        assert text == "x" * CHUNKS, text
        return "streams"

    def _call(self, _client: httpx.Client) -> str:
        assert isinstance(self._handle.version.remote().result(timeout_s=30), str)
        return "calls"

    def _short_socket(self, _client: httpx.Client) -> str:
        with connect(self._url.replace("http", "ws") + "/ws") as socket:
            for number in range(5):
                socket.send(str(number))
                assert socket.recv(timeout=20) == str(number)
                time.sleep(CHUNK_PAUSE_S)
        return "short sockets"

    def _long_socket(self, _client: httpx.Client) -> str:
        """Stays until the replica has to go, which is then said so."""
        with connect(self._url.replace("http", "ws") + "/ws") as socket:
            try:
                while not self._is_ending.is_set():
                    socket.send("still here")
                    socket.recv(timeout=20)
                    time.sleep(CHUNK_PAUSE_S)
            except ConnectionClosed as closed:
                assert closed.rcvd is not None and closed.rcvd.code == GOING_AWAY, closed
                return "long sockets that got their notice"
        return "long sockets"


def update(number: int, *, replicas: int, fails: bool = False) -> Any:
    """Deploy version `number`; returns its handle. One that `fails` raises, as `serve.run` does."""
    options = {"num_replicas": replicas, "graceful_shutdown_timeout_s": 2, "max_ongoing_requests": 20}
    if fails:
        options["max_constructor_retry_count"] = 2
    return serve.run(Mixed.options(**options).bind(f"version {number}", fails))
