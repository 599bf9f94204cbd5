"""Five times more requests than a deployment can serve: what is still served, how fast the rest is refused.

    scripts/overload --seconds 10

One replica, `max_ongoing_requests=16`, a handler of 20 ms: 800 requests a second at most. First its peak with
as many clients as it has slots; then requests begin at five times that rate, whatever becomes of those before
(an open loop over `--connections` kept connections; one that finds them all taken is not sent, and counted).
Goodput is 200s a second. The load comes from a process of its own.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections import deque
from typing import Any

from slipknot import serve

from .cluster import quiet_cluster
from .stalled import percentiles

SLOTS = 16
HOLD_S = 0.02
QUEUE = 32


@serve.deployment(
    max_ongoing_requests=SLOTS, max_queued_requests=QUEUE, backpressure_config={"retry_after_s": 1}
)
class Busy:
    """Takes 20 ms."""

    async def __call__(self, request: Any) -> str:
        """Answer."""
        await asyncio.sleep(HOLD_S)
        return "done"


class Client(asyncio.Protocol):
    """One kept connection; speaks as little HTTP as it can: answers are small and have a content-length."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._data = b""
        self._began_s = 0.0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._load.idle.append(self)

    def ask(self) -> None:
        """Send a request."""
        self._began_s = time.monotonic()
        self._transport.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")

    def data_received(self, data: bytes) -> None:
        """A part of the answer."""
        self._data += data
        head, separator, body = self._data.partition(b"\r\n\r\n")
        if separator and len(body) >= int(head.lower().partition(b"content-length:")[2].split(None, 1)[0]):
            self._data = b""
            self._load.answered(self, int(head[9:12]), head.lower(), time.monotonic() - self._began_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody closes while the load runs."""
        self._load.lost += 1


class Load:
    """What was sent and what came back."""

    def __init__(self) -> None:
        self.idle: deque[Client] = deque()
        self.lost = 0
        self._keeps_on = False
        self.reset()

    def reset(self) -> None:
        """Begin to count."""
        self._times_ms: dict[int, list[float]] = {}
        self._without_advice = 0
        self._unsent = 0

    def answered(self, client: Client, status: int, head: bytes, elapsed_s: float) -> None:
        """An answer came."""
        self._times_ms.setdefault(status, []).append(elapsed_s * 1e3)
        self._without_advice += status == 503 and b"\r\nretry-after:" not in head
        if self._keeps_on:
            client.ask()
        else:
            self.idle.append(client)

    async def closed(self, count: int, span_s: float) -> dict[str, Any]:
        """`count` clients, each with one request after another."""
        self._keeps_on = True
        for _ in range(count):
            self.idle.popleft().ask()
        await asyncio.sleep(span_s / 5)
        self.reset()
        await asyncio.sleep(span_s)
        result = self._result(span_s)
        self._keeps_on = False
        await asyncio.sleep(1)
        return result

    async def open(self, per_s: float, span_s: float) -> dict[str, Any]:
        """So many new requests a second."""
        began_s, sent = time.monotonic(), 0
        warm_up_s, is_warm = span_s / 5, False
        while (now_s := time.monotonic()) - began_s < warm_up_s + span_s:
            if not is_warm and now_s - began_s >= warm_up_s:
                is_warm, warm_s = True, now_s
                self.reset()
            while sent < (now_s - began_s) * per_s:
                sent += 1
                if self.idle:
                    self.idle.popleft().ask()
                else:
                    self._unsent += 1
            await asyncio.sleep(0.001)
        return self._result(time.monotonic() - warm_s)

    def _result(self, span_s: float) -> dict[str, Any]:
        ok, refused = self._times_ms.pop(200, []), self._times_ms.pop(503, [])
        return {
            "goodput_per_s": round(len(ok) / span_s, 1),
            "refused_per_s": round(len(refused) / span_s, 1),
            "others": {status: len(times) for status, times in self._times_ms.items()},
            "refused_without_retry_after": self._without_advice,
            "not_sent_per_s": round(self._unsent / span_s, 1),
            "ok": percentiles(ok) if ok else {},
            "refused": percentiles(refused) if refused else {},
        }


async def _measure(host: str, port: int, options: argparse.Namespace) -> dict[str, Any]:
    loop, load = asyncio.get_running_loop(), Load()
    for _ in range(options.connections):
        await loop.create_connection(lambda: Client(load), host, port)
    peak = await load.closed(SLOTS, options.seconds)
    overload = await load.open(peak["goodput_per_s"] * options.times, options.seconds)
    share = overload["goodput_per_s"] / peak["goodput_per_s"]
    return {
        "peak": peak,
        "overload": overload,
        "goodput_share": round(share, 3),
        "connections_lost": load.lost,
    }


def main() -> None:
    """Start a cluster, and the load in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10, help="how long each load lasts")
    parser.add_argument("--times", type=float, default=5, help="offered load over peak")
    parser.add_argument("--connections", type=int, default=256, help="how many connections there are")
    parser.add_argument("--json", action="store_true", help="JSON instead of text")
    parser.add_argument("--load", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        host, _, port = options.load.rpartition(":")
        print(json.dumps(asyncio.run(_measure(host, int(port), options))))
        return
    with quiet_cluster(Busy.bind()):
        command = [sys.executable, "-m", "benchmarks.overload", *sys.argv[1:]]
        command += ["--load", serve.http_url().removeprefix("http://")]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    if options.json:
        print(output, end="")
        return
    result = json.loads(output)
    peak, over = result["peak"], result["overload"]
    print(
        f"peak      {peak['goodput_per_s']:7.1f} /s, p50 {peak['ok']['p50_ms']} ms, "
        f"p99 {peak['ok']['p99_ms']} ms\n"
        f"overload  {over['goodput_per_s']:7.1f} /s = {result['goodput_share']:.1%} of the peak, p50 "
        f"{over['ok']['p50_ms']} ms, p99 {over['ok']['p99_ms']} ms\n"
        f"refused   {over['refused_per_s']:7.1f} /s, p50 {over['refused'].get('p50_ms')} ms, p99 "
        f"{over['refused'].get('p99_ms')} ms; {over['refused_without_retry_after']} without Retry-After\n"
        f"not sent  {over['not_sent_per_s']:7.1f} /s; other answers {over['others'] or 'none'}; "
        f"connections lost {result['connections_lost']}"
    )


if __name__ == "__main__":
    main()
