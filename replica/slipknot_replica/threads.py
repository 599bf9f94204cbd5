"""Threads for the user's sync code, which must never run on the event loop.

A thread cannot be interrupted. So whoever is cancelled while its function runs in a thread waits for the
function's end, discards the result, and only then is cancelled: the request's slot stays taken while user
code runs. A function that has not begun yet is withdrawn and never runs.
"""

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

Result = TypeVar("Result")


class Claim:
    """Settles, once and for any thread, whether a function begins or is withdrawn."""

    def __init__(self) -> None:
        self._taken = threading.Lock()

    def take(self) -> bool:
        """The first caller gets True, everyone else False."""
        return self._taken.acquire(blocking=False)


class ThreadPool:
    """At most `max_threads` daemon threads, started when needed. Belongs to a loop; `repr` tells counts.

    The queue has no bound of its own: a replica admits no more requests than the pool has threads.
    """

    def __init__(self, max_threads: int, name: str) -> None:
        self._max_threads = max_threads
        self._name = name
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread_count = 0
        self._pending_count = 0
        self._is_closed = False

    def __repr__(self) -> str:
        threads = f"{self._thread_count} threads of {self._max_threads}"
        return f"<ThreadPool {self._name}: {self._pending_count} pending, {threads}>"

    async def run(self, func: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        """Call a function in a thread, with the caller's context variables.

        Cancellation:
            Waits for the function's end if it has begun; otherwise it never runs.
        """
        claim = Claim()
        work = _Work(partial(func, *args, **kwargs), claim)
        self._submit(work)
        result: Result = await finished(work.future, claim.take)
        return result

    def resize(self, max_threads: int) -> None:
        """Allow more threads at once, or fewer as soon as they have finished what they do."""
        with self._lock:
            self._max_threads = max_threads
            missing = min(max_threads, self._pending_count) - self._thread_count
            self._thread_count += max(0, missing)
        for _ in range(missing):
            self._start_thread()

    def close(self) -> None:
        """Let idle threads end, and busy ones after what they do; nothing more can be run. Twice is fine."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            for _ in range(self._thread_count):
                self._queue.put(None)

    def _submit(self, work: "_Work") -> None:
        with self._lock:
            if self._is_closed:
                raise RuntimeError(f"the thread pool {self._name!r} is closed")
            self._pending_count += 1
            is_thread_missing = self._thread_count < min(self._max_threads, self._pending_count)
            self._thread_count += is_thread_missing
        self._queue.put(work)
        if is_thread_missing:
            self._start_thread()

    def _start_thread(self) -> None:
        threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            work.run()
            del work  # what a request refers to must not live until the next one comes
            with self._lock:
                self._pending_count -= 1
                if self._thread_count > self._max_threads:
                    self._thread_count -= 1
                    return


class _Work:
    def __init__(self, call: Callable[[], Any], claim: Claim | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._call = call
        self._claim = claim
        self.future: asyncio.Future[Any] = self._loop.create_future()

    def run(self) -> None:
        if self._claim is not None and not self._claim.take():
            return
        result, error = None, None
        try:
            result = self._context.run(self._call)
        except BaseException as raised:  # noqa: BLE001 - it belongs to the one who awaits the result
            error = raised
        try:
            self._loop.call_soon_threadsafe(self._deliver, result, error)
        except RuntimeError:
            pass  # the loop is closed, so nobody waits any more

    def _deliver(self, result: Any, error: BaseException | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        elif isinstance(error, StopIteration):  # a future cannot carry it
            translated = RuntimeError("user code raised StopIteration")
            translated.__cause__ = error
            self.future.set_exception(translated)
        else:
            self.future.set_exception(error)


async def run_in_new_thread(name: str, func: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
    """Call a function in a daemon thread of its own, which no request can hold up; for rare hooks.

    Cancellation:
        Does not wait for the function: a constructor that hangs must not hang the replica's stop.
    """
    work = _Work(partial(func, *args, **kwargs))
    threading.Thread(target=work.run, name=name, daemon=True).start()
    result: Result = await work.future
    return result


async def finished(future: asyncio.Future[Result], withdraw: Callable[[], bool]) -> Result:
    """Await what a thread does.

    Args:
        future: Its result.
        withdraw: Asked when the caller is cancelled; True if the thread has not begun and now never will.

    Cancellation:
        Waits for the thread's end (module docstring), however often it is cancelled.
    """
    cancellation: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError as error:
            if withdraw():
                raise
            cancellation = error
    if cancellation is None:
        return future.result()
    if not future.cancelled():
        future.exception()  # looked at, so that asyncio does not report a failure nobody is interested in
    raise cancellation
