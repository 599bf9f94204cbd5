"""The application of the cancellation soak: three deployments deep, with a memory of what ran."""

import asyncio
import ctypes
import gc
import logging
import time
from array import array
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse

from slipknot import serve
from slipknot.serve.handle import DeploymentHandle

HOLD_S = 4.0
"""What nobody cancels takes this long, much longer than any request lives."""

api = FastAPI()


class _Unheard(logging.Handler):
    """Counts what asyncio complains of: exceptions that nobody retrieved, tasks that were destroyed."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        _Unheard.count += 1


class Times:
    """When something happened to each request; small, or it would be taken for a leak."""

    def __init__(self) -> None:
        self.at_s = array("d")
        """By the request's number; 0: never."""

    def note(self, number: int) -> None:
        """It happens now."""
        missing = number + 1 - len(self.at_s)
        if missing > 0:
            self.at_s.frombytes(bytes(missing * self.at_s.itemsize))
        self.at_s[number] = time.monotonic()


class Level:
    """Keeps when each request's work began and ended, on the clock that all processes of a machine share."""

    def __init__(self) -> None:
        self._begun = Times()
        self._completed = Times()
        self._cancelled = 0
        logging.getLogger("asyncio").addHandler(_Unheard(logging.ERROR))

    async def report(self) -> dict[str, Any]:
        """What has happened so far, and what is left."""
        return {
            "begun": self._begun.at_s,
            "completed": self._completed.at_s,
            "cancelled": self._cancelled,
            "tasks": Counter(task.get_coro().__qualname__ for task in asyncio.all_tasks()),
            "unheard": _Unheard.count,
        }

    async def trim(self) -> None:
        """Give back to the system what the heap holds free: it is no leak."""
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)

    async def _run(self, number: int, work: Any) -> Any:
        self._begun.note(number)
        try:
            result = await work
        except asyncio.CancelledError:
            self._cancelled += 1
            raise
        self._completed.note(number)
        return result

    async def _stream(self, number: int, items: AsyncIterator[str]) -> AsyncIterator[str]:
        self._begun.note(number)
        try:
            async for item in items:
                yield item
        except asyncio.CancelledError:
            self._cancelled += 1
            raise
        self._completed.note(number)


@serve.deployment(max_ongoing_requests=6)
class Leaf(Level):
    """Does the work; with few slots, so that requests queue."""

    async def work(self, number: int) -> str:
        """Take long."""
        return str(await self._run(number, asyncio.sleep(HOLD_S, "done")))

    async def items(self, number: int) -> AsyncIterator[str]:
        """A token now and then, for long."""
        async for item in self._stream(number, self._tokens()):
            yield item

    async def _tokens(self) -> AsyncIterator[str]:
        for _ in range(int(HOLD_S / 0.01)):
            yield "token "
            await asyncio.sleep(0.01)


@serve.deployment(max_ongoing_requests=200)
class Middle(Level):
    """Passes on."""

    def __init__(self, leaf: DeploymentHandle) -> None:
        super().__init__()
        self._leaf = leaf

    async def work(self, number: int) -> str:
        """Two calls at once, one of them awaited only by way of the other."""
        return str(await self._run(number, self._leaf.work.remote(number)))

    async def items(self, number: int) -> AsyncIterator[str]:
        """The leaf's."""
        async for item in self._stream(number, self._leaf.options(stream=True).items.remote(number)):
            yield item


@serve.deployment(max_ongoing_requests=200)
@serve.ingress(api)
class Top(Level):
    """What clients talk to."""

    def __init__(self, middle: DeploymentHandle) -> None:
        super().__init__()
        self._middle = middle

    async def work(self, number: int) -> str:
        """For handles."""
        return str(await self._run(number, self._middle.work.remote(number)))

    @api.get("/work/{number}")
    async def http(self, number: int) -> str:
        """An answer that takes long."""
        return await self.work(number)

    @api.post("/upload/{number}")
    async def upload(self, number: int, request: Request) -> str:
        """The same, after the body."""
        await request.body()
        return await self.work(number)

    @api.get("/stream/{number}")
    async def stream(self, number: int) -> StreamingResponse:
        """Tokens."""
        items = self._middle.options(stream=True).items.remote(number)
        return StreamingResponse(self._stream(number, items))

    @api.websocket("/socket/{number}")
    async def socket(self, socket: WebSocket, number: int) -> None:
        """Work until the client leaves."""
        await socket.accept()
        work = self._middle.work.remote(number)
        self._begun.note(number)
        try:
            while (await socket.receive())["type"] != "websocket.disconnect":
                pass
        finally:
            work.cancel()


def build() -> serve.Application:
    """The bound application."""
    return Top.bind(Middle.bind(Leaf.bind()))
