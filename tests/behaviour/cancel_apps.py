"""Deployments that wait to be cancelled and note where they stood; shared by the tests of cancellation.

Each has one slot unless it is told otherwise. So a later request that is answered proves that the code of the
cancelled one has ended, and what was not noted by then never will be.
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from slipknot import serve
from slipknot.serve.exceptions import RayServeException, RequestCancelledError
from slipknot.serve.handle import DeploymentHandle
from tests.support.journal import Gate, Journal, Pen
from tests.support.raw_http import RawClient

from .conftest import RunningCluster

MakeGate = Callable[..., Gate]


class Watcher:
    """Notes how a piece of code ended."""

    def __init__(self, pen: Pen, gate: Gate) -> None:
        self.pen, self.gate = pen, gate

    async def stand(self, name: str, wait: Awaitable[Any] | None = None) -> str:
        """Stand at the gate, or at what is to be awaited."""
        self.pen.note(f"{name} begun")
        try:
            await (self.gate.passed() if wait is None else wait)
        except BaseException as error:
            context = serve.get_request_context()
            self.pen.note(f"{name} {type(error).__name__}")
            self.pen.note(f"{name} because {context.cancel_reason} at {context.cancel_origin}")
            raise
        self.pen.note(f"{name} ran on")
        return name


@serve.deployment(max_ongoing_requests=1)
class Leaf:
    """The last of the graph."""

    def __init__(self, pen: Pen, gate: Gate) -> None:
        self._watcher = Watcher(pen, gate)

    async def stand(self, name: str = "leaf") -> str:
        """Stand at the gate."""
        return await self._watcher.stand(name)

    async def items(self, name: str = "leaf") -> AsyncIterator[str]:
        """One item, then stand at the gate."""
        yield "item"
        await self._watcher.stand(name)
        yield "another"

    async def now(self) -> str:
        """Answer at once."""
        return "now"

    async def __call__(self, request: Request) -> str:
        return await self.now() if request.url.path.endswith("/now") else await self.stand(request.url.query)


@serve.deployment(max_ongoing_requests=1)
class Middle:
    """Waits for the leaf."""

    def __init__(self, pen: Pen, gate: Gate, leaf: DeploymentHandle) -> None:
        self._watcher, self._leaf = Watcher(pen, gate), leaf

    async def stand(self) -> str:
        """Stand at the call of the leaf."""
        return await self._watcher.stand("middle", self._leaf.stand.remote())

    async def now(self) -> str:
        """Answer at once."""
        return "now"


@serve.deployment(max_ongoing_requests=1)
class Top:
    """Does what the last part of the path says."""

    def __init__(self, pen: Pen, gate: Gate, cleanup: Gate, leaf: DeploymentHandle, middle: DeploymentHandle):
        self._watcher, self._cleanup = Watcher(pen, gate), cleanup
        self._leaf, self._middle = leaf, middle

    async def __call__(self, request: Request) -> str:
        way = request.url.path.rpartition("/")[2]
        found: str = await getattr(self, way)()
        return found

    async def now(self) -> str:
        """Answer at once."""
        self._watcher.pen.note("now")
        return "now"

    async def plain(self) -> str:
        """Stand at the gate."""
        return await self._watcher.stand("top")

    async def deep(self) -> str:
        """Three handles deep."""
        return await self._watcher.stand("top", self._middle.stand.remote())

    async def unawaited(self) -> str:
        """Make a call and never wait for it."""
        self._call = self._leaf.stand.remote()
        return await self._watcher.stand("top")

    async def gather(self) -> str:
        """Two calls at once."""
        calls = self._leaf.stand.remote("one"), self._leaf.stand.remote("two")
        return await self._watcher.stand("top", asyncio.gather(*calls))

    async def shielded_local(self) -> str:
        """A coroutine of our own, shielded."""
        inner = self._watcher.stand("inner")
        return await self._watcher.stand("top", asyncio.shield(inner))

    async def shielded_handle(self) -> str:
        """A call, shielded."""
        call: Any = self._leaf.stand.remote()
        return await self._watcher.stand("top", asyncio.shield(call))

    async def shielded_wrapper(self) -> str:
        """A coroutine that awaits a call, shielded."""

        async def wrapper() -> None:
            await self._leaf.stand.remote()

        return await self._watcher.stand("top", asyncio.shield(wrapper()))

    async def detached(self) -> str:
        """A call that belongs to nobody."""
        self._call = self._leaf.options(detached=True).stand.remote()
        return await self._watcher.stand("top", asyncio.Event().wait())

    async def task(self) -> str:
        """A task of the user's own."""
        self._task = asyncio.create_task(self._watcher.stand("task"))
        return await self._watcher.stand("top", asyncio.Event().wait())

    async def swallow(self) -> str:
        """Swallow the cancellation, and clean up with an await and with a call."""
        try:
            await self._watcher.stand("top")
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            self._watcher.pen.note(f"cleanup got {await self._leaf.now.remote()}")
            await self._cleanup.passed()
            self._watcher.pen.note("cleanup done")
        return "swallowed"

    async def raise_it(self) -> str:
        """CancelledError out of nowhere."""
        raise asyncio.CancelledError

    async def cancels_its_own_task(self) -> str:
        """Await a task that was cancelled."""
        task = asyncio.create_task(asyncio.sleep(3600))
        task.cancel()
        await task
        return "never"


def graph(journal: Journal, make_gate: MakeGate, leaf_slots: int = 2) -> serve.Application:
    """The top with a middle and a leaf. Gates: "gate" and "cleanup"."""
    pen, gate = journal.pen, make_gate()
    leaf = Leaf.options(max_ongoing_requests=leaf_slots).bind(pen, gate)
    return Top.bind(pen, gate, make_gate("cleanup"), leaf, Middle.bind(pen, gate, leaf))


async def connect(cluster: RunningCluster, **options: Any) -> RawClient:
    """A client of the cluster's proxy."""
    return await RawClient.connect(cluster.url.removeprefix("http://"), **options)


async def has_read_all(cluster: RunningCluster) -> None:
    """The proxy has taken what was sent to it before, and has noticed who left."""
    async with httpx.AsyncClient() as client:
        for _ in range(2):
            await client.get(cluster.url + "/-/healthz")


async def is_over(*deployments: str) -> None:
    """These deployments answer; one with a single slot runs no code of an earlier request any more."""
    for name in deployments:
        handle = serve.get_deployment_handle(name, "default")
        ask = functools.partial(handle.now.remote().result, timeout_s=10)
        assert await asyncio.to_thread(ask) == "now"


def assert_cancelled(response: Any) -> None:
    """It says so, as often as it is asked."""
    assert response.cancelled()
    for _ in range(3):
        with pytest.raises(RequestCancelledError, match=f"^Request {response.request_id} was cancelled.$"):
            response.result(timeout_s=10)
    assert issubclass(RequestCancelledError, RayServeException)
