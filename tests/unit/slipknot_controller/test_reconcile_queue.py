"""No event is lost, no key is worked on twice at once, equal events merge."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from slipknot_controller.reconcile_queue import ReconcileQueue

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def run_on_loop(coroutine: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(coroutine)

    return run_on_loop


def test_equal_events_merge(run: Run) -> None:
    async def use() -> None:
        queue: ReconcileQueue[str] = ReconcileQueue()
        queue.add("a")
        queue.add("b")
        queue.add("a")
        assert [await queue.get(), await queue.get()] == ["a", "b"]

    run(use())


def test_what_is_added_while_it_is_worked_on_comes_again(run: Run) -> None:
    async def use() -> None:
        queue: ReconcileQueue[str] = ReconcileQueue()
        queue.add("a")
        await queue.get()
        queue.add("a")
        again = asyncio.ensure_future(queue.get())
        await asyncio.sleep(0)
        assert not again.done()
        queue.done("a")
        assert await again == "a"

    run(use())


@pytest.mark.parametrize("delays_s", [(0.0, 0.0), (0.0, 5.0), (5.0, 0.0), (0.01, 0.0)])
def test_the_earliest_of_several_appointments_counts(run: Run, delays_s: tuple[float, float]) -> None:
    async def use() -> None:
        queue: ReconcileQueue[str] = ReconcileQueue()
        for delay_s in delays_s:
            queue.add_after("a", delay_s)
        async with asyncio.timeout(2.0):
            assert await queue.get() == "a"
        queue.close()

    run(use())


def test_pauses_grow_with_failures_and_success_forgets_them(run: Run) -> None:
    async def use() -> None:
        queue: ReconcileQueue[str] = ReconcileQueue()
        first_s, second_s = queue.retry("a"), queue.retry("a")
        assert first_s < second_s
        queue.succeeded("a")
        assert queue.retry("a") == first_s
        queue.close()

    run(use())
