"""One watch of a range of keys in etcd: it goes on at another member when one dies, freezes or is cut off.

Nothing is missed and nothing told twice: it resumes after the revision that was told last. If that is
forgotten already (compaction), `on_gap` is called and it goes on from there.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import grpc.aio

from slipknot_core.tasks import TaskOwner
from slipknot_proto.etcd.v1 import etcd_pb2

from .etcd_client import WATCH_PATH, EtcdClient, is_stale_token, names_stale_token, prefix_end
from .interface import StoreUnavailable

logger = logging.getLogger("slipknot.serve")

PROGRESS_PERIOD_S = 0.5
"""The member is asked so often for a sign of life, in which it tells how far it is."""
SILENCE_S = 1.5
"""A member that says nothing for so long is left."""
PAUSE_S = 0.05
MAX_PAUSE_S = 0.5

OnEvent = Callable[[etcd_pb2.Event], None]
OnGap = Callable[[], None]


class EtcdWatch:
    """Calls `on_event` for each change of a key that begins with `prefix`, from `revision` on, in order.

    `repr` tells how far it is.
    """

    def __init__(
        self, client: EtcdClient, prefix: bytes, revision: int, on_event: OnEvent, on_gap: OnGap
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._next = revision
        self._on_event = on_event
        self._on_gap = on_gap
        self._tasks = TaskOwner("etcd watch")

    def __repr__(self) -> str:
        return f"<EtcdWatch of {self._prefix!r} from revision {self._next}>"

    def start(self) -> None:
        """Watch in the background."""
        self._tasks.spawn(self._run(), "run")

    async def stop(self) -> None:
        """End it; twice is fine."""
        await self._tasks.stop()

    async def _run(self) -> None:
        pause_s = PAUSE_S
        while True:
            endpoint, before = self._client.endpoint, self._next
            try:
                await self._follow()
            except grpc.aio.AioRpcError as error:
                if is_stale_token(error):
                    self._client.forget_token()
                logger.debug("etcd_watch_lost %s: %s", endpoint, error.code().name)
            except (TimeoutError, StoreUnavailable, grpc.aio.BaseError, asyncio.InvalidStateError) as error:
                logger.debug("etcd_watch_lost %s: %r", endpoint, error)
            self._client.move_on(endpoint)
            pause_s = PAUSE_S if self._next != before else min(pause_s * 2, MAX_PAUSE_S)
            await asyncio.sleep(pause_s)

    async def _follow(self) -> None:
        """Watch at one member, until it fails."""
        call = self._client.channel().stream_stream(
            WATCH_PATH,
            request_serializer=etcd_pb2.WatchRequest.SerializeToString,
            response_deserializer=etcd_pb2.WatchResponse.FromString,
        )(metadata=await self._client.metadata())
        asking = self._tasks.spawn(self._ask(call), "ask")
        try:
            while True:
                async with asyncio.timeout(SILENCE_S):
                    response = await call.read()
                if response is grpc.aio.EOF:
                    return
                if not self._take(response):
                    return
        finally:
            call.cancel()
            asking.cancel()

    async def _ask(self, call: Any) -> None:
        create = etcd_pb2.WatchCreateRequest(
            key=self._prefix, range_end=prefix_end(self._prefix), start_revision=self._next
        )
        progress = etcd_pb2.WatchRequest(progress_request=etcd_pb2.WatchProgressRequest())
        try:
            await call.write(etcd_pb2.WatchRequest(create_request=create))
            while True:
                await asyncio.sleep(PROGRESS_PERIOD_S)
                await call.write(progress)
        except (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError) as error:
            logger.debug("etcd_watch_lost %r", error)  # the reader sees it too

    def _take(self, response: etcd_pb2.WatchResponse) -> bool:
        """Tell what is new; False: this watch has ended."""
        if response.compact_revision:
            logger.warning("etcd has forgotten revision %d; reading everything again", self._next)
            self._next = response.compact_revision
            self._on_gap()
            return False
        if response.canceled:
            logger.warning("etcd ended a watch: %s", response.cancel_reason)
            if names_stale_token(response.cancel_reason):
                self._client.forget_token()
            return False
        for event in response.events:
            # All changes of one revision come in one message.
            if event.kv.mod_revision >= self._next:
                self._on_event(event)
        if response.events:
            self._next = max(self._next, response.events[-1].kv.mod_revision + 1)
        return True
