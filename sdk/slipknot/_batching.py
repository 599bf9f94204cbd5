"""`serve.batch`: single calls of a function become calls with lists."""

import functools
import inspect
import math
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol, overload

from ._batch_arguments import BatchSignature
from ._batch_plan import DEFAULT_BATCH_WAIT_TIMEOUT_S, DEFAULT_MAX_BATCH_SIZE, BatchOptions
from ._batch_queue import BatchQueue
from ._per_instance import PerInstance


class BatchedFunction(Protocol):
    """A function or method decorated with `serve.batch`; awaited, or iterated if it is a generator."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """One call, with single items."""

    def set_max_batch_size(self, max_batch_size: int) -> None:
        """Change the bound, for the batches that begin from now on."""

    def set_batch_wait_timeout_s(self, batch_wait_timeout_s: float) -> None:
        """Change the time, also for calls that wait already."""

    def get_max_batch_size(self) -> int:
        """The bound in effect."""

    def get_batch_wait_timeout_s(self) -> float:
        """The time in effect."""


@overload
def batch(
    _func: Callable[..., Any],
    /,
    max_batch_size: int = ...,
    batch_wait_timeout_s: float = ...,
    max_concurrent_batches: int = ...,
    batch_size_fn: Callable[[list[Any]], int] | None = ...,
) -> BatchedFunction: ...
@overload
def batch(
    _func: None = None,
    /,
    max_batch_size: int = ...,
    batch_wait_timeout_s: float = ...,
    max_concurrent_batches: int = ...,
    batch_size_fn: Callable[[list[Any]], int] | None = ...,
) -> Callable[[Callable[..., Any]], BatchedFunction]: ...


def batch(
    _func: Callable[..., Any] | None = None,
    /,
    max_batch_size: int = DEFAULT_MAX_BATCH_SIZE,
    batch_wait_timeout_s: float = DEFAULT_BATCH_WAIT_TIMEOUT_S,
    max_concurrent_batches: int = 1,
    batch_size_fn: Callable[[list[Any]], int] | None = None,
) -> Any:
    """Decorate an `async` function or method that works on many items at once; callers pass one item each.

    Each parameter becomes a list, and the function returns a list of the same length: each caller gets its
    own element. An async generator yields such lists; StopIteration in a caller's place ends that caller's
    items. What the function raises reaches all callers of the batch. A cancelled caller leaves its batch; the
    batch is cancelled when the last one has left.

    The decorated function has `set_max_batch_size`, `set_batch_wait_timeout_s` and the getters to them; they
    concern all instances in the process.

    Args:
        max_batch_size: Calls in a batch at most, or what `batch_size_fn` makes of them.
        batch_wait_timeout_s: Seconds that the first call of a batch waits for others.
        max_concurrent_batches: Batches that one instance runs at one time.
        batch_size_fn: Tells the size of a batch from a list of its items (each call's first argument).

    Raises:
        TypeError: It is no `async` function, or a value has the wrong type.
        ValueError: A value is too small.
    """
    if _func is not None and not callable(_func):
        raise TypeError("@serve.batch can only be used to decorate functions or methods.")
    if batch_size_fn is not None and not callable(batch_size_fn):
        raise TypeError(f"batch_size_fn must be a function or None, not {batch_size_fn!r}")
    options = BatchOptions(
        _checked_count("max_batch_size", max_batch_size),
        _checked_timeout(batch_wait_timeout_s),
        _checked_count("max_concurrent_batches", max_concurrent_batches),
        batch_size_fn,
    )
    if _func is None:
        return functools.partial(_decorated, options=options)
    return _decorated(_func, options=options)


# --- inside ---------------------------------------------------------------------------------------------


class _Batcher:
    """What the decorated function calls; picklable with it."""

    def __init__(self, func: Callable[..., Any], options: BatchOptions) -> None:
        self._func = func
        self._options = options
        self._signature = BatchSignature(func)
        self._queues: PerInstance[BatchQueue] = PerInstance(func, self._new_queue)

    def queue(self, args: tuple[Any, ...]) -> BatchQueue:
        return self._queues.of_call(args)

    def max_batch_size(self) -> int:
        """The bound in effect."""
        return self._options.max_batch_size

    def batch_wait_timeout_s(self) -> float:
        """The time in effect."""
        return self._options.batch_wait_timeout_s

    def set_max_batch_size(self, max_batch_size: int) -> None:
        """Change the bound, for the batches that begin from now on."""
        self._options.max_batch_size = _checked_count("max_batch_size", max_batch_size)
        self._reconsider()

    def set_batch_wait_timeout_s(self, batch_wait_timeout_s: float) -> None:
        """Change the time, also for calls that wait already."""
        self._options.batch_wait_timeout_s = _checked_timeout(batch_wait_timeout_s)
        self._reconsider()

    def _reconsider(self) -> None:
        for queue in self._queues.all():
            queue.reconsider()

    def _new_queue(self, has_self: bool) -> BatchQueue:
        signature = self._signature.of_method() if has_self else self._signature
        return BatchQueue(self._func, signature, self._options)


def _decorated(func: Callable[..., Any], *, options: BatchOptions) -> Any:
    batcher = _Batcher(func, options)
    decorated: Any
    if inspect.isasyncgenfunction(func):

        @functools.wraps(func)
        async def batched_stream(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            items = batcher.queue(args).stream(args, kwargs)
            try:
                async for item in items:
                    yield item
            finally:
                await items.aclose()

        decorated = batched_stream
    elif inspect.iscoroutinefunction(func):

        @functools.wraps(func)
        async def batched(*args: Any, **kwargs: Any) -> Any:
            return await batcher.queue(args).call(args, kwargs)

        decorated = batched
    else:
        raise TypeError("Functions decorated with @serve.batch must be 'async def'.")
    decorated.set_max_batch_size = batcher.set_max_batch_size
    decorated.set_batch_wait_timeout_s = batcher.set_batch_wait_timeout_s
    decorated.get_max_batch_size = decorated._get_max_batch_size = batcher.max_batch_size
    decorated.get_batch_wait_timeout_s = decorated._get_batch_wait_timeout_s = batcher.batch_wait_timeout_s
    return decorated


def _checked_count(name: str, value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer >= 1, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be an integer >= 1, not {value}")
    return value


def _checked_timeout(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"batch_wait_timeout_s must be a number >= 0, not {value!r}")
    if math.isnan(value) or value < 0:
        raise ValueError(f"batch_wait_timeout_s must be a number >= 0, not {value}")
    return float(value)
