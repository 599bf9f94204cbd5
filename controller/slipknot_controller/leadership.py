"""Who may act: one controller of a cluster at a time, for a term.

With etcd a controller leads while it holds a lease that is bound to the leader's key. The revision at which
it won is the term's mark: it grows from term to term, all changes to the store are made on the condition that
the key still bears it, and the epoch that members see is derived from it.

What is promised: a leader stops acting before its lease can lapse (`Term.is_held`, measured from before the
renewal was sent, on the monotonic clock, less a margin). What is not: that a process which was frozen right
after it looked at the clock does nothing when it wakes up. Therefore the store refuses it, and members refuse
commands of a smaller epoch than they have seen.
"""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Callable
from typing import Protocol

from slipknot_core.ids import short_id
from slipknot_core.tasks import TaskOwner
from slipknot_proto.etcd.v1 import etcd_pb2

from .store import EtcdClient, EtcdStore, Fence, StateStore, StoreRefused, StoreUnavailable
from .store.etcd_client import LEASE_GRANT, LEASE_REVOKE, RANGE, TXN
from .store.etcd_watch import EtcdWatch

logger = logging.getLogger("slipknot.serve")

LEASE_TTL_S = 2
"""The shortest that etcd grants with its default timing. A dead leader is replaced after at most this and
half a second, the pace at which etcd looks for lapsed leases."""
RENEW_PERIOD_S = 0.5
MARGIN_S = 0.25
"""A leader stops acting so long before its lease may lapse."""
LOOK_AGAIN_S = 2.0
"""A candidate reads the leader's key so often, whatever the watch has told."""
RETRY_PAUSE_S = 0.2
"""Between attempts to become leader while etcd does not answer."""
RESIGN_TIMEOUT_S = 1.0


class Term:
    """A time in which this controller leads. `repr` tells its mark and whether it has ended.

    Args:
        revision: Its mark, larger than that of every term before; 0 where there is one controller only.
        store: To be used in this term; refuses changes once another one has begun.
        expires_s: When it ends unless it is extended, on the monotonic clock; None: never.
        clock: The monotonic clock.
    """

    def __init__(
        self,
        revision: int,
        store: StateStore,
        *,
        expires_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.revision = revision
        self.store = store
        self.lost = asyncio.Event()
        """It has ended."""
        self._expires_s = expires_s
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._schedule()

    def __repr__(self) -> str:
        return f"<Term {self.revision}{'' if self.is_held() else ' (ended)'}>"

    def is_held(self) -> bool:
        """This controller may act now."""
        if self.lost.is_set():
            return False
        if self._expires_s is not None and self._clock() >= self._expires_s:
            self.lose("its lease was not renewed in time")  # this process was held up, so was the timer
            return False
        return True

    def extend(self, expires_s: float) -> None:
        """The lease was renewed; without effect on a term that has ended."""
        if self.is_held():
            self._expires_s = expires_s
            self._schedule()

    def lose(self, reason: str) -> None:
        """End it; calling it twice is fine."""
        if not self.lost.is_set():
            logger.warning("Leadership ended: %s.", reason)
            self.end()

    def end(self) -> None:
        """End it in order."""
        self.lost.set()
        if self._timer is not None:
            self._timer.cancel()

    def left_s(self) -> float:
        """Seconds until it ends by itself."""
        return float("inf") if self._expires_s is None else max(0.0, self._expires_s - self._clock())

    def _schedule(self) -> None:
        if self._expires_s is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self.left_s() + 0.001, self.is_held)


class Leadership(Protocol):
    """How a controller comes to lead."""

    is_certain: bool
    """There is no other candidate: `campaign` returns at once."""

    @property
    def leader_address(self) -> str:
        """Where the leader serves, as far as is known; empty: there is none."""
        ...

    async def campaign(self) -> Term:
        """Wait until this controller leads.

        Raises:
            StoreRefused: It never will: the store does not accept it.
        """
        ...

    async def close(self) -> None:
        """Let another one lead; calling it twice is fine."""
        ...


class OnlyController:
    """A `Leadership` without another candidate: the store is ours alone."""

    is_certain = True

    def __init__(self, store: StateStore, address: str) -> None:
        self._store = store
        self._address = address

    @property
    def leader_address(self) -> str:
        """As `Leadership.leader_address`."""
        return self._address

    async def campaign(self) -> Term:
        """As `Leadership.campaign`."""
        return Term(0, self._store)

    async def close(self) -> None:
        """As `Leadership.close`."""


class EtcdElection:
    """A `Leadership` by a lease in etcd. `repr` tells who leads.

    Args:
        client: Not closed here.
        store: The cluster's; terms get it fenced.
        prefix: Of the cluster's keys, ending in "/".
        address: Where this controller serves, for those who look for the leader.
        ttl_s: Of the lease.
    """

    is_certain = False

    def __init__(
        self, client: EtcdClient, store: EtcdStore, prefix: str, address: str, *, ttl_s: int = LEASE_TTL_S
    ) -> None:
        self._client = client
        self._store = store
        self._key = f"{prefix}leader".encode()
        self._address = address
        self._id = short_id()
        self._ttl_s = ttl_s
        self._leader_address = ""
        self._changed = asyncio.Event()
        self._tasks = TaskOwner("election")
        self._watch: EtcdWatch | None = None
        self._term: Term | None = None
        self._lease_id = 0

    def __repr__(self) -> str:
        return f"<EtcdElection of {self._address}: {self._leader_address or 'nobody'} leads>"

    @property
    def leader_address(self) -> str:
        """As `Leadership.leader_address`."""
        return self._leader_address

    async def campaign(self) -> Term:
        """As `Leadership.campaign`."""
        await self._drop_lease()
        is_told = False
        while True:
            try:
                term = await self._try()
                is_told = False
            except StoreUnavailable as error:
                if not is_told:
                    logger.warning("Not leading: %s", error)
                is_told, self._leader_address = True, ""
                await asyncio.sleep(RETRY_PAUSE_S)
                continue
            if term is not None:
                return term
            try:
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def close(self) -> None:
        """As `Leadership.close`."""
        if self._term is not None:
            self._term.end()
        if self._watch is not None:
            await self._watch.stop()
        await self._tasks.stop()
        await self._drop_lease()

    # --- inside -------------------------------------------------------------------------------------

    async def _try(self) -> Term | None:
        """Become leader if nobody is."""
        self._changed.clear()
        answer = (await self._client.call(RANGE, etcd_pb2.RangeRequest(key=self._key))).message
        if self._watch is None:
            revision = answer.header.revision + 1
            self._watch = EtcdWatch(self._client, self._key, revision, self._on_event, self._changed.set)
            self._watch.start()
        if answer.kvs:
            self._note_leader(answer.kvs[0])
            return None
        self._leader_address = ""
        began_s = time.monotonic()
        lease_id = secrets.randbits(62) + 1
        try:
            grant = etcd_pb2.LeaseGrantRequest(TTL=self._ttl_s, ID=lease_id)
            ttl_s = (await self._client.call(LEASE_GRANT, grant)).message.TTL
        except StoreRefused as error:
            if "already exists" not in str(error):
                raise
            return None  # by an attempt whose answer was lost; it lapses, and the next one has another id
        self._lease_id = lease_id
        revision = await self._put_key(lease_id)
        if not revision:
            await self._drop_lease()
            return None
        fence = Fence(self._key, revision)
        term = Term(revision, self._store.fenced(fence), expires_s=began_s + ttl_s - MARGIN_S)
        self._term, self._leader_address = term, self._address
        self._tasks.spawn(self._hold(term, lease_id), "hold")
        logger.info("Leading (term %d, lease of %d s).", revision, ttl_s)
        return term

    async def _put_key(self, lease_id: int) -> int:
        """Set the leader's key if there is none; returns the revision at which that was done, or 0."""
        value = json.dumps({"address": self._address, "id": self._id}).encode()
        request = etcd_pb2.TxnRequest(
            compare=[etcd_pb2.Compare(target=etcd_pb2.Compare.CREATE, key=self._key, create_revision=0)],
            success=[
                etcd_pb2.RequestOp(
                    request_put=etcd_pb2.PutRequest(key=self._key, value=value, lease=lease_id)
                )
            ],
            failure=[etcd_pb2.RequestOp(request_range=etcd_pb2.RangeRequest(key=self._key))],
        )
        answer = (await self._client.call(TXN, request)).message
        if answer.succeeded:
            return int(answer.header.revision)
        kvs = answer.responses[0].response_range.kvs
        if kvs and kvs[0].lease == lease_id:
            return int(kvs[0].create_revision)  # set by an attempt whose answer was lost
        if kvs:
            self._note_leader(kvs[0])
        return 0

    async def _hold(self, term: Term, lease_id: int) -> None:
        """Renew the lease until the term has ended."""
        while term.is_held():
            await asyncio.sleep(RENEW_PERIOD_S)
            sent_s = time.monotonic()
            try:
                ttl_s = await self._client.keep_alive(lease_id, term.left_s())
            except StoreUnavailable as error:
                logger.debug("lease_not_renewed %s", error)
                continue
            except StoreRefused as error:
                term.lose(str(error))
                return
            if ttl_s <= 0:
                term.lose("its lease has lapsed")
            term.extend(sent_s + ttl_s - MARGIN_S)

    def _on_event(self, event: etcd_pb2.Event) -> None:
        if event.kv.key != self._key:
            return
        self._changed.set()
        is_put = event.type == etcd_pb2.Event.EventType.PUT
        if is_put:
            self._note_leader(event.kv)
        else:
            self._leader_address = ""
        term = self._term
        if term is not None and event.kv.mod_revision > term.revision:
            term.lose("another controller was elected" if is_put else "the leader's key is gone")

    def _note_leader(self, kv: etcd_pb2.KeyValue) -> None:
        try:
            self._leader_address = str(json.loads(kv.value)["address"])
        except (ValueError, KeyError, TypeError):
            self._leader_address = ""

    async def _drop_lease(self) -> None:
        lease_id, self._lease_id = self._lease_id, 0
        if not lease_id:
            return
        try:
            await self._client.call(LEASE_REVOKE, etcd_pb2.LeaseRevokeRequest(ID=lease_id), RESIGN_TIMEOUT_S)
        except (StoreUnavailable, StoreRefused) as error:
            logger.debug("lease_not_revoked %s", error)  # it has lapsed, or will
