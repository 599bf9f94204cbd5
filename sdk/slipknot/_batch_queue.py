"""The calls of one batched function on one instance: they wait here, and run together.

    call -> WAITING -> in a batch (a SharedWork that all its callers have joined) -> its result, or its items

A caller that is cancelled while it waits never gets into a batch; afterwards it leaves the work, whose rules
hold (`_shared_work.py`). Everything here happens between two awaits of the loop.
"""

import asyncio
import contextvars
import inspect
import math
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Hashable
from functools import partial
from typing import Any, cast

from slipknot_core import request_context
from slipknot_core.deadline import NEVER, Deadline
from slipknot_core.errors import BackPressureError, SlipknotServeException
from slipknot_core.ids import new_request_id
from slipknot_core.request_context import RequestContext

from ._batch_arguments import BatchSignature
from ._batch_plan import BatchOptions, next_batch
from ._shared_work import SharedWork
from .serve.context import _batch_requests

MAX_WAITING = 65_536
"""Calls that wait for a batch; one more is refused."""

MAX_ITEMS_AHEAD = 64
"""How many items the generator of a batch may be ahead of its slowest reader."""

_SENTINELS = (StopIteration, StopAsyncIteration)


class Caller:
    """One call of the batched function. `wake` is called when there is news for it."""

    def __init__(self, arguments: inspect.BoundArguments, kind: Hashable, item: Any) -> None:
        loop = asyncio.get_running_loop()
        self.arguments = arguments
        self.request = request_context.current.get()
        model_id = self.request.multiplexed_model_id if self.request is not None else ""
        self.kind = (model_id, kind)
        self.item = item
        self.arrived_s = loop.time()
        self.context = contextvars.copy_context()
        self.started: asyncio.Future[None] = loop.create_future()
        self.work: SharedWork[Any] | None = None
        self.index = 0
        self.items: deque[Any] = deque()
        self.is_satisfied = False
        """The generator has said that there are no more items for it."""
        self.has_left = False
        self._waiter: asyncio.Future[None] | None = None

    async def news(self) -> None:
        """Wait for an item, or the end."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        """There is news."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class BatchQueue:
    """Forms batches and runs them. Belongs to a loop; `repr` tells the counts.

    Invariant: nobody waits while a batch could be started, but for the time the options say.

    Args:
        func: The user's function: `async`, or an async generator.
        signature: Of it.
        options: Looked at anew for each batch.
    """

    def __init__(self, func: Callable[..., Any], signature: BatchSignature, options: BatchOptions) -> None:
        self._func = func
        self._name = f"batch function {func.__qualname__}"
        self._signature = signature
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._waiting: OrderedDict[Caller, None] = OrderedDict()
        self._running: set[SharedWork[Any]] = set()
        self._timer: asyncio.Handle | None = None
        self._room: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<BatchQueue of {self._name}: {len(self._waiting)} waiting, {len(self._running)} running>"

    async def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one call in a batch and give its result.

        Raises:
            Exception: What the batch function raised, in every caller of the batch.
        """
        caller = self._enqueue(args, kwargs)
        try:
            await caller.started
            assert caller.work is not None
            await caller.work.ended()
        except BaseException as error:
            work = self._leave(caller)
            if work is not None and isinstance(error, asyncio.CancelledError):
                await work.ended()
            raise
        caller.work.leave()
        return caller.work.outcome()[caller.index]

    async def stream(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AsyncGenerator[Any, None]:
        """Run one call in a batch and give its items.

        Raises:
            Exception: What the batch function raised, in every caller of the batch.
        """
        caller = self._enqueue(args, kwargs)
        try:
            await caller.started
            work = caller.work
            assert work is not None
            while caller.items or not (caller.is_satisfied or work.task.done()):
                while caller.items:
                    item = caller.items.popleft()
                    self._wake_producers()
                    yield item
                if not (caller.is_satisfied or work.task.done()):
                    await caller.news()
        except BaseException as error:
            abandoned = self._leave(caller)
            if abandoned is not None and isinstance(error, asyncio.CancelledError | GeneratorExit):
                await abandoned.ended()
            raise
        if not caller.is_satisfied:
            work.leave()
            work.outcome()

    def reconsider(self) -> None:
        """The options have changed."""
        self._loop.call_soon_threadsafe(self._advance_soon)

    # --- inside -------------------------------------------------------------------------------------------

    def _enqueue(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Caller:
        if len(self._waiting) >= MAX_WAITING:
            raise BackPressureError(
                f"Request dropped due to backpressure ({MAX_WAITING} calls of {self._name} are waiting)."
            )
        arguments = self._signature.bind(args, kwargs)
        item = self._signature.first(arguments)
        size = self._options.size([item])
        if self._options.size_of is not None and size > self._options.max_batch_size:
            raise ValueError(
                f"an item of size {size} does not fit in a batch of {self._name}, "
                f"whose max_batch_size is {self._options.max_batch_size}"
            )
        caller = Caller(arguments, self._signature.shape(arguments), item)
        self._waiting[caller] = None
        self._advance_soon()
        return caller

    def _leave(self, caller: Caller) -> SharedWork[Any] | None:
        """Let go of a caller; returns the work if it was the last one and the work was cancelled."""
        if caller in self._waiting:
            del self._waiting[caller]
            self._advance_soon()
        caller.has_left = True
        work = caller.work
        if work is None or caller.is_satisfied:
            return None
        was_last = work.leave()
        self._wake_producers()
        return work if was_last else None

    def _advance_soon(self) -> None:
        """Look once all that comes in this round of the loop has come."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_soon(self._advance)

    def _advance(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting and len(self._running) < self._options.max_concurrent_batches:
            # One that was cancelled a moment ago is still in the queue, until its own task has heard of it.
            waiting = (caller for caller in self._waiting if not caller.started.done())
            batch, wake_s = next_batch(waiting, self._options, self._loop.time())
            if not batch:
                if wake_s < math.inf:
                    self._timer = self._loop.call_at(wake_s, self._advance)
                return
            self._start(batch)

    def _start(self, batch: list[Caller]) -> None:
        arguments = self._signature.together([caller.arguments for caller in batch])
        run = self._drive if inspect.isasyncgenfunction(self._func) else self._run
        context = batch[0].context
        context.run(_batch_requests.set, tuple(c.request for c in batch if c.request is not None))
        work: SharedWork[Any] = SharedWork(
            partial(run, batch, arguments), self._name, _request_for(batch), context
        )
        for index, caller in enumerate(batch):
            del self._waiting[caller]
            caller.work, caller.index = work, index
            work.join()
            caller.started.set_result(None)
        self._running.add(work)
        work.task.add_done_callback(lambda _: self._ended(work, batch))

    def _ended(self, work: SharedWork[Any], batch: list[Caller]) -> None:
        self._running.discard(work)
        for caller in batch:
            caller.wake()
        self._advance()

    async def _run(self, batch: list[Caller], arguments: inspect.BoundArguments) -> list[Any]:
        results = await self._func(*arguments.args, **arguments.kwargs)
        return self._checked(results, len(batch))

    async def _drive(self, batch: list[Caller], arguments: inspect.BoundArguments) -> None:
        generator = cast("AsyncGenerator[Any, None]", self._func(*arguments.args, **arguments.kwargs))
        try:
            async for results in generator:
                self._distribute(batch, self._checked(results, len(batch)))
                if all(caller.is_satisfied or caller.has_left for caller in batch):
                    return
                await self._readers(batch)
        except asyncio.CancelledError:
            await _cancel(generator)
            raise
        finally:
            await generator.aclose()

    def _distribute(self, batch: list[Caller], results: list[Any]) -> None:
        for caller, result in zip(batch, results, strict=True):
            if caller.is_satisfied or caller.has_left:
                continue
            if any(result is sentinel or isinstance(result, sentinel) for sentinel in _SENTINELS):
                caller.is_satisfied = True
                assert caller.work is not None
                caller.work.leave(is_satisfied=True)
            else:
                caller.items.append(result)
            caller.wake()

    async def _readers(self, batch: list[Caller]) -> None:
        """Let the callers run, and wait for the slowest of them."""
        await asyncio.sleep(0)
        while any(len(caller.items) >= MAX_ITEMS_AHEAD and not caller.has_left for caller in batch):
            if self._room is None or self._room.done():
                self._room = self._loop.create_future()
            await asyncio.wait((self._room,))

    def _wake_producers(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _checked(self, results: Any, count: int) -> list[Any]:
        if isinstance(results, str | bytes | dict) or not hasattr(results, "__len__"):
            raise SlipknotServeException(
                f"{self._name} doesn't preserve batch size: it got lists of {count} and must return or yield "
                f"a list of {count}, not {type(results).__name__}."
            )
        if len(results) != count:
            raise SlipknotServeException(
                f"{self._name} doesn't preserve batch size. The input list has length {count}, but the list "
                f"that it returned or yielded has length {len(results)}."
            )
        return list(results)


async def _cancel(generator: AsyncGenerator[Any, None]) -> None:
    """Tell a generator that stands at a `yield`; one that stood at an `await` has been told and has ended."""
    try:
        await generator.athrow(asyncio.CancelledError())
    except (asyncio.CancelledError, StopAsyncIteration):
        pass


def _request_for(batch: list[Caller]) -> RequestContext:
    """The request that a batch runs in: its own. Its id is the oldest caller's, its deadline the latest."""
    requests = [caller.request for caller in batch if caller.request is not None]
    if not requests:
        return RequestContext(new_request_id())
    first = requests[0]
    sessions = {request.session_id for request in requests}
    return RequestContext(
        first.request_id,
        first.route,
        first.app_name,
        first.deployment_name,
        multiplexed_model_id=first.multiplexed_model_id,
        session_id=first.session_id if len(sessions) == 1 else "",
        traceparent=first.traceparent,
        tracestate=first.tracestate,
        deadline=_latest(requests) if len(requests) == len(batch) else NEVER,
        caller_chain=max((request.caller_chain for request in requests), key=len),
    )


def _latest(requests: list[RequestContext]) -> Deadline:
    deadlines = [request.deadline for request in requests]
    if any(deadline.is_never for deadline in deadlines):
        return NEVER
    return max(deadlines, key=lambda deadline: deadline.remaining_s())
