"""Tasks with a name and an owner."""

import asyncio
import logging
from collections.abc import Coroutine
from types import CoroutineType
from typing import Any

logger = logging.getLogger("slipknot.serve")


class TaskOwner:
    """Holds background tasks; `stop` cancels them, waits, and reports those that are stuck.

    A task that fails is logged once, here. `repr` tells the owner and how many tasks run.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def __repr__(self) -> str:
        return f"<TaskOwner {self._name}: {len(self._tasks)} tasks>"

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Start a task of this owner on the running loop."""
        task = python_task(coroutine, f"{self._name}:{name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Cancel all tasks and wait at most `timeout_s` for them; calling it twice or before the first task
        is fine.
        """
        tasks = {task for task in self._tasks if task is not asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if not tasks:
            return
        _, stuck = await asyncio.wait(tasks, timeout=timeout_s)
        for task in stuck:
            logger.error(
                "task_stuck %s did not end within %.1f s of its cancellation", task.get_name(), timeout_s
            )

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("task_failed %s", task.get_name(), exc_info=task.exception())


def python_task(coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
    """A task of the running loop for a coroutine that may be compiled. Whoever looks at the tasks of a loop
    expects coroutines with a name and a frame, and compiled ones have none.
    """
    if not isinstance(coroutine, CoroutineType):
        coroutine = _wait_for(coroutine)
    return asyncio.get_running_loop().create_task(coroutine, name=name)


async def _wait_for(compiled: Coroutine[Any, Any, Any]) -> Any:
    return await compiled
