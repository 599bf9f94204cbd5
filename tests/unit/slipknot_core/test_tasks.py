"""Background tasks and their owner."""

import asyncio
import logging
from collections.abc import Iterator

import pytest

from slipknot_core.tasks import TaskOwner

pytestmark = pytest.mark.anyio


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the owner logs."""
    logger = logging.getLogger("slipknot.serve")
    before, logger.propagate = logger.propagate, True
    yield caplog
    logger.propagate = before


async def test_stop_cancels_what_runs_and_waits_for_its_cleanup() -> None:
    """When `stop` returns nothing of the owner's runs any more."""
    owner = TaskOwner("router")
    started, cleaned_up = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned_up.set()

    task = owner.spawn(work(), "watch")
    await started.wait()
    assert task.get_name() == "router:watch"
    assert len(owner) == 1 and repr(owner) == "<TaskOwner router: 1 tasks>"
    await owner.stop()
    assert cleaned_up.is_set() and task.cancelled()
    assert repr(owner) == "<TaskOwner router: 0 tasks>"


async def test_stop_is_fine_at_any_time() -> None:
    """Before the first task, and twice."""
    owner = TaskOwner("router")
    await owner.stop()
    owner.spawn(asyncio.Event().wait(), "wait")
    await owner.stop()
    await owner.stop()
    assert len(owner) == 0


async def test_a_task_may_stop_its_own_owner() -> None:
    """It is not cancelled by that, and does not wait for itself."""
    owner = TaskOwner("router")
    other = owner.spawn(asyncio.Event().wait(), "other")

    async def stop() -> str:
        await owner.stop()
        return "stopped"

    assert await asyncio.wait_for(owner.spawn(stop(), "stop"), 5) == "stopped"
    assert other.cancelled()


async def test_a_failure_is_logged_once_with_its_task(log: pytest.LogCaptureFixture) -> None:
    """Nobody awaits these tasks, so the owner tells what went wrong."""
    owner = TaskOwner("router")

    async def fail() -> None:
        raise ValueError("broken")

    await asyncio.wait([owner.spawn(fail(), "watch")])
    await owner.stop()
    (record,) = log.records
    assert record.getMessage() == "task_failed router:watch"
    assert record.exc_info is not None and str(record.exc_info[1]) == "broken"


async def test_a_stuck_task_is_named(log: pytest.LogCaptureFixture) -> None:
    """A task that swallows its cancellation keeps `stop` only for its bound, and is reported."""
    owner = TaskOwner("router")
    started, release = asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        started.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    task = owner.spawn(stubborn(), "stubborn")
    await started.wait()
    await owner.stop(timeout_s=0.01)
    assert [r.getMessage() for r in log.records] == [
        "task_stuck router:stubborn did not end within 0.0 s of its cancellation"
    ]
    release.set()
    await task
    assert len(owner) == 0
