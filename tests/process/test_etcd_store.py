"""The etcd store while members die, freeze and forget, on real servers."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from slipknot._certificates import Authority
from slipknot_controller.store import (
    EtcdClient,
    EtcdOptions,
    EtcdStore,
    Fence,
    Fenced,
    RevisionConflict,
    StoreRefused,
    StoreUnavailable,
    WatchOverflow,
)
from slipknot_controller.store.etcd import MAX_VALUE_BYTES
from slipknot_controller.store.etcd_client import RANGE, Method
from slipknot_controller.store.interface import ABSENT
from slipknot_core.rpc.roles import Role
from slipknot_proto.etcd.v1 import etcd_pb2
from tests.support.etcd import EtcdCluster, new_prefix, start_etcd

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]

WRITES = 40
"""Before and after a fault."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[EtcdCluster]:
    """Three members."""
    with start_etcd(3) as cluster:
        yield cluster


@pytest.fixture
async def store(cluster: EtcdCluster) -> AsyncIterator[EtcdStore]:
    """An empty store."""
    store = new_store(cluster)
    yield store
    await store.close()


def new_store(
    cluster: EtcdCluster, prefix: str = "", call_timeout_s: float = 20.0, **options: Any
) -> EtcdStore:
    """A store with a client of its own, which is patient: this machine may be busy."""
    client = EtcdClient(EtcdOptions(cluster.endpoints, call_timeout_s=call_timeout_s, **options))
    return EtcdStore(client, prefix or new_prefix(), owns_client=True)


class Writer:
    """Counts up in one key without a pause; a watcher notes what it is told."""

    def __init__(self, store: EtcdStore) -> None:
        self._store = store
        self.written = 0
        self.longest_gap_s = 0.0
        self._revision = ABSENT

    async def write(self, count: int) -> None:
        """Write the next numbers."""
        for _ in range(count):
            began_s = time.monotonic()
            value = str(self.written + 1).encode()
            self._revision = await self._store.compare_and_swap("n", value, self._revision)
            self.written += 1
            self.longest_gap_s = max(self.longest_gap_s, time.monotonic() - began_s)


def kill_follower(cluster: EtcdCluster) -> None:
    cluster.kill(next(n for n in range(cluster.size) if n != cluster.leader()))


def kill_leader(cluster: EtcdCluster) -> None:
    cluster.kill(cluster.leader())


def freeze_leader(cluster: EtcdCluster) -> None:
    cluster.freeze(cluster.leader())


@pytest.mark.parametrize("fault", [kill_follower, kill_leader, freeze_leader])
@pytest.mark.parametrize("at_the_broken_one", [True, False])
async def test_nothing_is_lost_or_told_twice(
    cluster: EtcdCluster, store: EtcdStore, fault: Callable[[EtcdCluster], None], at_the_broken_one: bool
) -> None:
    """While a member is broken writes go on, and a watcher is told of each exactly once, in order."""
    leader = cluster.leader()
    at = leader if at_the_broken_one else (leader + 1) % cluster.size
    while store._client.endpoint != cluster.endpoints[at]:
        store._client.move_on(store._client.endpoint)
    writer = Writer(store)
    try:
        async with store.watch("") as changes:
            await writer.write(WRITES)
            fault(cluster)
            await writer.write(WRITES)
            seen = [(await asyncio.wait_for(anext(changes), 30)).value for _ in range(2 * WRITES)]
            cluster.heal()
            await writer.write(1)
            seen.append((await asyncio.wait_for(anext(changes), 30)).value)
    finally:
        cluster.heal()
    print(f"{fault.__name__}: longest write {writer.longest_gap_s * 1000:.0f} ms")  # noqa: T201
    assert seen == [str(n + 1).encode() for n in range(writer.written)]
    entry = await store.get("n")
    assert entry is not None and entry.value == str(writer.written).encode()


async def test_without_a_majority_a_change_is_refused_and_comes_after_it(
    cluster: EtcdCluster, store: EtcdStore
) -> None:
    """A change that cannot be made says so in time; when the members are back it can be made again."""
    revision = await store.compare_and_swap("a", b"1", ABSENT)
    impatient = new_store(cluster, store._prefix, call_timeout_s=2.0)
    for number in (0, 1):
        cluster.freeze(number)
    try:
        with pytest.raises(StoreUnavailable):
            await impatient.compare_and_swap("a", b"2", revision)
    finally:
        cluster.heal()
    await impatient.close()
    while True:  # what was asked before the freeze may still come through
        entry = await store.get("a")
        assert entry is not None
        try:
            assert await store.compare_and_swap("a", b"3", entry.revision) > revision
        except RevisionConflict:
            continue
        return


async def test_a_change_whose_answer_was_lost_is_known_again(cluster: EtcdCluster, store: EtcdStore) -> None:
    """The second attempt of a change that was made reports the revision of the first, and changes nothing."""
    client = _ForgetsAnswers(EtcdOptions(cluster.endpoints))
    again = EtcdStore(client, store._prefix, owns_client=True)
    async with store.watch("") as changes:
        client.forgets = 1
        revision = await again.compare_and_swap("a", b"1", ABSENT)
        entry = await store.get("a")
        assert entry is not None and entry.revision == revision
        client.forgets = 2
        assert await again.delete("a", revision)
        last = await again.compare_and_swap("end", b"", ABSENT)
        seen = [await asyncio.wait_for(anext(changes), 10) for _ in range(3)]
    assert [(c.key, c.value) for c in seen] == [("a", b"1"), ("a", None), ("end", b"")]
    assert seen[-1].revision == last
    await again.close()


class _ForgetsAnswers(EtcdClient):
    """Loses the answers to some of its calls."""

    forgets = 0

    def channel(self) -> grpc.aio.Channel:
        return _LossyChannel(super().channel(), self)  # type: ignore[return-value]


class _LossyChannel:
    def __init__(self, channel: grpc.aio.Channel, owner: _ForgetsAnswers) -> None:
        self._channel, self._owner = channel, owner

    def unary_unary(self, path: str, **serializers: object) -> object:
        rpc = self._channel.unary_unary(path, **serializers)

        async def call(*args: object, **options: object) -> object:
            answer = await rpc(*args, **options)
            if self._owner.forgets and path.endswith("Txn"):
                self._owner.forgets -= 1
                raise grpc.aio.AioRpcError(
                    grpc.StatusCode.DEADLINE_EXCEEDED, grpc.aio.Metadata(), grpc.aio.Metadata(), "lost"
                )
            return answer

        return call


async def test_a_watcher_that_was_away_while_etcd_forgot_must_list_again(
    cluster: EtcdCluster, store: EtcdStore
) -> None:
    """Compaction of what a watcher has not been told becomes an overflow, and it can watch again."""
    revision = await store.compare_and_swap("a", b"1", ABSENT)
    async with store.watch("") as changes:
        assert store._watch is not None
        await store._watch.stop()
        for number in range(3):
            revision = await store.compare_and_swap("a", str(number).encode(), revision)
        compact = Method("/etcdserverpb.KV/Compact", etcd_pb2.CompactionResponse)
        await store._client.call(compact, etcd_pb2.CompactionRequest(revision=revision, physical=True))
        store._watch.start()
        with pytest.raises(WatchOverflow):
            await asyncio.wait_for(anext(changes), 10)
    async with store.watch("") as changes:
        await store.compare_and_swap("a", b"last", revision)
        assert (await asyncio.wait_for(anext(changes), 10)).value == b"last"


async def test_who_does_not_lead_any_more_changes_nothing(store: EtcdStore) -> None:
    """A store of a former term refuses every change and still reads."""
    key = f"{store._prefix}state/leader".encode()
    first = await store.compare_and_swap("leader", b"me", ABSENT)
    mine = store.fenced(Fence(key, first))
    revision = await mine.compare_and_swap("a", b"1", ABSENT)
    await store.delete("leader")
    with pytest.raises(Fenced):
        await mine.compare_and_swap("a", b"2", revision)
    await store.compare_and_swap("leader", b"somebody else", ABSENT)
    for change in (mine.compare_and_swap("b", b"", ABSENT), mine.delete("a"), mine.delete("a", revision)):
        with pytest.raises(Fenced):
            await change
    entry = await mine.get("a")
    assert entry is not None and entry.value == b"1"
    with pytest.raises(RevisionConflict):
        await store.compare_and_swap("a", b"2", revision + 1)


async def test_a_value_that_etcd_cannot_take_is_refused_before_it_is_sent(store: EtcdStore) -> None:
    """The error says what to do; the largest value that is allowed is stored."""
    with pytest.raises(ValueError, match="import path"):
        await store.compare_and_swap("a", bytes(MAX_VALUE_BYTES + 1), ABSENT)
    await store.compare_and_swap("a", bytes(MAX_VALUE_BYTES), ABSENT)
    assert (await store.list(""))[0].value == bytes(MAX_VALUE_BYTES)


async def test_users_and_passwords() -> None:
    """With authentication on, a store proves itself, gets a new token when its old one is not taken any more,
    and one with a wrong password is told so.
    """
    with start_etcd(1) as cluster:
        plain = EtcdClient(EtcdOptions(cluster.endpoints))
        # Requests for users and roles look the same: two strings.
        for name, first, second in (
            ("UserAdd", "root", "secret"),
            ("RoleAdd", "root", ""),
            ("UserGrantRole", "root", "root"),
            ("AuthEnable", "", ""),
        ):
            method = Method(f"/etcdserverpb.Auth/{name}", etcd_pb2.CompactionResponse)
            await plain.call(method, etcd_pb2.AuthenticateRequest(name=first, password=second))
        await plain.close()
        store = new_store(cluster, user="root", password="secret")
        async with store.watch("") as changes:
            revision = await store.compare_and_swap("a", b"1", ABSENT)
            store._client._token = "made.up"
            await store.compare_and_swap("a", b"2", revision)
            cluster.kill(0)  # it forgets its tokens
            cluster.heal()
            entry = await store.get("a")
            assert entry is not None
            await store.compare_and_swap("a", b"3", entry.revision)
            assert [(await asyncio.wait_for(anext(changes), 10)).value for _ in range(3)] == [
                b"1",
                b"2",
                b"3",
            ]
        await store.close()
        wrong = new_store(cluster, user="root", password="guessed")
        with pytest.raises(StoreRefused, match="authentication failed"):
            await wrong.get("a")
        await wrong.close()


async def test_tls_with_certificates_of_both_ends(tmp_path: Path) -> None:
    """With a certificate that etcd accepts a store works; without one it gets no answer."""
    pytest.importorskip("cryptography", reason="makes the certificates: pip install 'slipknot[tls]'")
    files = Authority.open(tmp_path).issue(tmp_path, Role.MEMBER, hosts=["127.0.0.1"])
    arguments = [f"--cert-file={files.cert}", f"--key-file={files.key}", f"--trusted-ca-file={files.ca}"]
    with start_etcd(1, [*arguments, "--client-cert-auth"]) as cluster:
        ours: dict[str, Any] = {"ca_file": files.ca, "cert_file": files.cert, "key_file": files.key}
        store = new_store(cluster, **ours)
        async with store.watch("") as changes:
            await store.compare_and_swap("a", b"1", ABSENT)
            assert (await asyncio.wait_for(anext(changes), 10)).value == b"1"
        await store.close()
        nobody = EtcdClient(EtcdOptions(cluster.endpoints, ca_file=files.ca))
        with pytest.raises(StoreUnavailable):
            await nobody.call(RANGE, etcd_pb2.RangeRequest(key=b"a"), 0.5)
        await nobody.close()
