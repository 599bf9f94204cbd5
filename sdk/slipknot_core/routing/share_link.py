"""The stream between a router and the replica that keeps the account of the deployment's queue."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc.aio

from slipknot_proto.v1 import replica_pb2

from ..tasks import TaskOwner
from .queue_share import SPARE_S, QueueShare


class ShareLink:
    """One `ReplicaService.ShareQueue`. Must be made and used on the loop of its channel.

    Args:
        call: The RPC, just begun.
        tasks: Owns what runs here.
        waiting: Requests that wait already.
        on_news: An answer came, or the time for one is over, or the link has ended: look at the queue again.
    """

    def __init__(self, call: Any, tasks: TaskOwner, waiting: int, on_news: Callable[[], None]) -> None:
        self.share = QueueShare(waiting)
        self.has_ended = False
        self.is_unknown = False
        """The replica does not know of such accounts."""
        self._call = call
        self._tasks = tasks
        self._on_news = on_news
        self._declared = waiting
        self._bound = 0
        self._waiting = waiting
        self._writer: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        tasks.spawn(self._read(), "queue-share")

    def __repr__(self) -> str:
        return f"<ShareLink {self.share!r}{', ended' if self.has_ended else ''}>"

    def limit(self, waiting: int, bound: int, *, returned: bool = False) -> int:
        """How many may wait now, if `waiting` do, those included that have just come, or have `returned`."""
        now_s = time.monotonic()
        self._waiting, self._bound = waiting, bound
        self.share.note(waiting, bound, now_s, returned=returned)
        return self.share.limit(bound, now_s, returned=returned)

    def count(self, waiting: int) -> None:
        """So many wait now: some have left the queue."""
        self._waiting = waiting
        self.share.leave(waiting)

    def settle(self, waiting: int, *, returned: bool = False) -> None:
        """So many wait after those too many were refused; says what is to be said."""
        self._waiting = waiting
        self.share.settle(waiting, self._bound, time.monotonic(), returned=returned)
        self._tell()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SPARE_S, self._tick)

    def close(self) -> None:
        """End the stream; twice is fine."""
        self.has_ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._call.cancel()

    # --- inside -------------------------------------------------------------------------------------

    def _tell(self) -> None:
        if self._writer is None and not self.has_ended:
            self._writer = self._tasks.spawn(self._write(), "queue-share-write")

    def _tick(self) -> None:
        self._timer = None
        if self.has_ended:
            return
        if self.share.tick(self._waiting, time.monotonic()):
            self._timer = asyncio.get_running_loop().call_later(SPARE_S, self._tick)
        self._tell()

    async def _write(self) -> None:
        try:
            while not self.has_ended and (message := self.share.take_message(time.monotonic())) is not None:
                if message.wanted:
                    asyncio.get_running_loop().call_later(self.share.patience_s, self._patience_over)
                declared, self._declared = self._declared, 0
                await self._call.write(
                    replica_pb2.ShareQueueRequest(
                        declared=declared,
                        given_back=message.given_back,
                        wanted=message.wanted,
                        bound=self._bound,
                    )
                )
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the reader learns of it too
        except asyncio.CancelledError:
            if not self.has_ended:
                raise
        finally:
            self._writer = None

    def _patience_over(self) -> None:
        if not self.has_ended:
            self._on_news()

    async def _read(self) -> None:
        try:
            while (answer := await self._call.read()) is not grpc.aio.EOF:
                self.share.answer(
                    granted=answer.granted,
                    ask_back=answer.ask_back,
                    unmet=answer.unmet,
                    callers=answer.callers,
                )
                self._on_news()
        except grpc.aio.AioRpcError as error:
            self.is_unknown = error.code() is grpc.StatusCode.UNIMPLEMENTED
        except asyncio.CancelledError:
            if not self.has_ended:
                self._call.cancel()
                raise
        finally:
            if not self.has_ended:
                self.close()
                self._on_news()
