"""Cancel very many requests at random times in every phase and kind, and count what was left behind.

    scripts/soak-cancel --cancels 20000

Kinds: HTTP, an upload that stops half-way, a stream, a WebSocket, a handle call, a deadline. Each runs three
deployments deep on an embedded cluster; the last one has so few slots that many requests are cancelled while
they queue. The exit status is 0 only if nothing was left behind.
"""

import argparse
import asyncio
import base64
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from slipknot import _connection, _control, serve

from .cluster import rss_bytes
from .soak_app import HOLD_S, build

WORKERS = 16
"""Few enough that the machine keeps up: what begins late because it is busy would look like a survivor."""
MAX_LIFE_S = 0.15
"""A request is cancelled at a random time up to this age."""
NOTICE_S = 2.0
"""What begins or completes this long after its client has gone counts as a survivor."""
WARM_UP = 2000
MAX_LEAK_BYTES = 300
"""Growth of all processes together, for each request of the second half, that is taken for noise."""
HEAP_BYTES = 8 * 1024 * 1024
"""Growth of all processes together that more requests do not make larger: their heaps still find their size
after 20,000."""
IDLE_STREAM = {"ServerStream._read", "_schedule_rpc_coro", "_handle_exceptions"}
"""Tasks of a stream that a caller keeps for its next call: there are a few of them, however many calls."""
LOOKS = 5
"""Tasks are counted so often, and the least of each kind counts: a writer or a report comes and goes."""
DEPLOYMENTS = ("Top", "Middle", "Leaf")
COMPLAINT = re.compile(r"never retrieved|never awaited|was destroyed|Traceback|task_failed|task_stuck")

Client = Callable[[int, float], Awaitable[None]]


class Soak:
    """One run against the cluster of this process."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._host, _, port = serve.http_url().removeprefix("http://").rpartition(":")
        self._port = int(port)
        self._handle = serve.get_app_handle("default")
        self._gone_s: dict[int, float] = {}
        self._kinds: Counter[str] = Counter()
        self._next = 0

    async def run(self, count: int) -> None:
        """Cancel `count` requests."""
        until = self._next + count
        await asyncio.gather(*(self._work(until) for _ in range(WORKERS)))

    async def report(self) -> tuple[dict[str, int], dict[str, dict[str, Any]]]:
        """Counts of what survived, and what each deployment says."""
        await asyncio.sleep(HOLD_S + NOTICE_S)
        # Before the reports are asked for: those take slots, too.
        slots = sum(
            r.ongoing for a in (await _status()).applications for d in a.deployments for r in d.replicas
        )
        levels = {}
        for name in DEPLOYMENTS:
            handle = serve.get_deployment_handle(name, "default")
            levels[name] = await handle.report.remote()
            for _ in range(LOOKS - 1):
                await asyncio.sleep(0.1)
                levels[name]["tasks"] &= (await handle.report.remote())["tasks"]
        completed = sum(self._late(level["completed"]) for level in levels.values())
        begun = sum(self._late(level["begun"]) for level in levels.values())
        return {"completed_after_cancel": completed, "begun_after_cancel": begun, "slots": slots}, levels

    async def rss_bytes(self) -> dict[str, int]:
        """Of all processes, by their kind."""
        for name in DEPLOYMENTS:
            await serve.get_deployment_handle(name, "default").trim.remote()
        return rss_bytes()

    @property
    def kinds(self) -> str:
        """How many of each kind."""
        return ", ".join(f"{count} {kind}" for kind, count in sorted(self._kinds.items()))

    def _late(self, times_s: Sequence[float]) -> int:
        return sum(at_s > self._gone_s.get(number, at_s) + NOTICE_S for number, at_s in enumerate(times_s))

    async def _work(self, until: int) -> None:
        clients: dict[str, Client] = {
            "http": self._http,
            "upload": self._upload,
            "stream": self._stream,
            "websocket": self._websocket,
            "handle": self._call,
            "deadline": self._deadline,
        }
        while self._next < until:
            number, self._next = self._next, self._next + 1
            kind = self._random.choice(list(clients))
            self._kinds[kind] += 1
            await clients[kind](number, self._random.uniform(0.0, MAX_LIFE_S))
            self._gone_s[number] = time.monotonic()

    async def _http(self, number: int, life_s: float) -> None:
        await self._leave(f"GET /work/{number} HTTP/1.1\r\nhost: x\r\n\r\n".encode(), life_s)

    async def _upload(self, number: int, life_s: float) -> None:
        head = f"POST /upload/{number} HTTP/1.1\r\nhost: x\r\ncontent-length: 200000\r\n\r\n".encode()
        await self._leave(head + bytes(self._random.randrange(200_001)), life_s)

    async def _stream(self, number: int, life_s: float) -> None:
        await self._leave(f"GET /stream/{number} HTTP/1.1\r\nhost: x\r\n\r\n".encode(), life_s)

    async def _websocket(self, number: int, life_s: float) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        head = (
            f"GET /socket/{number} HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            f"sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n"
        )
        await self._leave(head.encode(), life_s)

    async def _deadline(self, number: int, life_s: float) -> None:
        head = (
            f"GET /work/{number} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
            f"x-request-timeout-seconds: {life_s + 0.001:.3f}\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection(self._host, self._port)
        writer.write(head.encode())
        answer = await reader.read()
        writer.close()
        if b" 408 " not in answer.partition(b"\r\n")[0]:
            raise RuntimeError(f"no 408 but {answer[:200]!r}")

    async def _call(self, number: int, life_s: float) -> None:
        response = self._handle.work.remote(number)
        await asyncio.sleep(life_s)
        response.cancel()

    async def _leave(self, data: bytes, life_s: float) -> None:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        writer.write(data)
        reading = asyncio.ensure_future(reader.read())
        await asyncio.sleep(life_s)
        reading.cancel()
        if self._random.random() < 0.5:
            writer.transport.abort()
        else:
            writer.close()
        # The next answer shows that the proxy has come so far: what piles up before it would be nobody's
        # fault.
        reader, writer = await asyncio.open_connection(self._host, self._port)
        writer.write(b"GET /-/healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        await reader.read()
        writer.close()


async def _status() -> Any:
    connection = _connection.current()
    return await asyncio.wrap_future(
        asyncio.run_coroutine_threadsafe(_control.status(connection), connection.loop)
    )


async def _soak(count: int, seed: int) -> int:
    soak = Soak(seed)
    await soak.run(min(WARM_UP, count))
    _, before = await soak.report()
    started_s = time.monotonic()
    await soak.run(count - count // 2)
    # A heap grows for a while, until it has room for all that comes and goes; what leaks grows for ever.
    rss_before = await soak.rss_bytes()
    await soak.run(count // 2)
    elapsed_s = time.monotonic() - started_s
    rss_after = await soak.rss_bytes()  # before the report, which is large
    left, levels = await soak.report()
    more = {name: levels[name]["tasks"] - before[name]["tasks"] for name in levels}
    remaining = [
        f"{n} {name}" for tasks in more.values() for name, n in tasks.items() if name not in IDLE_STREAM
    ]
    left["tasks"] = len(remaining)
    left["unheard"] = sum(level["unheard"] for level in levels.values())
    grown = {
        name: (rss_after[name] - size) / max(1, count // 2)
        for name, size in rss_before.items()
        if name in rss_after
    }
    print(
        f"cancels                {count} in {elapsed_s:.1f} s, {min(WARM_UP, count)} to warm up; {soak.kinds}"
    )
    for name, level in levels.items():
        print(f"  {name:<8} began {sum(map(bool, level['begun']))}, cancelled {level['cancelled']}")
    for name, number in left.items():
        print(f"{name:<23} {number}")
    if remaining:
        print("  " + ", ".join(remaining))
    print(
        "rss bytes per cancel    " + ", ".join(f"{name} {size:.0f}" for name, size in sorted(grown.items()))
    )
    leak = sum(grown.values()) - HEAP_BYTES / max(1, count // 2)
    has_leaked = leak > MAX_LEAK_BYTES and count >= 10 * WARM_UP
    return 1 if any(left.values()) or has_leaked else 0


def _inner(count: int, seed: int) -> int:
    serve.start(http_options={"port": 0}, logging_config={"enable_access_log": False})
    serve.run(build(), logging_config={"enable_access_log": False})
    try:
        return asyncio.run(_soak(count, seed))
    finally:
        serve.shutdown()


def main() -> int:
    """Run the soak in a process of its own and read along what its cluster says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cancels", type=int, default=20_000, help="how many requests to cancel")
    parser.add_argument("--seed", type=int, default=0, help="of the random choices")
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inner:
        return _inner(options.cancels, options.seed)
    command = [sys.executable, "-m", "benchmarks.soak_cancel", "--inner", *sys.argv[1:]]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    complaints = [line for line in process.stderr if COMPLAINT.search(line)]
    status = process.wait()
    print(f"complaints in the logs  {len(complaints)}")
    sys.stdout.writelines(complaints[:10])
    print("nothing was left behind" if not (status or complaints) else f"FAILED (status {status})")
    return 1 if status or complaints else 0


if __name__ == "__main__":
    sys.exit(main())
