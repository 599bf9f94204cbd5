"""Clients that stop reading: what each holds in memory, and what requests beside them feel.

    scripts/stalled --streams 500

Kinds: `chunks` (a stream of small chunks), `large` (a stream of chunks of 1 MiB), `body` (a response of
10 MiB that is no stream), `websocket` (small messages). Each runs on an embedded cluster of its own. The
clients send their request and never read. RSS is of all proxy and replica processes, after minus before, for
each client; what the kernel's sockets hold is not in it. Requests beside them come one after another: before,
while the buffers fill, and afterwards.
"""

import argparse
import asyncio
import base64
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, WebSocket
from fastapi.responses import Response, StreamingResponse

from slipknot import serve

from .cluster import quiet_cluster, rss_bytes
from .report.statistics import percentile

KINDS = ("chunks", "large", "body", "websocket")
CHUNK = b"data: " + b"x" * 92 + b"\n\n"
LARGE = bytes(1024 * 1024)
BODY = bytes(10 * 1024 * 1024)
QUIET_S = 3.0
"""Nothing more is taken from the handlers for so long: the buffers are full."""
SAMPLE_S = 2.0
PAUSE_S = 0.005
"""Between two requests beside the stalled ones."""
MAX_FILL_S = 120.0

api = FastAPI()


@serve.deployment(max_ongoing_requests=10_000)
@serve.ingress(api)
class Producer:
    """Streams without end, and counts what was taken of them."""

    def __init__(self) -> None:
        self._taken_bytes = 0

    @api.get("/taken")
    async def taken(self) -> int:
        """How many bytes were taken from all streams."""
        return self._taken_bytes

    @api.get("/chunks")
    async def chunks(self) -> StreamingResponse:
        """Events of 100 bytes."""
        return StreamingResponse(self._repeat(CHUNK))

    @api.get("/large")
    async def large(self) -> StreamingResponse:
        """Large chunks; the handler keeps nothing of its own."""
        return StreamingResponse(self._repeat(LARGE))

    @api.get("/body")
    async def body(self) -> Response:
        """One large body, the same for all."""
        return Response(BODY)

    @api.websocket("/websocket")
    async def websocket(self, client: WebSocket) -> None:
        """Messages."""
        await client.accept()
        while True:
            await client.send_text(CHUNK.decode())
            self._taken_bytes += len(CHUNK)

    async def _repeat(self, chunk: bytes) -> AsyncIterator[bytes]:
        while True:
            yield chunk
            self._taken_bytes += len(chunk)


class Clients:
    """Those that stall, and the one beside them."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._stalled: list[socket.socket] = []
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._changed_s = time.monotonic()
        self.taken_bytes = 0

    async def connect(self) -> None:
        """Open the connection of the requests beside."""
        self._reader, self._writer = await asyncio.open_connection(*self._address)

    async def stall(self, kind: str, count: int) -> None:
        """Begin `count` exchanges that nobody reads."""
        head = f"GET /{kind} HTTP/1.1\r\nhost: x\r\n"
        if kind == "websocket":
            key = base64.b64encode(os.urandom(16)).decode()
            head += (
                f"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
                f"sec-websocket-key: {key}\r\n"
            )
        loop = asyncio.get_running_loop()
        for _ in range(count):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await loop.sock_connect(client, self._address)
            await loop.sock_sendall(client, f"{head}\r\n".encode())
            self._stalled.append(client)

    async def ask(self) -> float:
        """One request; returns what it took in milliseconds."""
        started_s = time.monotonic()
        self._writer.write(b"GET /taken HTTP/1.1\r\nhost: x\r\n\r\n")
        head = await self._reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        taken_bytes = int(await self._reader.readexactly(size))
        ended_s = time.monotonic()
        if taken_bytes != self.taken_bytes:
            self.taken_bytes, self._changed_s = taken_bytes, ended_s
        return (ended_s - started_s) * 1e3

    async def ask_for(self, span_s: float) -> list[float]:
        """Requests for so long."""
        times_ms, until_s = [], time.monotonic() + span_s
        while time.monotonic() < until_s:
            times_ms.append(await self.ask())
            await asyncio.sleep(PAUSE_S)
        return times_ms

    async def ask_until_quiet(self) -> list[float]:
        """Requests until nothing is taken from the handlers any more."""
        times_ms, started_s = [], time.monotonic()
        self._changed_s = started_s
        while time.monotonic() - self._changed_s < QUIET_S:
            times_ms.append(await self.ask())
            await asyncio.sleep(PAUSE_S)
            if time.monotonic() - started_s > MAX_FILL_S:
                raise RuntimeError("the handlers are never held back")
        return times_ms

    def close(self) -> None:
        """Leave."""
        self._writer.close()
        for client in self._stalled:
            client.close()


def percentiles(times_ms: list[float]) -> dict[str, float]:
    """Of latencies."""
    return {
        "count": len(times_ms),
        "p50_ms": round(percentile(times_ms, 50), 2),
        "p99_ms": round(percentile(times_ms, 99), 2),
        "max_ms": round(max(times_ms), 2),
    }


async def _measure(kind: str, count: int) -> dict[str, Any]:
    host, _, port = serve.http_url().removeprefix("http://").rpartition(":")
    clients = Clients((host, int(port)))
    await clients.connect()
    before_ms = await clients.ask_for(SAMPLE_S)
    rss_before = rss_bytes()
    started_s = time.monotonic()
    opening = asyncio.create_task(clients.stall(kind, count))
    filling_ms = await clients.ask_until_quiet()
    fill_s = time.monotonic() - started_s - QUIET_S
    await opening
    after_ms = await clients.ask_for(SAMPLE_S)
    grown = rss_bytes() - rss_before
    held_kib = {name: round(grown[name] / count / 1024, 1) for name in ("proxy", "replica")}
    result = {
        "kind": kind,
        "streams": count,
        "held_kib": {**held_kib, "together": round(sum(held_kib.values()), 1)},
        "taken_kib": round(clients.taken_bytes / count / 1024, 1),
        "fill_s": round(fill_s, 2),
        "beside": {
            "before": percentiles(before_ms),
            "filling": percentiles(filling_ms),
            "after": percentiles(after_ms),
        },
    }
    clients.close()
    return result


def _inner(kind: str, count: int) -> None:
    with quiet_cluster(Producer.bind()):
        print(json.dumps(asyncio.run(_measure(kind, count))))


def _tell(result: dict[str, Any]) -> None:
    held, beside = result["held_kib"], result["beside"]
    print(
        f"{result['kind']:<10} {result['streams']} streams: {held['proxy']} KiB in the proxy + "
        f"{held['replica']} KiB in the replica = {held['together']} KiB each; "
        f"{result['taken_kib']} KiB taken; full after {result['fill_s']} s"
    )
    for when, times in beside.items():
        print(
            f"  beside, {when:<8} p50 {times['p50_ms']:8.2f} ms  p99 {times['p99_ms']:8.2f} ms  "
            f"max {times['max_ms']:8.2f} ms  ({times['count']})"
        )


def main() -> None:
    """Measure each kind in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=500, help="how many clients stall")
    parser.add_argument("--kind", choices=KINDS, action="append", help="one kind; may be repeated")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of text")
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inner:
        _inner(options.kind[0], options.streams)
        return
    for kind in options.kind or KINDS:
        command = [sys.executable, "-m", "benchmarks.stalled", "--inner", "--kind", kind]
        command += ["--streams", str(options.streams)]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        result = json.loads(output.splitlines()[-1])
        print(json.dumps(result)) if options.json else _tell(result)


if __name__ == "__main__":
    main()
