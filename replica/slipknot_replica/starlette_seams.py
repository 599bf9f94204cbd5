"""What the replica changes in Starlette and FastAPI, once per process, and only for requests that it serves.

- `anyio.to_thread.run_sync`, as `starlette.concurrency` and `fastapi.concurrency` call it: sync endpoints and
  dependencies get threads of their deployment instead of the 40 that all of the process shares, and a
  cancelled request waits for its thread.
- `iterate_in_threadpool` of streaming responses: a sync generator is closed when its client has gone;
  Starlette only stops resuming it.
- `StreamingResponse.stream_response`: an async generator that stands at its `yield` when the request is
  cancelled gets CancelledError there, not GeneratorExit some time later.

The modules' own names are replaced, never those of `anyio`: code of the user's that calls `anyio` sees no
difference. Outside a request of a replica everything behaves as before.
"""

import asyncio
import contextvars
import functools
import sys
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any

from .generators import cancelling, iterate
from .threads import Claim, finished

FRAMEWORK_THREADS = 40
"""Threads beyond `max_ongoing_requests`, for what frameworks do on their own account (upload files, say)."""


class FrameworkThreads:
    """The threads that Starlette and FastAPI get for the requests of one deployment.

    They are AnyIO's, so that `anyio.from_thread` works in sync endpoints; only their number is ours.
    """

    def __init__(self, max_ongoing_requests: int) -> None:
        import anyio

        self._limiter = anyio.CapacityLimiter(max_ongoing_requests + FRAMEWORK_THREADS)

    def resize(self, max_ongoing_requests: int) -> None:
        """Follow the deployment's `max_ongoing_requests`."""
        self._limiter.total_tokens = max_ongoing_requests + FRAMEWORK_THREADS

    async def run(self, func: Callable[..., Any], *args: Any, limiter: Any = None, **options: Any) -> Any:
        """Do what `anyio.to_thread.run_sync` does, but hold a cancelled caller until its end.

        Raises:
            RuntimeError: The function raised SystemExit (`sys.exit`) or KeyboardInterrupt.
            Exception: Whatever else it raised.
        """
        import anyio
        import anyio.to_thread

        claim = Claim()

        def claimed() -> Any:
            try:
                return func(*args) if claim.take() else None
            except (SystemExit, KeyboardInterrupt) as error:  # would end the loop, and with it the replica
                raise RuntimeError(f"sync code raised {type(error).__name__}") from error

        def withdraw() -> bool:
            return claim.take() and task.cancel()

        task = asyncio.create_task(
            anyio.to_thread.run_sync(claimed, limiter=limiter or self._limiter, **options),
            name="thread of a request",
        )
        with anyio.CancelScope(shield=True):
            return await finished(task, withdraw)


threads_of_request: contextvars.ContextVar[FrameworkThreads | None] = contextvars.ContextVar(
    "slipknot_framework_threads", default=None
)
"""Set while a replica serves a request; None elsewhere, where the seams do nothing."""


def install() -> None:
    """Put the seams in place, in the modules imported so far; calling it again adds those imported since."""
    concurrency = sys.modules.get("starlette.concurrency")
    if concurrency is None:
        return
    for module in (concurrency, sys.modules.get("fastapi.concurrency")):
        if module is not None and not isinstance(module.anyio, _Anyio):
            vars(module)["anyio"] = _Anyio(module.anyio)
    responses = sys.modules.get("starlette.responses")
    for module in (responses, sys.modules.get("fastapi.routing")):
        if module is not None:
            _replace(module, "iterate_in_threadpool", _closing)
    if responses is not None:
        _replace(responses.StreamingResponse, "stream_response", _cancelling)


def _replace(owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    original = getattr(owner, name)
    if not hasattr(original, "__wrapped__"):
        setattr(owner, name, wrap(original))


class _ToThread:
    """`anyio.to_thread`, with threads of the deployment's."""

    def __init__(self, original: Any) -> None:
        self._original = original

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    async def run_sync(self, func: Callable[..., Any], *args: Any, **options: Any) -> Any:
        threads = threads_of_request.get()
        run = self._original.run_sync if threads is None else threads.run
        return await run(func, *args, **options)


class _Anyio:
    """`anyio`, as the modules with a seam see it."""

    def __init__(self, original: Any) -> None:
        self._original = original
        self.to_thread = _ToThread(original.to_thread)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


def _closing(original: Callable[[Iterable[Any]], Any]) -> Callable[[Iterable[Any]], Any]:
    @functools.wraps(original)
    async def iterate_in_threadpool(iterator: Iterable[Any]) -> AsyncGenerator[Any, None]:
        threads = threads_of_request.get()
        items = original(iterator) if threads is None else iterate(iter(iterator), threads.run)
        async with cancelling(items):
            async for item in items:
                yield item

    return iterate_in_threadpool


def _cancelling(original: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    @functools.wraps(original)
    async def stream_response(self: Any, send: Any) -> None:
        if threads_of_request.get() is None:
            await original(self, send)
            return
        async with cancelling(self.body_iterator):
            await original(self, send)

    return stream_response
