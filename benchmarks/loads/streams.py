"""Readers of streamed answers, as thin as they can be: the load generator must not be what is measured."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

END_OF_CHUNK = b"~"
"""The applications put it at the end of each chunk and nowhere else."""


class StreamClosed(Exception):
    """The answer was none, or not what was asked for."""


@dataclass(frozen=True)
class Tick:
    """One chunk of a paced stream."""

    number: int
    made_s: float
    """By the clock that all processes of the machine share."""
    came_s: float


@dataclass
class PacedStream:
    """What came of one paced stream."""

    asked_s: float
    first_s: float | None = None
    ticks: list[Tick] = field(default_factory=list)


class _Reader(asyncio.Protocol):
    def __init__(self, path: str, take: Callable[[bytes], None]) -> None:
        self._path = path
        self._take = take
        self.asked_s = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._start = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.asked_s = time.monotonic()
        transport.write(f"GET {self._path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        if len(self._start) < 12:
            self._start += data[:12]
        self._take(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.done.done():
            return
        if exc is not None or self._start[9:12] != b"200":
            self.done.set_exception(StreamClosed(f"{self._path}: {exc or self._start!r}"))
        else:
            self.done.set_result(None)


async def count_chunks(host: str, port: int, path: str) -> int:
    """Read one stream to its end."""
    count = 0

    def take(data: bytes) -> None:
        nonlocal count
        count += data.count(END_OF_CHUNK)

    await _read(host, port, path, take)
    return count


async def paced(host: str, port: int, path: str) -> PacedStream:
    """Read one paced stream to its end, with the moment at which each chunk came."""
    stream = PacedStream(0.0)
    rest = b""

    def take(data: bytes) -> None:
        nonlocal rest
        now_s = time.monotonic()
        stream.first_s = stream.first_s or now_s
        *chunks, rest = (rest + data).split(END_OF_CHUNK)
        # The chunk is the last line: the head of the answer and of the HTTP chunk stand before it.
        for chunk in chunks:
            number, made_s = chunk[chunk.rfind(b"\n") + 1 :].split(b" ")
            stream.ticks.append(Tick(int(number), float(made_s), now_s))

    stream.asked_s = await _read(host, port, path, take)
    return stream


async def _read(host: str, port: int, path: str, take: Callable[[bytes], None]) -> float:
    loop = asyncio.get_running_loop()
    transport, reader = await loop.create_connection(lambda: _Reader(path, take), host, port)
    try:
        await reader.done
    finally:
        transport.close()
    return reader.asked_s


async def repeat(work: Callable[[], Awaitable[int]], at_a_time: int, seconds: float) -> tuple[int, float]:
    """Do `work` over and over, so many at a time, until `seconds` have passed; sum and time taken."""
    begun_s = time.monotonic()

    async def one_after_another() -> int:
        total = 0
        while True:
            count = await work()
            total += count
            if time.monotonic() - begun_s >= seconds:
                return total

    totals = await asyncio.gather(*(one_after_another() for _ in range(at_a_time)))
    return sum(totals), time.monotonic() - begun_s
