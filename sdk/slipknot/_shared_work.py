"""Work that several callers wait for together: a batch, the loading of a model. It runs once, in a task and a
request of its own.

The rules:
- a caller that is cancelled leaves, and the others wait on;
- when the last one has left, the work is cancelled, and so are the handle calls it has made: they belong to
  the work, not to any caller's request;
- the one that leaves last waits for the work's end, as if it had awaited the code itself: its request holds
  its slot for as long as code of its own runs;
- what the work raises reaches every caller.
"""

import asyncio
import contextvars
import logging
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Generic, TypeVar

from slipknot_core import request_context
from slipknot_core.errors import SlipknotServeException
from slipknot_core.request_context import RequestContext
from slipknot_proto.v1.payload_pb2 import CancelReason

logger = logging.getLogger("slipknot.serve")

T = TypeVar("T")


class SharedWork(Generic[T]):
    """One piece of work. Belongs to the running loop; whoever makes it says how many `join` it.

    Args:
        work: Makes the coroutine to run.
        name: For messages.
        request: The request that it runs in.
        context: It runs in a copy of this.
    """

    def __init__(
        self,
        work: Callable[[], Coroutine[Any, Any, T]],
        name: str,
        request: RequestContext,
        context: contextvars.Context,
    ) -> None:
        self.request = request
        self.is_abandoned = False
        """Nobody waits any more, and it was cancelled."""
        self._name = name
        self._caller_count = 0
        self._traceback: TracebackType | None = None
        """Of what the work raised, as it was when the first caller asked."""
        self._context = context.copy()
        self._context.run(request_context.current.set, request)
        self._context.run(request_context.cancellation_raised.set, None)
        self.task: asyncio.Task[T] = asyncio.get_running_loop().create_task(
            self._run(work), name=name, context=self._context
        )
        self.task.add_done_callback(self._ended)

    def __repr__(self) -> str:
        return (
            f"<SharedWork {self._name}: {self._caller_count} callers{', done' if self.task.done() else ''}>"
        )

    def join(self) -> None:
        """Count one more who waits."""
        self._caller_count += 1

    def leave(self, *, is_satisfied: bool = False) -> bool:
        """Count one less.

        Args:
            is_satisfied: The caller has got all it waits for, so that its leaving cancels nothing.

        Returns:
            True if that was the last one and the work was cancelled; then await `ended` if you can.
        """
        self._caller_count -= 1
        if self._caller_count > 0 or self.task.done() or self.is_abandoned or is_satisfied:
            return False
        self.is_abandoned = True
        caller = request_context.current.get()
        reason = caller.cancel_reason if caller is not None else None
        origin = caller.cancel_origin if caller is not None else ""
        self.request.cancel(reason or CancelReason.CANCEL_REASON_REQUESTED, origin)
        # What the work does from now on is cleanup: calls it makes do not belong to the request any more.
        self._context.run(request_context.cancellation_raised.set, self.request)
        self.task.cancel()
        return True

    async def ended(self) -> None:
        """Wait for its end; raises nothing of the work's."""
        await asyncio.wait((self.task,))

    async def result(self) -> T:
        """Wait as one of those who have joined, and leave.

        Raises:
            SlipknotServeException: The work raised CancelledError although nobody cancelled it.
            Exception: Whatever else it raised.
        """
        try:
            await self.ended()
        except BaseException as error:
            if self.leave() and isinstance(error, asyncio.CancelledError):
                await self.ended()
            raise
        self.leave()
        return self.outcome()

    def outcome(self) -> T:
        """What came of it, once it has ended; raises as `result`."""
        if self.task.cancelled():
            raise SlipknotServeException(
                f"{self._name} raised CancelledError by itself: something it awaited was cancelled, "
                "but nobody cancelled it"
            )
        error = self.task.exception()
        if error is not None:
            if self._traceback is None:
                self._traceback = error.__traceback__
            raise error.with_traceback(self._traceback)  # callers' own tracebacks would pile up in it
        return self.task.result()

    # --- inside -------------------------------------------------------------------------------------------

    async def _run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            return await work()
        except (SystemExit, KeyboardInterrupt) as error:  # would end the loop, and with it the replica
            raise RuntimeError(f"{self._name} raised {type(error).__name__}") from error

    def _ended(self, task: asyncio.Task[T]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and self.is_abandoned:
            logger.info("cleanup_failed after the cancellation of %s: %r", self._name, error)
