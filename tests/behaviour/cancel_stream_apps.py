"""Deployments that stream, and note how their generators ended; shared by the tests of cancelled streams."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import anyio
from fastapi import FastAPI
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from slipknot import serve
from slipknot.serve.handle import DeploymentHandle
from tests.support.journal import Gate, Journal, Pen

from .cancel_apps import Leaf, MakeGate, Watcher

CHUNK = b"x" * 65_536


class Generators:
    """What the body is made of."""

    def __init__(self, pen: Pen, gate: Gate, cleanup: Gate, leaf: DeploymentHandle) -> None:
        self._pen, self._gate, self._cleanup = pen, gate, cleanup
        self._watcher, self._leaf = Watcher(pen, gate), leaf
        self._count = 0

    async def stands(self) -> AsyncIterator[bytes]:
        """Stands between two items."""
        yield b"first"
        await self._watcher.stand("generator")
        yield b"second"

    async def stands_first(self) -> AsyncIterator[bytes]:
        """Stands before its first item."""
        await self._watcher.stand("generator")
        yield b"first"

    async def cleans_up(self) -> AsyncIterator[bytes]:
        """Waits and calls in its `finally`."""
        try:
            yield b"first"
            await self._watcher.stand("generator")
        finally:
            await asyncio.sleep(0)
            self._pen.note(f"cleanup got {await self._leaf.now.remote()}")
            await self._cleanup.passed()
            self._pen.note("cleanup done")

    async def cleans_up_shielded(self) -> AsyncIterator[bytes]:
        """The same, protected as anyio wants it."""
        try:
            yield b"first"
            await self._watcher.stand("generator")
        finally:
            with anyio.CancelScope(shield=True):
                self._pen.note(f"cleanup got {await self._leaf.now.remote()}")
                await self._cleanup.passed()
            self._pen.note("cleanup done")

    async def swallows(self) -> AsyncIterator[bytes]:
        """Swallows the cancellation and yields more."""
        try:
            yield b"first"
            await self._watcher.stand("generator")
        except asyncio.CancelledError:
            self._pen.note("swallowed")
        try:
            yield b"second"
            self._pen.note("ran on")
        finally:
            self._pen.note("closed")

    async def consumes(self) -> AsyncIterator[bytes]:
        """Passes on, item by item, what the leaf gives."""
        try:
            async for item in self._leaf.options(stream=True).items.remote():
                yield item.encode()
        except BaseException as error:
            self._pen.note(f"generator {type(error).__name__}")
            raise

    async def flood(self) -> AsyncIterator[bytes]:
        """Stops only when it is stopped."""
        try:
            while True:
                yield CHUNK
                self._count += 1
        except BaseException as error:
            self._pen.note(f"generator {type(error).__name__}")
            raise
        finally:
            self._pen.note("finally")

    def sync_flood(self) -> Iterator[bytes]:
        """The same in a thread."""
        try:
            while True:
                yield CHUNK
                self._count += 1
        except BaseException as error:
            self._pen.note(f"generator {type(error).__name__}")
            raise
        finally:
            self._pen.note("finally")

    def sync(self) -> Iterator[bytes]:
        """Goes on until it is told, and then gives one more item."""
        try:
            yield b"first"
            self._pen.note("generator begun")
            while not serve.cancelled():
                time.sleep(0.001)
            self._pen.note("told")
            self._gate.wait()
            yield b"second"
            self._pen.note("generator ran on")
        except BaseException as error:
            self._pen.note(f"generator {type(error).__name__}")
            raise

    def body(self, way: str) -> Any:
        """What the path asks for."""
        match way:
            case "handle":
                return self._leaf.options(stream=True).items.remote()
            case "iterator":
                return Steps(self._watcher)
        return getattr(self, way)()

    async def now(self) -> str:
        """Answer at once."""
        self._pen.note("now")
        return "now"

    async def count(self) -> int:
        """How many chunks were taken."""
        return self._count


class Steps:
    """An async iterator that is no generator."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._is_first = True

    def __aiter__(self) -> "Steps":
        return self

    async def __anext__(self) -> bytes:
        if self._is_first:
            self._is_first = False
            return b"first"
        return (await self._watcher.stand("generator")).encode()


@serve.deployment(max_ongoing_requests=1)
class Plain(Generators):
    """Streams from `__call__`."""

    async def __call__(self, request: Request) -> Any:
        way = request.url.path.rpartition("/")[2]
        return await self.now() if way == "now" else StreamingResponse(self.body(way))


class Layer(BaseHTTPMiddleware):
    """Passes all on, in tasks of its own."""

    async def dispatch(self, request: Request, call_next: Callable[..., Awaitable[Response]]) -> Response:
        """Pass it on."""
        return await call_next(request)


api, layered = FastAPI(), FastAPI()
for _ in range(2):
    layered.add_middleware(Layer)


@serve.deployment(name="Plain", max_ongoing_requests=1)
@serve.ingress(api)
class Routed(Generators):
    """Streams from a route."""

    @api.get("/{way}")
    async def route(self, way: str) -> Any:
        """Stream."""
        return await self.now() if way == "now" else StreamingResponse(self.body(way))


@serve.deployment(name="Plain", max_ongoing_requests=1)
@serve.ingress(layered)
class Layered(Generators):
    """Streams through middleware."""

    @layered.get("/{way}")
    async def route(self, way: str) -> Any:
        """Stream."""
        return await self.now() if way == "now" else StreamingResponse(self.body(way))


KINDS = {"plain": Plain, "route": Routed, "middleware": Layered}


def app_of(kind: str, journal: Journal, make_gate: MakeGate, slots: int = 1) -> serve.Application:
    """The deployment is always called Plain."""
    leaf = Leaf.bind(journal.pen, make_gate())
    deployment = KINDS[kind].options(max_ongoing_requests=slots)
    return deployment.bind(journal.pen, make_gate(), make_gate("cleanup"), leaf)
