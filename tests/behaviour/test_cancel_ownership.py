"""Which calls are cancelled with the call that made them, and which belong to nobody."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from slipknot import serve
from slipknot.serve.handle import DeploymentHandle
from tests.support.journal import Gate, Journal, Pen

from .cancel_apps import Leaf, MakeGate, Watcher, assert_cancelled, graph, is_over
from .conftest import ServeApp


@pytest.mark.parametrize(
    ("way", "children"),
    [
        ("unawaited", ["leaf"]),
        ("gather", ["one", "two"]),
        ("shielded_handle", ["leaf"]),
        ("shielded_wrapper", ["leaf"]),
    ],
)
def test_children(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate, way: str, children: list[str]
) -> None:
    """Every call made in a call is cancelled with it, however it is awaited, or not at all."""
    response = getattr(serve_app(graph(journal, make_gate)).handle, way).remote()
    for name in ("top", *children):
        journal.wait_for(f"{name} begun")
    response.cancel()
    for name in ("top", *children):
        journal.wait_for(f"{name} CancelledError")
    make_gate().open()
    asyncio.run(is_over("Top", "Leaf"))
    assert not [note for note in journal.notes if note.endswith("ran on")]


@pytest.mark.parametrize(
    ("way", "survivor"), [("shielded_local", "inner"), ("detached", "leaf"), ("task", "task")]
)
def test_what_survives(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate, way: str, survivor: str
) -> None:
    """Shielded coroutines of one's own, detached calls and tasks are left alone."""
    response = getattr(serve_app(graph(journal, make_gate)).handle, way).remote()
    journal.wait_for("top begun")
    journal.wait_for(f"{survivor} begun")
    response.cancel()
    journal.wait_for("top CancelledError")
    asyncio.run(is_over("Top"))
    make_gate().open()
    journal.wait_for(f"{survivor} ran on")
    assert f"{survivor} CancelledError" not in journal.notes


@serve.deployment(max_ongoing_requests=1)
class Constructs:
    """Calls the leaf while it is constructed."""

    def __init__(self, pen: Pen, gate: Gate, leaf: DeploymentHandle) -> None:
        self._watcher = Watcher(pen, gate)
        self._call: Any = leaf.stand.remote("constructed")

    async def stand(self) -> str:
        """Stand without it."""
        return await self._watcher.stand("top", asyncio.Event().wait())

    async def shield(self) -> str:
        """Stand at it."""
        return await self._watcher.stand("top", asyncio.shield(self._call))

    async def take(self) -> Any:
        """Its result."""
        return await self._call


@pytest.mark.parametrize("way", ["stand", "shield"])
def test_a_call_made_in_the_constructor(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate, way: str
) -> None:
    """It belongs to no request; none takes it along."""
    leaf = Leaf.bind(journal.pen, make_gate())
    handle = serve_app(Constructs.bind(journal.pen, make_gate(), leaf)).handle
    journal.wait_for("constructed begun")
    response = getattr(handle, way).remote()
    journal.wait_for("top begun")
    response.cancel()
    journal.wait_for("top CancelledError")
    taken = handle.take.remote()
    make_gate().open()
    assert taken.result(timeout_s=10) == "constructed"
    assert "constructed CancelledError" not in journal.notes


@serve.deployment(max_ongoing_requests=1)
class Cleans:
    """Calls the leaf in its cleanup."""

    def __init__(self, pen: Pen, gate: Gate, leaf: DeploymentHandle) -> None:
        self._pen, self._watcher, self._leaf = pen, Watcher(pen, gate), leaf

    async def awaits(self) -> None:
        """In `finally`, and waits for it."""
        try:
            await self._watcher.stand("top", asyncio.Event().wait())
        finally:
            self._pen.note(f"got {await self._leaf.stand.remote('cleanup')}")

    async def leaves(self) -> None:
        """In `except`, and leaves it to itself."""
        try:
            await self._watcher.stand("top", asyncio.Event().wait())
        except asyncio.CancelledError:
            self._call = self._leaf.stand.remote("cleanup")
            raise

    async def task(self) -> None:
        """In a task made by the cleanup."""
        try:
            await self._watcher.stand("top", asyncio.Event().wait())
        finally:
            self._task = asyncio.create_task(self._call_leaf())

    async def _call_leaf(self) -> None:
        self._pen.note(f"got {await self._leaf.stand.remote('cleanup')}")

    async def stream(self) -> None:
        """Consumes a stream."""
        try:
            await self._watcher.stand("top", asyncio.Event().wait())
        finally:
            items = self._leaf.options(stream=True).items.remote("cleanup")
            self._pen.note(f"got {[item async for item in items]}")

    async def now(self) -> str:
        """Answer at once."""
        return "now"


@pytest.mark.parametrize(
    ("way", "got"),
    [
        ("awaits", "got cleanup"),
        ("leaves", ""),
        ("task", "got cleanup"),
        ("stream", "got ['item', 'another']"),
    ],
)
def test_calls_made_during_cleanup(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate, way: str, got: str
) -> None:
    """They do not belong to the cancelled request, and cancelling it again changes nothing."""
    app = serve_app(Cleans.bind(journal.pen, make_gate(), Leaf.bind(journal.pen, make_gate())))
    response = getattr(app.handle, way).remote()
    journal.wait_for("top begun")
    response.cancel()
    journal.wait_for("cleanup begun")
    response.cancel()
    assert_cancelled(response)
    make_gate().open()
    journal.wait_for("cleanup ran on")
    if got:
        journal.wait_for(got)
    asyncio.run(is_over("Cleans"))
    assert "cleanup CancelledError" not in journal.notes


@serve.deployment(max_ongoing_requests=1)
class Threaded:
    """Waits for the leaf in a thread."""

    def __init__(self, pen: Pen, leaf: DeploymentHandle) -> None:
        self._pen, self._leaf = pen, leaf

    def wait(self) -> Any:
        """For a result."""
        return self._noted(lambda: self._leaf.stand.remote("child").result())

    def iterate(self) -> Any:
        """Over a stream."""
        return self._noted(lambda: list(self._leaf.options(stream=True).items.remote("child")))

    def _noted(self, wait: Callable[[], Any]) -> Any:
        try:
            return wait()
        except BaseException as error:
            self._pen.note(f"thread {type(error).__name__}")
            raise

    def now(self) -> str:
        """Answer at once."""
        return "now"


@pytest.mark.parametrize("way", ["wait", "iterate"])
def test_a_thread_that_waits_for_a_child(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate, way: str
) -> None:
    """A sync handler cannot be interrupted, but what it waits for is cancelled, and so it ends."""
    app = serve_app(Threaded.bind(journal.pen, Leaf.bind(journal.pen, make_gate())))
    response = getattr(app.handle, way).remote()
    journal.wait_for("child begun")
    response.cancel()
    journal.wait_for("child CancelledError")
    journal.wait_for("thread RequestCancelledError")
    assert_cancelled(response)
    asyncio.run(is_over("Threaded", "Leaf"))
