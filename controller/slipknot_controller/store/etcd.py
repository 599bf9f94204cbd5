"""A store in etcd: for clusters that go on when a controller, or a minority of etcd's members, is lost.

Every change is a transaction that compares the key's revision, so a change whose answer was lost can be made
again: either it is refused, or it takes effect the one time. To know one's own change again each value begins
with an id of the change. A change that somebody else has overwritten in the meantime is reported as a
conflict.

A store that is bound to a term of leadership (`fenced`) also compares the leader's key: whoever has lost the
leadership, known or not, cannot change anything.
"""

import asyncio
import builtins
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from slipknot_proto.etcd.v1 import etcd_pb2

from .etcd_client import RANGE, TXN, Answer, EtcdClient, prefix_end
from .etcd_watch import EtcdWatch
from .interface import ABSENT, Change, Entry, Fenced, RevisionConflict, StoreClosed
from .watchers import Watchers

logger = logging.getLogger("slipknot.serve")

MAX_VALUE_BYTES = 1_500_000
"""etcd takes requests of 1.5 MiB by default."""
_CHANGE_ID_BYTES = 16
_STATE = "state/"

_Compare = etcd_pb2.Compare
_Op = etcd_pb2.RequestOp


@dataclass(frozen=True, slots=True)
class Fence:
    """A key that must have come into being at `revision`; else somebody else leads."""

    key: bytes
    revision: int


class EtcdStore:
    """A `StateStore` below a prefix of etcd's keys. `repr` tells the prefix.

    Args:
        client: Not closed here, unless the store owns it.
        prefix: Of all keys of this cluster, ending in "/".
        fence: Changes are made only while it holds.
        owns_client: Close the client with the store.
    """

    def __init__(
        self, client: EtcdClient, prefix: str, *, fence: Fence | None = None, owns_client: bool = False
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._base = f"{prefix}{_STATE}".encode()
        self._fence = fence
        self._owns_client = owns_client
        self._watchers = Watchers()
        self._watch: EtcdWatch | None = None
        self._watch_turn = asyncio.Lock()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<EtcdStore {self._prefix}{' (fenced)' if self._fence else ''}>"

    def fenced(self, fence: Fence) -> "EtcdStore":
        """The same content, to be changed only while `fence` holds: other changes raise `Fenced`."""
        return EtcdStore(self._client, self._prefix, fence=fence)

    async def get(self, key: str) -> Entry | None:
        """As `StateStore.get`."""
        self._check_open()
        answer = await self._client.call(RANGE, etcd_pb2.RangeRequest(key=self._key(key)))
        return self._entry(answer.message.kvs[0]) if answer.message.kvs else None

    async def list(self, prefix: str) -> builtins.list[Entry]:
        """As `StateStore.list`."""
        self._check_open()
        start = self._key(prefix)
        request = etcd_pb2.RangeRequest(key=start, range_end=prefix_end(start))
        return [self._entry(kv) for kv in (await self._client.call(RANGE, request)).message.kvs]

    async def compare_and_swap(self, key: str, value: bytes, expected_revision: int) -> int:
        """As `StateStore.compare_and_swap`."""
        self._check_open()
        if len(value) > MAX_VALUE_BYTES:
            raise ValueError(
                f"{key!r} needs {len(value)} bytes and etcd takes {MAX_VALUE_BYTES}; deploy from an import "
                "path (slipknot deploy module:app), or load large objects in the constructor"
            )
        name, change_id = self._key(key), os.urandom(_CHANGE_ID_BYTES)
        put = _Op(request_put=etcd_pb2.PutRequest(key=name, value=change_id + value))
        answer = await self._change(name, put, expected_revision)
        if answer.message.succeeded:
            return int(answer.message.header.revision)
        found = self._found(answer)
        if found is not None and found.value.startswith(change_id):
            return int(found.mod_revision)  # made by an attempt whose answer was lost
        self._check_fence(answer)
        raise RevisionConflict(key, expected_revision, int(found.mod_revision) if found else ABSENT)

    async def delete(self, key: str, expected_revision: int | None = None) -> bool:
        """As `StateStore.delete`."""
        self._check_open()
        name = self._key(key)
        deletion = _Op(request_delete_range=etcd_pb2.DeleteRangeRequest(key=name))
        answer = await self._change(name, deletion, expected_revision)
        if answer.message.succeeded:
            return answer.is_repeated or answer.message.responses[0].response_delete_range.deleted > 0
        found = self._found(answer)
        if found is None:
            if not answer.is_repeated:
                self._check_fence(answer)
            return answer.is_repeated
        self._check_fence(answer)
        assert expected_revision is not None
        raise RevisionConflict(key, expected_revision, int(found.mod_revision))

    @asynccontextmanager
    async def _watching(self, prefix: str) -> AsyncIterator[AsyncIterator[Change]]:
        async with self._watchers.watch(prefix) as changes:
            floor = await self._start_watch()
            yield _after(floor, changes)

    def watch(self, prefix: str) -> AbstractAsyncContextManager[AsyncIterator[Change]]:
        """As `StateStore.watch`."""
        self._check_open()
        return self._watching(prefix)

    async def close(self) -> None:
        """As `StateStore.close`."""
        if self._is_closed:
            return
        self._is_closed = True
        self._watchers.close()
        if self._watch is not None:
            await self._watch.stop()
        if self._owns_client:
            await self._client.close()

    async def _start_watch(self) -> int:
        """Have changes told from now on; returns the revision before them."""
        request = etcd_pb2.RangeRequest(key=self._base, count_only=True)
        async with self._watch_turn:
            revision = int((await self._client.call(RANGE, request)).message.header.revision)
            self._check_open()
            if self._watch is None:
                # One for all watchers: each change reaches them in the same order, and at once.
                self._watch = EtcdWatch(self._client, self._base, revision + 1, self._on_event, self._on_gap)
                self._watch.start()
        return revision

    def _on_event(self, event: etcd_pb2.Event) -> None:
        is_put = event.type == etcd_pb2.Event.EventType.PUT
        key = event.kv.key.removeprefix(self._base).decode()
        value = event.kv.value[_CHANGE_ID_BYTES:] if is_put else None
        self._watchers.notify(Change(key, value, int(event.kv.mod_revision)))

    def _on_gap(self) -> None:
        self._watchers.overflow("etcd has forgotten changes that were not told yet")

    async def _change(
        self, name: bytes, op: etcd_pb2.RequestOp, expected: int | None
    ) -> Answer[etcd_pb2.TxnResponse]:
        compare, failure = [], [_Op(request_range=etcd_pb2.RangeRequest(key=name))]
        if expected is not None:
            compare.append(_Compare(target=_Compare.MOD, key=name, mod_revision=expected))
        if self._fence is not None:
            key = self._fence.key
            compare.append(_Compare(target=_Compare.CREATE, key=key, create_revision=self._fence.revision))
            failure.append(_Op(request_range=etcd_pb2.RangeRequest(key=key)))
        request = etcd_pb2.TxnRequest(compare=compare, success=[op], failure=failure)
        return await self._client.call(TXN, request)

    def _found(self, answer: Answer[etcd_pb2.TxnResponse]) -> etcd_pb2.KeyValue | None:
        kvs = answer.message.responses[0].response_range.kvs
        return kvs[0] if kvs else None

    def _check_fence(self, answer: Answer[etcd_pb2.TxnResponse]) -> None:
        if self._fence is None:
            return
        kvs = answer.message.responses[1].response_range.kvs
        if not kvs or kvs[0].create_revision != self._fence.revision:
            raise Fenced("another controller leads now")

    def _key(self, key: str) -> bytes:
        return self._base + key.encode()

    def _entry(self, kv: etcd_pb2.KeyValue) -> Entry:
        key = kv.key.removeprefix(self._base).decode()
        return Entry(key, kv.value[_CHANGE_ID_BYTES:], int(kv.mod_revision))

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreClosed("the store is closed")


async def _after(revision: int, changes: AsyncIterator[Change]) -> AsyncIterator[Change]:
    async for change in changes:
        if change.revision > revision:
            yield change
