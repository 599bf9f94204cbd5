"""A mixed load for long, and whether anything grows: memory, open files, requests counted as under way.

    scripts/soak --minutes 60
    scripts/soak --minutes 10 --completed 200000 --cancelled 200000

Requests that complete, requests whose client leaves, streams and WebSockets, in the proportion of their
counts, on an embedded cluster with a handle call behind each. It ends when all counts are reached or the time
is over. The first fifth is for warming up. RSS of each process is fitted by a line over the rest; open files
and gauges are compared idle, before and after. The exit status is 0 only if all is flat.

How long requests took, and what they cost, is told for every five minutes, and how much of the CPU time that
was wanted the host gave to others: on a virtual machine the neighbours make latencies go up and down.
"""

import argparse
import asyncio
import base64
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import psutil
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse

from slipknot import _connection, _control, serve
from slipknot._metrics import cluster_readings
from slipknot.serve.handle import DeploymentHandle

from . import machine
from .cluster import quiet_cluster
from .stalled import percentiles

WORKERS = 16
MAX_LIFE_S = 0.02
"""A request is cancelled at a random time up to this age."""
SETTLE_S = 3.0
WINDOW_S = 300.0
"""The parts of the run that are compared."""
MAX_BYTES_AN_EXCHANGE = 100
"""Growth of a process for each exchange that is taken for noise; a kept object is larger."""
MAX_MORE_FILES = 8
GAUGES = (
    "slipknot_proxy_ongoing_http_requests",
    "slipknot_router_queued_requests",
    "slipknot_router_ongoing_requests",
    "slipknot_replica_ongoing_requests",
)
KINDS = ("completed", "cancelled", "streams", "websockets")

api = FastAPI()


@serve.deployment(max_ongoing_requests=100)
class Leaf:
    """Works."""

    async def work(self, span_s: float) -> str:
        """Take so long."""
        await asyncio.sleep(span_s)
        return "done"


@serve.deployment(max_ongoing_requests=100)
@serve.ingress(api)
class Top:
    """What clients talk to."""

    def __init__(self, leaf: DeploymentHandle) -> None:
        self._leaf = leaf

    @api.get("/work/{span_s}")
    async def work(self, span_s: float) -> str:
        """An answer after so long."""
        return str(await self._leaf.work.remote(span_s))

    @api.get("/stream")
    async def stream(self) -> StreamingResponse:
        """A hundred chunks."""
        await self._leaf.work.remote(0)
        return StreamingResponse(self._chunks())

    @api.websocket("/socket")
    async def socket(self, client: WebSocket) -> None:
        """One message each way."""
        await client.accept()
        await client.send_text(str(await self._leaf.work.remote(0)))
        await client.close()

    async def _chunks(self) -> AsyncIterator[str]:
        for number in range(100):
            yield f"chunk {number}\n"
            if number % 20 == 0:
                await asyncio.sleep(0)


class Load:
    """The clients. `done` tells how many exchanges of each kind there were."""

    def __init__(self, address: tuple[str, int], counts: dict[str, int], until_s: float) -> None:
        self.done: Counter[str] = Counter()
        self.times_ms: list[tuple[float, float]] = []
        """When each completed request ended, and what it took."""
        self._address = address
        self._counts = counts
        self._until_s = until_s

    async def run(self) -> None:
        """All of it."""
        async with asyncio.TaskGroup() as group:
            for number in range(WORKERS):
                group.create_task(self._work(random.Random(number)))

    async def _work(self, choices: random.Random) -> None:
        kept = await asyncio.open_connection(*self._address)
        while time.monotonic() < self._until_s:
            left = [max(0, self._counts[kind] - self.done[kind]) for kind in KINDS]
            if not any(left):
                break
            kind = choices.choices(KINDS, left)[0]
            self.done[kind] += 1
            match kind:
                case "completed":
                    await self._complete(*kept)
                case "cancelled":
                    await self._leave(choices)
                case "streams":
                    await self._read(
                        "GET /stream HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", b"chunk 99\n"
                    )
                case _:
                    key = base64.b64encode(os.urandom(16)).decode()
                    head = (
                        "GET /socket HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
                        f"sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n"
                    )
                    await self._read(head, b"done")
        kept[1].close()

    async def _complete(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        began_s = time.monotonic()
        writer.write(b"GET /work/0 HTTP/1.1\r\nhost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(None, 1)[0]))
        ended_s = time.monotonic()
        if b" 200 " not in head[:16]:
            raise RuntimeError(f"a request was answered with {head!r}")
        self.times_ms.append((ended_s, (ended_s - began_s) * 1e3))

    async def _leave(self, choices: random.Random) -> None:
        _, writer = await asyncio.open_connection(*self._address)
        writer.write(b"GET /work/60 HTTP/1.1\r\nhost: x\r\n\r\n")
        await asyncio.sleep(choices.uniform(0, MAX_LIFE_S))
        writer.transport.abort()

    async def _read(self, head: str, wanted: bytes) -> None:
        reader, writer = await asyncio.open_connection(*self._address)
        writer.write(head.encode())
        data = b""
        while wanted not in data:
            more = await reader.read(65536)
            if not more:
                raise RuntimeError(f"{wanted!r} did not come: {data[-200:]!r}")
            data += more
        writer.close()


def _processes() -> dict[str, dict[str, int]]:
    """Memory, files, threads and CPU time of each process of the cluster."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        with process.oneshot():
            name = next((part for part in process.cmdline() if part.startswith("slipknot_")), "other")
            found[f"{name} {process.pid}"] = {
                "rss": process.memory_info().rss,
                "files": process.num_fds(),
                "threads": process.num_threads(),
                "cpu_ms": round(1e3 * sum(process.cpu_times()[:2])),
            }
    return found


async def _gauges() -> dict[str, float]:
    connection = _connection.current()

    async def ask() -> list[Any]:
        return await cluster_readings(await _control.status(connection))

    readings = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(ask(), connection.loop))
    sums = dict.fromkeys(GAUGES, 0.0)
    for reading in readings:
        if reading.name in sums:
            sums[reading.name] += sum(value for _, value in reading.numbers)
    return sums


def slope(points: list[tuple[float, float]]) -> float:
    """Of the line that fits best, by least squares."""
    if len(points) < 2:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def windows(
    times_ms: list[tuple[float, float]], samples: list[dict[str, Any]], length_s: float
) -> list[dict[str, float]]:
    """The run in parts of that length, without a last one that is shorter: what a completed request took in
    each, CPU time of all processes for an exchange, and the share of the CPU that the host gave to others.
    """
    if not samples:
        return []
    began_s = samples[0]["at_s"]
    found = []
    for number in range(int((samples[-1]["at_s"] - began_s) / length_s)):
        start_s = began_s + number * length_s
        inside = [s for s in samples if start_s <= s["at_s"] <= start_s + length_s]
        took_ms = [ms for at_s, ms in times_ms if start_s <= at_s < start_s + length_s]
        if len(inside) < 2 or not took_ms:
            continue
        first, last = inside[0], inside[-1]
        spent_ms = [sum(process["cpu_ms"] for process in s["processes"].values()) for s in (first, last)]
        exchanges = last["exchanges"] - first["exchanges"]
        found.append(
            {
                "from_minute": round(number * length_s / 60, 1),
                **percentiles(took_ms),
                "cpu_ms_an_exchange": round((spent_ms[1] - spent_ms[0]) / max(exchanges, 1), 3),
                "stolen_percent": round(machine.stolen_percent(first["cpu"], last["cpu"]), 1),
            }
        )
    return found


async def _soak(options: argparse.Namespace) -> dict[str, Any]:
    host, _, port = serve.http_url().removeprefix("http://").rpartition(":")
    counts = {kind: getattr(options, kind) for kind in KINDS}
    began_s = time.monotonic()
    warm_up = Load((host, int(port)), {kind: 200 for kind in KINDS}, began_s + 60)
    await warm_up.run()
    await asyncio.sleep(SETTLE_S)
    idle_before = _processes()
    began_s = time.monotonic()
    load = Load((host, int(port)), counts, began_s + options.minutes * 60)
    samples: list[dict[str, Any]] = []

    async def sample() -> None:
        while True:
            exchanges = load.done.total()
            samples.append(
                {
                    "at_s": time.monotonic(),
                    "exchanges": exchanges,
                    "processes": _processes(),
                    "gauges": await _gauges(),
                    "cpu": machine.cpu_times(),
                }
            )
            await asyncio.sleep(options.interval)

    sampling = asyncio.create_task(sample())
    await load.run()
    sampling.cancel()
    elapsed_s = time.monotonic() - began_s
    await asyncio.sleep(SETTLE_S)
    idle_after, gauges_after = _processes(), await _gauges()
    steady = samples[len(samples) // 5 :]
    bytes_an_exchange = {
        name: round(
            slope([(s["exchanges"], s["processes"][name]["rss"]) for s in steady if name in s["processes"]]),
            1,
        )
        for name in idle_after
    }
    more_files = {
        name: idle_after[name]["files"] - idle_before[name]["files"]
        for name in idle_after
        if name in idle_before
    }
    problems = [f"{name} grows" for name, size in bytes_an_exchange.items() if size > MAX_BYTES_AN_EXCHANGE]
    problems += [f"{name} keeps files open" for name, more in more_files.items() if more > MAX_MORE_FILES]
    problems += [f"{name} is {value:g}, idle" for name, value in gauges_after.items() if value]
    if idle_before.keys() != idle_after.keys():
        problems.append("processes came or went")
    return {
        "seconds": round(elapsed_s, 1),
        "done": dict(load.done),
        "rss_bytes_an_exchange": bytes_an_exchange,
        "rss_mib": {
            name: [
                round(found[name]["rss"] / 2**20, 1) for found in (idle_before, idle_after) if name in found
            ]
            for name in idle_after
        },
        "more_files": more_files,
        "gauges_idle": gauges_after,
        "windows": windows(load.times_ms, samples, min(WINDOW_S, elapsed_s / 5)),
        "problems": problems,
        "samples": samples,
    }


def main() -> int:
    """Run it and tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60, help="at most so long")
    parser.add_argument("--completed", type=int, default=1_000_000, help="requests that complete")
    parser.add_argument("--cancelled", type=int, default=1_000_000, help="requests whose client leaves")
    parser.add_argument("--streams", type=int, default=100_000, help="streams")
    parser.add_argument("--websockets", type=int, default=50_000, help="WebSockets")
    parser.add_argument("--interval", type=float, default=5, help="seconds between samples")
    parser.add_argument("--json", action="store_true", help="JSON, with all samples, instead of text")
    options = parser.parse_args()
    with quiet_cluster(Top.bind(Leaf.bind())):
        result = asyncio.run(_soak(options))
    if options.json:
        print(json.dumps(result))
        return 1 if result["problems"] else 0
    print(f"{result['seconds']} s: " + ", ".join(f"{count} {kind}" for kind, count in result["done"].items()))
    for name, size in result["rss_bytes_an_exchange"].items():
        rss = " -> ".join(map(str, result["rss_mib"][name]))
        print(f"  {name:<32} {rss} MiB, {size} B an exchange; {result['more_files'].get(name)} files more")
    print("gauges, idle: " + ", ".join(f"{name} {value:g}" for name, value in result["gauges_idle"].items()))
    for part in result["windows"]:
        print(
            f"from minute {part['from_minute']:>4}: p50 {part['p50_ms']} ms, p99 {part['p99_ms']} ms,",
            f"CPU {part['cpu_ms_an_exchange']} ms an exchange; {part['stolen_percent']} % given to others",
        )
    print("flat" if not result["problems"] else "NOT FLAT: " + "; ".join(result["problems"]))
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
