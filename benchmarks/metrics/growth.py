"""How the cost of a request grows with replicas, proxies and idle connections, on real processes."""

import asyncio
import contextlib
import json
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from ..effort import Effort
from ..figures import Figure
from ..loads import wrk
from ..systems.system import Command, Running, free_port
from .cost import Cost
from .metric import Metric

SETTLED_WITHIN_S = 180.0
CONNECTIONS = 64
REPLICA: dict[str, object] = {"deployment": "Plain", "ray_actor_options": {"num_cpus": 0.001}}
"""So that 64 of them fit on the machine."""


async def _replicas(running: Running, effort: Effort) -> AsyncIterator[list[Figure]]:
    for count in effort.replicas:
        case = f"{count} replicas, c{CONNECTIONS}"
        options = REPLICA | {"num_replicas": count}
        other = Running(running.system, "plain", running.directory.parent, options)
        try:
            await asyncio.to_thread(other.start)
            await _settle(other, count)
            yield await _rate(other, effort, case, [other.url])
        finally:
            other.stop()


async def _proxies(running: Running, effort: Effort) -> AsyncIterator[list[Figure]]:
    # Paths of Unix sockets are short.
    runtime_dir = Path(tempfile.mkdtemp(prefix="skb-"))
    environment = {"SLIPKNOT_RUNTIME_DIR": str(runtime_dir)}
    options = REPLICA | {"num_replicas": 1}
    other = Running(running.system, "plain", running.directory.parent, options, environment=environment)
    try:
        await asyncio.to_thread(other.start)
        controller_address = _controller_address(runtime_dir)
        urls = [other.url]
        for count in effort.proxies:
            while len(urls) < count:
                port = free_port()
                other.add(_proxy(controller_address, port))
                urls.append(f"http://127.0.0.1:{port}")
            await _settle(other, 1)
            yield await _rate(other, effort, f"{count} proxies, c{CONNECTIONS}", urls)
    finally:
        other.stop()
        shutil.rmtree(runtime_dir, ignore_errors=True)


async def _connections(running: Running, effort: Effort) -> AsyncIterator[list[Figure]]:
    await wrk.run(running.url + "/", connections=CONNECTIONS, seconds=effort.warm_up_s)
    before = running.processes.usage()
    with contextlib.ExitStack() as open_ones:
        count = 0
        for wanted in effort.idle_connections:
            while count < wanted:
                open_ones.enter_context(socket.create_connection((running.host, running.port), 10.0))
                count += 1
            await _settle(running, 1)
            case = f"{wanted} idle connections, c{CONNECTIONS}"
            idle = running.processes.usage()
            figures = await _rate(running, effort, case, [running.url])
            more_bytes = (idle.rss_bytes - before.rss_bytes) / wanted
            yield [*figures, Figure("growth", case, "memory of one", more_bytes / 1024, "KiB")]


def _controller_address(runtime_dir: Path) -> str:
    (info,) = runtime_dir.rglob("cluster.json")
    return str(json.loads(info.read_text())["controller_address"])


def _proxy(controller_address: str, port: int) -> Command:
    config = {"controller_address": controller_address, "port": port, "gateway_port": None}
    return Command([sys.executable, "-m", "slipknot_proxy", "--config-json", json.dumps(config)], port=port)


async def _settle(running: Running, replicas: int) -> None:
    """Wait until all replicas are there and nothing starts any more."""
    until_s = time.monotonic() + SETTLED_WITHIN_S
    while True:
        with Cost(running) as cost:
            await asyncio.sleep(0.5)
        if len(running.processes.look()) > replicas + 3 and cost.cpu_s < 0.1:
            return
        if time.monotonic() > until_s:
            raise RuntimeError("it does not come to rest")


async def _rate(running: Running, effort: Effort, case: str, urls: list[str]) -> list[Figure]:
    """Of all URLs together, the connections divided among them."""
    each = CONNECTIONS // len(urls)
    paths = [url + "/" for url in urls]
    await asyncio.gather(*(wrk.run(path, connections=each, seconds=effort.warm_up_s) for path in paths))
    with Cost(running) as cost:
        outcomes = await asyncio.gather(
            *(wrk.run(path, connections=each, seconds=effort.seconds) for path in paths)
        )
    return [
        Figure("growth", case, "rate", sum(outcome.rate for outcome in outcomes), "1/s"),
        Figure("growth", case, "p50", max(outcome.p50_ms for outcome in outcomes), "ms"),
        Figure("growth", case, "p99", max(outcome.p99_ms for outcome in outcomes), "ms"),
        Figure("growth", case, "errors", sum(outcome.errors for outcome in outcomes), ""),
        *cost.figures("growth", case, sum(outcome.requests for outcome in outcomes)),
    ]


GROWTH = tuple(
    Metric("growth", "plain", measure, needs_wrk=True, only=frozenset({"slipknot"}), within_s=600.0)
    for measure in (_connections, _replicas, _proxies)
)
