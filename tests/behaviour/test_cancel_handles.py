"""Cancellation of handle calls: by `cancel()`, and by the task that awaits them."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from slipknot import serve
from slipknot.serve.exceptions import RequestCancelledError
from slipknot.serve.handle import DeploymentHandle
from tests.support.journal import Gate, Journal, Pen

from .cancel_apps import Leaf, MakeGate, assert_cancelled, graph, is_over
from .conftest import ServeApp


def reasons(journal: Journal) -> list[str]:
    """What the handlers were told, and where that began, without the number of a replica."""
    return sorted(note.partition("#")[0] for note in journal.notes if " because " in note)


def the_call_is_on_its_way() -> None:
    """A round trip on the connection: what was asked of it before has been done."""
    serve.status()


# --- cancel() ---


@pytest.mark.parametrize("is_queued", [False, True], ids=["at once", "queued"])
def test_before_it_starts(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate, is_queued: bool
) -> None:
    """It never runs; what was queued behind it does."""
    handle = serve_app(Leaf.bind(journal.pen, make_gate())).handle
    busy = handle.stand.remote("busy")
    journal.wait_for("busy begun")
    cancelled, behind = handle.stand.remote("cancelled"), handle.stand.remote("behind")
    if is_queued:
        the_call_is_on_its_way()
    cancelled.cancel()
    assert_cancelled(cancelled)
    make_gate().open()
    assert [busy.result(), behind.result()] == ["busy", "behind"]
    assert not busy.cancelled() and not behind.cancelled()
    assert journal.notes == ["busy begun", "busy ran on", "behind begun", "behind ran on"]


def test_at_once_without_a_queue(serve_app: ServeApp, journal: Journal, make_gate: MakeGate) -> None:
    """A call that is cancelled in the moment it is made has no effect that lasts, and takes no slot."""
    handle = serve_app(Leaf.bind(journal.pen, make_gate())).handle
    for _ in range(20):
        response = handle.stand.remote("brief")
        response.cancel()
        assert_cancelled(response)
    assert handle.now.remote().result(timeout_s=10) == "now"
    assert "brief ran on" not in journal.notes


def test_while_it_runs(serve_app: ServeApp, journal: Journal, make_gate: MakeGate) -> None:
    """The handler and everything it has called are cancelled, each told why and where that began."""
    handle = serve_app(graph(journal, make_gate)).handle
    response = handle.deep.remote()
    journal.wait_for("leaf begun")
    assert not response.cancelled()
    response.cancel()
    response.cancel()
    assert_cancelled(response)
    for name in ("top", "middle", "leaf"):
        journal.wait_for(f"{name} CancelledError")
    make_gate().open()
    asyncio.run(is_over("Top", "Middle", "Leaf"))
    here = f"at driver:{os.getpid()}"
    assert reasons(journal) == [
        f"leaf because PARENT_CANCELLED {here}",
        f"middle because PARENT_CANCELLED {here}",
        f"top because REQUESTED {here}",
    ]
    assert not [note for note in journal.notes if note.endswith("ran on")]


def test_only_the_call_that_is_meant(serve_app: ServeApp, journal: Journal, make_gate: MakeGate) -> None:
    """Its neighbour in the same replica goes on."""
    handle = serve_app(Leaf.options(max_ongoing_requests=2).bind(journal.pen, make_gate())).handle
    meant, other = handle.stand.remote("meant"), handle.stand.remote("other")
    journal.wait_for("meant begun")
    journal.wait_for("other begun")
    meant.cancel()
    journal.wait_for("meant CancelledError")
    make_gate().open()
    assert other.result() == "other"


def test_too_late(serve_app: ServeApp, journal: Journal, make_gate: MakeGate) -> None:
    """Once there is a result it stays."""
    response = serve_app(Leaf.bind(journal.pen, make_gate())).handle.now.remote()
    assert response.result() == "now"
    response.cancel()
    assert not response.cancelled()
    assert response.result() == "now"


def test_too_late_for_an_error(serve_app: ServeApp) -> None:
    """What the method raised stays, too."""

    @serve.deployment
    def fails() -> None:
        raise KeyError("mine")

    response = serve_app(fails.bind()).handle.remote()
    for _ in range(2):
        with pytest.raises(KeyError, match="mine"):
            response.result()
        response.cancel()
    assert not response.cancelled()


def test_a_thread_that_waits_for_the_result_is_woken(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate
) -> None:
    """`cancel()` may come from anywhere."""
    response = serve_app(Leaf.bind(journal.pen, make_gate())).handle.stand.remote("one")
    journal.wait_for("one begun")

    async def wait_and_cancel() -> None:
        waiting = asyncio.create_task(asyncio.to_thread(response.result, timeout_s=10))
        await asyncio.sleep(0)
        await asyncio.to_thread(the_call_is_on_its_way)
        response.cancel()
        with pytest.raises(RequestCancelledError):
            await waiting

    asyncio.run(wait_and_cancel())
    journal.wait_for("one CancelledError")


def test_a_stream(serve_app: ServeApp, journal: Journal, make_gate: MakeGate) -> None:
    """The next step says so, again and again; the generator is cancelled where it stands."""
    handle = serve_app(Leaf.bind(journal.pen, make_gate())).handle
    items = handle.options(stream=True).items.remote("one")
    assert next(items) == "item"
    journal.wait_for("one begun")
    items.cancel()
    assert items.cancelled()
    for _ in range(2):
        with pytest.raises(RequestCancelledError):
            next(items)
    journal.wait_for("one CancelledError")
    asyncio.run(is_over("Leaf"))
    assert "one ran on" not in journal.notes


@pytest.mark.anyio
async def test_a_stream_in_a_task(serve_app: ServeApp, journal: Journal, make_gate: MakeGate) -> None:
    """The same with `async for`; a stream whose end was seen stays at its end."""
    handle = serve_app(Leaf.options(max_ongoing_requests=2).bind(journal.pen, make_gate())).handle
    items, ended = (handle.options(stream=True).items.remote(name) for name in ("one", "two"))
    assert [await anext(items), await anext(ended)] == ["item", "item"]
    await journal.wait_for_async("one begun")
    items.cancel()
    for _ in range(2):
        with pytest.raises(RequestCancelledError):
            await anext(items)
    await journal.wait_for_async("one CancelledError")
    make_gate().open()
    assert [item async for item in ended] == ["another"]
    ended.cancel()
    assert not ended.cancelled()
    with pytest.raises(StopAsyncIteration):
        await anext(ended)


def test_a_stream_that_is_dropped(serve_app: ServeApp, journal: Journal, make_gate: MakeGate) -> None:
    """Nobody can take its items any more: it is cancelled."""
    handle = serve_app(Leaf.bind(journal.pen, make_gate())).handle
    items = handle.options(stream=True).items.remote("one")
    assert next(items) == "item"
    journal.wait_for("one begun")
    del items
    journal.wait_for("one CancelledError")


def test_an_argument_of_another_call(serve_app: ServeApp, journal: Journal, make_gate: MakeGate) -> None:
    """The call that waits for a cancelled one never starts, and says why."""
    handle = serve_app(Leaf.options(max_ongoing_requests=2).bind(journal.pen, make_gate())).handle
    argument = handle.stand.remote("argument")
    call = handle.stand.remote(argument)
    journal.wait_for("argument begun")
    argument.cancel()
    with pytest.raises(RequestCancelledError):
        call.result(timeout_s=10)
    journal.wait_for("argument CancelledError")
    assert handle.now.remote().result() == "now"
    assert [note for note in journal.notes if note.endswith("begun")] == ["argument begun"]


def test_a_call_that_waits_for_its_argument(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate
) -> None:
    """It is cancelled and never starts; the argument is a call of its own, and goes on."""
    handle = serve_app(Leaf.options(max_ongoing_requests=2).bind(journal.pen, make_gate())).handle
    argument = handle.stand.remote("argument")
    call = handle.stand.remote(argument)
    journal.wait_for("argument begun")
    call.cancel()
    assert_cancelled(call)
    make_gate().open()
    assert argument.result() == "argument"
    asyncio.run(is_over("Leaf"))
    assert journal.notes == ["argument begun", "argument ran on"]


# --- the task that awaits: in a handler, and in a driver ---

Way = Callable[[DeploymentHandle, Pen, Gate], Awaitable[Any]]
"""Gets a leaf, and a gate that opens when the call called "child" runs."""


async def _wait_for(leaf: DeploymentHandle, pen: Pen, cue: Gate) -> Any:
    child: Any = leaf.stand.remote("child")
    await cue.passed()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(child, 0.01)
    return child


async def _timeout(leaf: DeploymentHandle, pen: Pen, cue: Gate) -> Any:
    child = leaf.stand.remote("child")
    await cue.passed()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await child
    return child


async def _cancel_the_task(leaf: DeploymentHandle, pen: Pen, cue: Gate) -> Any:
    child: Any = leaf.stand.remote("child")
    task = asyncio.ensure_future(child)
    await cue.passed()
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as raised:
        await task
    assert not isinstance(raised.value, RequestCancelledError)
    return child


async def _cancel_one_of_two(leaf: DeploymentHandle, pen: Pen, cue: Gate) -> Any:
    child: Any = leaf.stand.remote("child")
    first, second = asyncio.ensure_future(child), asyncio.ensure_future(child)
    await cue.passed()
    first.cancel()
    with pytest.raises(RequestCancelledError):
        await second
    assert first.cancelled()
    return child


async def _cancel_a_gather(leaf: DeploymentHandle, pen: Pen, cue: Gate) -> Any:
    child: Any = leaf.stand.remote("child")
    both = asyncio.gather(child, asyncio.Event().wait())
    await cue.passed()
    both.cancel()
    with pytest.raises(asyncio.CancelledError):
        await both
    return child


async def _cancel_the_call(leaf: DeploymentHandle, pen: Pen, cue: Gate) -> Any:
    child: Any = leaf.stand.remote("child")
    task = asyncio.ensure_future(child)
    await cue.passed()
    child.cancel()
    with pytest.raises(RequestCancelledError):
        await task
    return child


async def _task_group(leaf: DeploymentHandle, pen: Pen, cue: Gate) -> Any:
    child = leaf.stand.remote("child")

    async def wait() -> None:
        await child

    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(wait())
            await cue.passed()
            raise KeyError
    return child


async def _shield(leaf: DeploymentHandle, pen: Pen, cue: Gate) -> Any:
    child: Any = leaf.stand.remote("child")
    await cue.passed()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(child), 0.01)
    assert not child.cancelled()
    pen.note("shielded")
    assert await child == "child"
    return child


CANCELS: dict[str, Way] = {
    "wait_for": _wait_for,
    "timeout": _timeout,
    "the task": _cancel_the_task,
    "one of two tasks": _cancel_one_of_two,
    "a gather": _cancel_a_gather,
    "the call": _cancel_the_call,
    "a task group": _task_group,
}


async def _watched(way: Way, leaf: DeploymentHandle, pen: Pen, cue: Gate) -> list[bool]:
    """Take the way; whether the call says that it was cancelled, and whether awaiting it again does."""
    child = await way(leaf, pen, cue)
    try:
        await child
    except RequestCancelledError:
        return [child.cancelled(), True]
    return [child.cancelled(), False]


@serve.deployment
class Caller:
    """Calls the leaf in one of the ways."""

    def __init__(self, pen: Pen, cue: Gate, leaf: DeploymentHandle) -> None:
        self._pen, self._cue, self._leaf = pen, cue, leaf

    async def take(self, way: str) -> list[bool]:
        """Take that way."""
        return await _watched(CANCELS.get(way, _shield), self._leaf, self._pen, self._cue)


def _take(way: str, where: str, caller: DeploymentHandle, pen: Pen, cue: Gate) -> Awaitable[list[bool]]:
    if where == "handler":
        response: Any = caller.take.remote(way)
        return asyncio.ensure_future(response)
    leaf = serve.get_deployment_handle("Leaf", "default")
    return asyncio.create_task(_watched(CANCELS.get(way, _shield), leaf, pen, cue))


@pytest.mark.anyio
@pytest.mark.parametrize("where", ["driver", "handler"])
@pytest.mark.parametrize("way", list(CANCELS))
async def test_by_the_task_that_awaits(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate, way: str, where: str
) -> None:
    """Awaiting a call is like awaiting a task: who gives up cancels it. Others who await it are told."""
    cue = make_gate("cue")
    app = serve_app(Caller.bind(journal.pen, cue, Leaf.bind(journal.pen, make_gate())))
    taking = _take(way, where, app.handle, journal.pen, cue)
    await journal.wait_for_async("child begun")
    cue.open()
    assert await taking == [True, True]
    await journal.wait_for_async("child CancelledError")
    make_gate().open()
    await is_over("Leaf")
    origin = f"driver:{os.getpid()}" if where == "driver" else "replica:default/Caller"
    assert reasons(journal) == [f"child because REQUESTED at {origin}"]
    assert "child ran on" not in journal.notes


@pytest.mark.anyio
@pytest.mark.parametrize("where", ["driver", "handler"])
async def test_shielded(serve_app: ServeApp, journal: Journal, make_gate: MakeGate, where: str) -> None:
    """Outside a cancelled request `asyncio.shield` keeps a call."""
    cue = make_gate("cue")
    app = serve_app(Caller.bind(journal.pen, cue, Leaf.bind(journal.pen, make_gate())))
    taking = _take("shield", where, app.handle, journal.pen, cue)
    await journal.wait_for_async("child begun")
    cue.open()
    await journal.wait_for_async("shielded")
    make_gate().open()
    assert await taking == [False, False]
    assert journal.notes == ["child begun", "shielded", "child ran on"]
