"""A proxy's process: options from the command line, signals, the parent's lifeline."""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys

from .config import ProxyConfig
from .proxy import Proxy

__all__ = ["Proxy", "ProxyConfig", "main"]

logger = logging.getLogger("slipknot.serve")

DESCRIPTION = (
    "Run a proxy: it takes HTTP requests and WebSockets, and calls the replicas that answer them. Run as "
    "many as you like behind a load balancer."
)

COLLECT_AFTER = 10_000
"""Objects more than before that make Python look for cycles; its own 700 are a few requests."""


def main() -> None:
    """Run a proxy until SIGTERM or SIGINT; the first one drains, the second one cancels what is left."""
    from slipknot_core.heap import keep_freed_memory
    from slipknot_core.logs import LoggingSettings, configure_logging
    from slipknot_core.role_options import read_config_json

    try:
        config = ProxyConfig.from_json(
            read_config_json("proxy", ProxyConfig, sys.argv[1:], description=DESCRIPTION)
        )
        logging_settings = LoggingSettings.from_json(config.logging_json)
    except (TypeError, ValueError) as error:
        sys.exit(f"slipknot proxy: {error}")
    if config.lifeline_fd is not None:
        from slipknot_core.lifeline import follow

        follow(config.lifeline_fd)
    configure_logging("proxy", config.node_id or socket.gethostname(), logging_settings)
    _raise_file_limit()
    keep_freed_memory()
    from slipknot_core import tracing
    from slipknot_core.settings import tracing_settings

    try:
        tracing.configure(tracing_settings())
    except ValueError as error:
        sys.exit(f"slipknot proxy: {error}")
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_serve(config))
        except (OSError, ValueError) as error:
            sys.exit(f"slipknot proxy: {error}")
        finally:
            tracing.stop()  # which sends the last spans


async def _serve(config: ProxyConfig) -> None:
    loop = asyncio.get_running_loop()
    proxy = Proxy(config)
    stopping = asyncio.Event()

    def on_signal() -> None:
        if stopping.is_set():
            proxy.hurry()
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    await proxy.start()
    _calm_collector()
    try:
        _report_ready(config, proxy)
        await stopping.wait()
    finally:
        await proxy.stop()


def _report_ready(config: ProxyConfig, proxy: Proxy) -> None:
    if config.ready_fd is not None:
        with open(config.ready_fd, "w") as ready:
            ready.write(f"ready {proxy.http_address} {proxy.gateway_address or '-'}\n")


def _calm_collector() -> None:
    """What a request leaves behind is freed by counting references; what start-up made stays for good."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])


def _raise_file_limit() -> None:
    """Each connection is an open file; the usual soft limit is far below what a proxy needs."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        logger.debug("open_files %d in process %d", hard, os.getpid())
