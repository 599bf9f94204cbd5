"""A server of ours under calls whose paths are not UTF-8, in a process that may die of it.

`python -m tests.support.odd_paths 30` prints what became of it.
"""

import asyncio
import logging
import os
import sys
from contextlib import suppress
from typing import Any

import grpc.aio

from slipknot_core.rpc.lasting_server import LastingServer

from .frame_fuzz import odd_path, throw

CALLERS = 4
METHODS = {f"Method{number}": None for number in range(20)}


async def _answer(_request: bytes, _context: Any) -> bytes:
    return b"well"


async def _call(address: str, answers: list[bytes]) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary("/tests.Service/Method0")
        while True:
            with suppress(grpc.aio.AioRpcError):  # one that has not begun when the server falls
                answers.append(await call(b"", wait_for_ready=True))


async def under_fire(falls: int) -> None:
    """Let a server fall so often while it is called, and see that the calls go on."""
    handlers = dict.fromkeys(METHODS, grpc.unary_unary_rpc_method_handler(_answer))
    server = LastingServer(grpc.aio.server)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tests.Service", handlers),))
    server.add_registered_method_handlers("tests.Service", handlers)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    answers: list[bytes] = []
    callers = [asyncio.create_task(_call(address, answers)) for _ in range(CALLERS)]
    for number in range(1, falls + 1):
        while len(server._fallen) < number:  # a second call may have felled its successor, too
            try:
                await asyncio.to_thread(throw, address, odd_path())
            except ConnectionError:
                await asyncio.sleep(0.001)
        before = len(answers)
        while len(answers) < before + CALLERS:
            await asyncio.sleep(0.001)
    print(f"{falls} servers fell, and the calls went on", flush=True)  # noqa: T201 - a command's output
    os._exit(any(caller.done() for caller in callers))


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    asyncio.run(under_fire(int(sys.argv[1])))
