"""Generators of the user's, and what becomes of them when their consumer goes away.

An async generator is told with CancelledError, at its `await` or, if it stands at a `yield`, there. A sync
generator cannot be told while it runs in a thread; it is closed at its next step.
"""

import asyncio
import contextlib
import contextvars
import types
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Any

from slipknot_core.request_context import cancellation_raised, current

RunInThread = Callable[..., Awaitable[Any]]
"""Calls a function with arguments in a thread; `ThreadPool.run` or its like."""

_EXHAUSTED = object()


@contextlib.asynccontextmanager
async def cancelling(items: AsyncIterator[Any]) -> AsyncGenerator[None, None]:
    """Tie an iterator to the block that consumes it: cancelled with it, and closed with it."""
    try:
        yield
    except asyncio.CancelledError:
        await _cancel(items)
        raise
    except BaseException:
        request = current.get()
        # A consumer may hear of the cancellation in its own way first, such as OSError out of `send`.
        await (_cancel(items) if request is not None and request.is_cancelled else _close(items))
        raise
    else:
        if isinstance(items, AsyncGenerator):
            await _close(items)


async def iterate(iterator: Iterator[Any], run: RunInThread) -> AsyncGenerator[Any, None]:
    """Drive a sync iterator in threads, item by item, all in one context; closes it if it is a generator.

    Args:
        iterator: Never advanced twice at once.
        run: Must hold a cancelled caller until the function has ended, like `ThreadPool.run`.
    """
    context = contextvars.copy_context()
    try:
        while (item := await run(context.run, next, iterator, _EXHAUSTED)) is not _EXHAUSTED:
            yield item
    finally:
        if isinstance(iterator, Generator) and not _is_finished(iterator):
            # Its `finally` blocks are cleanup: calls made there do not belong to the cancelled request.
            context.run(cancellation_raised.set, cancellation_raised.get())
            await run(context.run, iterator.close)


async def _cancel(items: AsyncIterator[Any]) -> None:
    if not isinstance(items, AsyncGenerator):
        await _abandon(items)
        return
    if _is_finished(items):
        return
    try:
        await items.athrow(asyncio.CancelledError())
    except (asyncio.CancelledError, StopAsyncIteration):
        return
    await items.aclose()  # it swallowed the cancellation and yielded one more item, which nobody takes


async def _close(items: AsyncIterator[Any]) -> None:
    if isinstance(items, AsyncGenerator):
        if not _is_finished(items):
            await items.aclose()
    else:
        await _abandon(items)


async def _abandon(items: Any) -> None:
    """End an iterator that is no generator, such as the streaming response of a handle."""
    if hasattr(items, "cancel"):
        items.cancel()
    elif hasattr(items, "aclose"):
        await items.aclose()


def _is_finished(items: object) -> bool:
    if isinstance(items, types.AsyncGeneratorType):
        return items.ag_frame is None
    return isinstance(items, types.GeneratorType) and items.gi_frame is None
