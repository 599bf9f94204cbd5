"""A request and the handle calls that belong to it."""

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from slipknot_core.request_context import (
    CancelChild,
    RequestContext,
    cancellation_raised,
    current,
    is_cleaning_up,
    owner_of_new_call,
)
from slipknot_proto.v1.payload_pb2 import CancelReason

pytestmark = pytest.mark.anyio

DISCONNECTED = CancelReason.CANCEL_REASON_CLIENT_DISCONNECTED
PARENT_CANCELLED = CancelReason.CANCEL_REASON_PARENT_CANCELLED


class _Calls:
    """Handle calls that note their cancellation."""

    def __init__(self) -> None:
        self.cancelled: list[tuple[str, CancelReason, str]] = []

    def cancel_of(self, name: str) -> CancelChild:
        return lambda reason, origin: self.cancelled.append((name, reason, origin))


@pytest.fixture
def calls() -> _Calls:
    """No call yet."""
    return _Calls()


@contextmanager
def _in_request() -> Iterator[RequestContext]:
    request = RequestContext("r1")
    token = current.set(request)
    yield request
    current.reset(token)


def test_cancelling_a_request_cancels_its_calls(calls: _Calls) -> None:
    """Each call under way is told once: that its parent was cancelled, and where that began."""
    request = RequestContext("r1")
    assert request.adopt("a", calls.cancel_of("a")) and request.adopt("b", calls.cancel_of("b"))
    assert request.child_count == 2 and not request.is_cancelled
    assert request.cancel(DISCONNECTED, "proxy:1")
    assert calls.cancelled == [("a", PARENT_CANCELLED, "proxy:1"), ("b", PARENT_CANCELLED, "proxy:1")]
    assert request.is_cancelled and request.child_count == 0


def test_only_the_first_cancellation_counts(calls: _Calls) -> None:
    """Reason and origin stay those of the first, and nobody is told twice."""
    request = RequestContext("r1")
    request.adopt("a", calls.cancel_of("a"))
    assert request.cancel(DISCONNECTED, "proxy:1")
    assert not request.cancel(CancelReason.CANCEL_REASON_DEADLINE_EXCEEDED, "replica:2")
    assert (request.cancel_reason, request.cancel_origin) == (DISCONNECTED, "proxy:1")
    assert len(calls.cancelled) == 1


def test_a_call_that_ended_is_left_alone(calls: _Calls) -> None:
    """After its release nothing reaches it; releasing twice, or a stranger, is fine."""
    request = RequestContext("r1")
    request.adopt("a", calls.cancel_of("a"))
    request.release("a")
    request.release("a")
    request.release("stranger")
    request.cancel(DISCONNECTED, "proxy:1")
    assert calls.cancelled == []


def test_a_cancelled_request_takes_no_more_calls(calls: _Calls) -> None:
    """Whoever comes too late is told so, and cancels the call itself."""
    request = RequestContext("r1")
    request.cancel(DISCONNECTED, "proxy:1")
    assert not request.adopt("late", calls.cancel_of("late"))
    assert request.child_count == 0 and calls.cancelled == []


def test_a_call_may_be_released_while_it_is_cancelled(calls: _Calls) -> None:
    """Cancelling a call usually ends it on the spot, in the same thread."""
    request = RequestContext("r1")

    def cancel(reason: CancelReason, origin: str) -> None:
        calls.cancel_of("a")(reason, origin)
        request.release("a")
        assert not request.cancel(reason, origin)

    request.adopt("a", cancel)
    request.cancel(DISCONNECTED, "proxy:1")
    assert len(calls.cancelled) == 1


def test_a_call_that_cannot_be_cancelled_does_not_save_the_others(
    calls: _Calls, caplog: pytest.LogCaptureFixture
) -> None:
    """One failure is logged; every other call is cancelled all the same."""
    request = RequestContext("r1")

    def fail(_reason: CancelReason, _origin: str) -> None:
        raise RuntimeError("Event loop is closed")

    request.adopt("a", fail)
    request.adopt("b", calls.cancel_of("b"))
    logger = logging.getLogger("slipknot.serve")
    before, logger.propagate = logger.propagate, True
    try:
        assert request.cancel(DISCONNECTED, "proxy:1")
    finally:
        logger.propagate = before
    assert [name for name, _, _ in calls.cancelled] == ["b"]
    assert "Event loop is closed" in caplog.text and "r1" in caplog.text


def test_no_call_slips_through_between_threads(calls: _Calls) -> None:
    """Of calls made while another thread cancels, each is either cancelled or refused, exactly once."""
    for _ in range(20):
        request, noted = RequestContext("r1"), _Calls()
        refused: list[str] = []
        barrier = threading.Barrier(4)

        def adopt(
            prefix: str,
            request: RequestContext = request,
            noted: _Calls = noted,
            refused: list[str] = refused,
            barrier: threading.Barrier = barrier,
        ) -> None:
            barrier.wait(5)
            for number in range(50):
                name = f"{prefix}{number}"
                if not request.adopt(name, noted.cancel_of(name)):
                    refused.append(name)

        threads = [threading.Thread(target=adopt, args=(prefix,)) for prefix in "abc"]
        for thread in threads:
            thread.start()
        barrier.wait(5)
        request.cancel(DISCONNECTED, "proxy:1")
        for thread in threads:
            thread.join(5)
        names = [name for name, _, _ in noted.cancelled] + refused
        assert sorted(names) == sorted(f"{prefix}{number}" for prefix in "abc" for number in range(50))


def test_code_outside_a_request_owns_its_calls() -> None:
    """A driver's call belongs to nobody."""
    assert contextvars.Context().run(owner_of_new_call) is None


def test_a_call_belongs_to_the_request_it_is_made_in() -> None:
    """So it will be cancelled with it."""
    with _in_request() as request:
        assert owner_of_new_call() is request


def test_a_thread_that_has_not_heard_still_belongs() -> None:
    """Sync code cannot be interrupted; a call that it makes too late belongs to the cancelled request."""
    with _in_request() as request:
        request.cancel(DISCONNECTED, "proxy:1")
        assert not is_cleaning_up(request)
        assert owner_of_new_call() is request


async def _started(work: Callable[[asyncio.Event], Coroutine[Any, Any, Any]]) -> "asyncio.Task[Any]":
    started = asyncio.Event()
    task = asyncio.create_task(work(started))
    await started.wait()
    return task


async def test_a_call_during_cleanup_does_not_belong() -> None:
    """What the handler does after it was interrupted may use handles, and runs to its end."""
    with _in_request() as request:

        async def handler(started: asyncio.Event) -> Any:
            before = owner_of_new_call()
            try:
                started.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                return before, owner_of_new_call()

        task = await _started(handler)
        request.cancel(DISCONNECTED, "proxy:1")
        task.cancel()
        assert await task == (request, None)


async def test_a_sibling_that_has_not_heard_still_belongs() -> None:
    """A task that the handler made before goes on undisturbed, but its calls are cancelled at once."""
    with _in_request() as request:
        go_on = asyncio.Event()

        async def sibling(started: asyncio.Event) -> Any:
            started.set()
            await go_on.wait()
            return owner_of_new_call()

        task = await _started(sibling)
        request.cancel(DISCONNECTED, "proxy:1")
        go_on.set()
        assert await task is request


async def test_a_task_made_during_cleanup_is_cleaning_up_too() -> None:
    """It inherits the knowledge, also where the cancellation has been swallowed and taken back since."""
    with _in_request() as request:

        async def call() -> Any:
            return owner_of_new_call()

        async def handler(started: asyncio.Event) -> Any:
            try:
                started.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancellation_raised.set(request)
                task = asyncio.current_task()
                assert task is not None
                task.uncancel()
                return await asyncio.create_task(call()), owner_of_new_call()

        task = await _started(handler)
        request.cancel(DISCONNECTED, "proxy:1")
        task.cancel()
        assert await task == (None, None)


async def test_a_cancellation_of_ones_own_is_no_cleanup() -> None:
    """A handler that cancels its own task, or times out a part of it, goes on making calls of the request."""
    with _in_request() as request:

        async def handler(started: asyncio.Event) -> Any:
            try:
                started.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return owner_of_new_call()

        task = await _started(handler)
        task.cancel()
        assert await task is request


async def test_the_cleanup_of_one_request_is_not_that_of_another() -> None:
    """A new request that is served in the context of an old one starts with a clean slate."""
    with _in_request() as request:
        cancellation_raised.set(RequestContext("old"))
        request.cancel(DISCONNECTED, "proxy:1")
        assert owner_of_new_call() is request
