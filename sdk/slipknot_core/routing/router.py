"""Finds a replica for each exchange of one deployment: first come, first served.

Everything here happens between two awaits of the loop: no lock, no task, no waiting. `_assign` is the one
place where an exchange meets a replica; it runs whenever an exchange comes, a seat gets free, a reserved slot
or a snapshot arrives, or a time to avoid a replica has passed.

Invariants: `_waiting` holds exactly the QUEUED exchanges, oldest first; it is empty or no replica has a free
seat.
"""

import asyncio
import logging
import math
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from itertools import takewhile

from slipknot_proto.v1 import replica_pb2

from ..errors import (
    BackPressureError,
    DeploymentUnavailableError,
    RequestTimeoutError,
    SlipknotServeException,
)
from ..ids import DeploymentId
from ..rpc.credentials import NO_CREDENTIALS, Credentials
from .choose import choose, sample
from .exchange import Exchange, Seat
from .metrics import RouterCounts
from .replica import FIRST_LOST_AVOID_S, Replica
from .retry import RetryBudget, may_repeat
from .share_link import ShareLink
from .silence import is_silent, prefer_answering
from .snapshot import DeploymentRoute
from .stream import Stream

logger = logging.getLogger("slipknot.serve")

MAX_QUEUED_REQUESTS = 65_536
"""Bound of the queue when `max_queued_requests` is -1."""

MANY_REPLICAS = 16
"""From so many on, a few are looked at first, not all for each request."""

BUSY_BACKOFF_S = 0.025
"""First pause after a refusal without a ticket; doubles up to `MAX_BUSY_BACKOFF_S`."""

MAX_BUSY_BACKOFF_S = 0.5

LOST_LINK_S = 0.5
"""The account of the queue is opened again after this; until then each caller has the whole bound."""

UNKNOWN_LINK_S = 30.0
"""The same where the replica keeps no such accounts."""

Reason = replica_pb2.Refused.Reason
_REASON_NAMES = {number: name.removeprefix("REASON_") for name, number in Reason.items()}


class Router:
    """The callers' side of one deployment. `repr` tells replicas, ongoing and queued."""

    def __init__(
        self,
        deployment_id: DeploymentId,
        *,
        node_id: str = "",
        credentials: Credentials = NO_CREDENTIALS,
        on_waiting: "Callable[[Router], None]" = lambda router: None,
    ) -> None:
        self.deployment_id = deployment_id
        self._on_waiting = on_waiting
        self.counts = RouterCounts()
        self._node_id = node_id
        self._credentials = credentials
        self._route: DeploymentRoute | None = None
        self._gone: SlipknotServeException | None = None
        self._replicas: dict[str, Replica] = {}
        self._pool: tuple[Replica, ...] = ()
        """Of many replicas those on our own node, or all if there are none; empty: there are few."""
        self._retired: set[Replica] = set()
        self._waiting: OrderedDict[Exchange, None] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._is_assigning = False
        self._retries = RetryBudget()
        self._link: ShareLink | None = None
        self._keeper: Replica | None = None
        self._lost_keeper: Replica | None = None
        self._link_again_s = 0.0

    def __repr__(self) -> str:
        counts = f"{len(self._replicas)} replicas, {self.ongoing} ongoing, {len(self._waiting)} queued"
        return f"<Router {self.deployment_id}: {counts}>"

    @property
    def queued(self) -> int:
        """Exchanges without a replica."""
        return len(self._waiting)

    @property
    def is_autoscaled(self) -> bool:
        """The controller wants to know what waits here."""
        return self._route is not None and self._route.autoscaled

    @property
    def has_replicas(self) -> bool:
        """There is a replica in the snapshot."""
        return bool(self._replicas)

    @property
    def ongoing(self) -> int:
        """Exchanges with a replica that is in the snapshot, and tickets in their queues."""
        return sum(replica.ongoing for replica in self._replicas.values())

    # --- what comes in ------------------------------------------------------------------------------

    def submit(self, exchange: Exchange) -> None:
        """Take a new exchange: send it now, queue it, or fail it."""
        self.counts.requests += 1
        if self._gone is not None:
            exchange.fail(self._gone)
            return
        self._retries.count_request(exchange.arrived_s)
        if not self._waiting and self._link is None:
            replica = self._choose(exchange.open, exchange.arrived_s)
            if replica is not None:
                self._send(exchange, replica)
                return
        self._waiting[exchange] = None
        self._assign()
        self._enforce_bound()

    def drop(self) -> BackPressureError | None:
        """Refuse a request that comes while the queue is full, before an exchange is made of it: that must be
        cheap, or refusing takes the time of those that could be served. None: submit it.
        """
        waiting, bound = len(self._waiting), self._bound
        if waiting == 0 or self._gone is not None:
            return None
        link = self._share(bound)
        if waiting < (bound if link is None else link.limit(waiting + 1, bound)):
            return None
        if link is not None:
            link.settle(waiting)
        self.counts.requests += 1
        self.counts.dropped += 1
        return self._backpressure(bound)

    def update(self, route: DeploymentRoute) -> None:
        """Take the deployment's part of a newer snapshot."""
        self._route, self._gone = route, None
        wanted = {replica.replica_id: replica for replica in route.replicas}
        for replica_id in self._replicas.keys() - wanted.keys():
            self._retire(self._replicas.pop(replica_id))
        for replica_id, replica_route in wanted.items():
            known = self._replicas.get(replica_id)
            if known is not None and known.route.address == replica_route.address:
                known.update(replica_route)
                continue
            if known is not None:
                self._retire(known)
            self._replicas[replica_id] = Replica(replica_route, self._credentials, self._assign)
        self._pool = _near_or_all(self._replicas.values(), self._node_id)
        self._check_link()
        if route.unavailable:
            self._fail_all(
                DeploymentUnavailableError(
                    f"Deployment {self.deployment_id} is unavailable because it failed to deploy."
                )
            )
        self._assign()

    def remove(self, error: SlipknotServeException) -> None:
        """The deployment does not exist any more: fail what waits, now and later, with `error`."""
        self._route = None
        self._pool = ()
        while self._replicas:
            self._retire(self._replicas.popitem()[1])
        self._check_link()
        self._fail_all(error)

    async def close(self) -> None:
        """End everything."""
        if self._timer is not None:
            self._timer.cancel()
        if self._link is not None:
            self._link.close()
        self._fail_all(DeploymentUnavailableError("this process is shutting down"))
        await asyncio.gather(*(replica.close() for replica in (*self._replicas.values(), *self._retired)))
        self._replicas.clear()
        self._pool = ()
        self._retired.clear()

    # --- what exchanges report (the `Owner` protocol) -----------------------------------------------

    def on_refused(self, exchange: Exchange, seat: Seat, refused: replica_pb2.Refused) -> None:
        """Queue the exchange again, before all that came later, and keep a ticket at the replica if it gave
        one.
        """
        assert isinstance(seat, Replica)
        stream = exchange.take_stream()
        if stream is None:
            return
        self.counts.refused.add((_reason_name(refused.reason),))
        self._requeue(exchange)
        if refused.waiting:
            seat.hold_ticket(stream)
            seat.tickets[stream].on_reserved = self._on_reserved
            self._assign()
        else:
            stream.listener = None
            self._on_plain_refusal(exchange, seat, refused)
            seat.free(stream)
        self._enforce_bound(returned=True)

    def on_lost(self, exchange: Exchange, seat: Seat, *, is_certain: bool) -> bool:
        """Send the exchange elsewhere if that is right; its replica is avoided for a while."""
        assert isinstance(seat, Replica)
        now_s = time.monotonic()
        if not seat.has_changed_carrier():
            seat.avoid_until_s = max(seat.avoid_until_s, now_s + FIRST_LOST_AVOID_S)
        if not is_certain:
            others = sum(r is not seat and r.avoid_until_s <= now_s for r in self._replicas.values())
            repeatable, attempts = exchange.repeatable, exchange.attempts
            if not may_repeat(repeatable=repeatable, attempts=attempts, others=others):
                return False
            if not self._retries.take(now_s):
                logger.warning("retry_budget_exhausted %s %r", self.deployment_id, self._retries)
                return False
            logger.info("request_repeated %s attempt=%d", exchange.open.request_id, attempts + 1)
        self.counts.retries += 1
        self._requeue(exchange)
        self._assign()
        return True

    def on_closed(self, exchange: Exchange) -> None:
        """Forget a queued exchange that was cancelled or has failed."""
        self._waiting.pop(exchange, None)
        self._count_waiting()

    # --- inside -------------------------------------------------------------------------------------

    def _assign(self) -> None:
        if self._is_assigning:
            return  # a seat got free while we assign: the loop below sees it
        self._is_assigning = True
        try:
            while self._waiting:
                now_s = time.monotonic()
                wanted = next(iter(self._waiting)).open
                replica = self._choose(wanted, now_s)
                if replica is None:
                    self._wake_later(now_s)
                    if self.is_autoscaled:
                        self._on_waiting(self)
                    return
                exchange, _ = self._waiting.popitem(last=False)
                self._send(exchange, replica)
        finally:
            self._is_assigning = False
            self._count_waiting()

    def _send(self, exchange: Exchange, replica: Replica) -> None:
        replica.expect_model(exchange.open.multiplexed_model_id)
        exchange.start(replica.take(exchange.lane), replica)

    def _choose(self, wanted: replica_pb2.Open, now_s: float) -> Replica | None:
        if len(self._replicas) == 1:
            (only,) = self._replicas.values()
            is_free = only.ongoing < only.max_ongoing_requests and only.avoid_until_s <= now_s
            return only if is_free and self._may_ask(only) else None
        model_id, session_id = wanted.multiplexed_model_id, wanted.session_id
        if self._pool and not model_id and not session_id:
            found = sample(self._pool, now_s=now_s, pick=_pick, is_fine=lambda r: self._is_fine(r, now_s))
            if found is not None:
                return found
        return choose(
            self._candidates(now_s),
            node_id=self._node_id,
            now_s=now_s,
            pick=_pick,
            model_id=model_id,
            session_id=session_id,
        )

    def _is_fine(self, replica: Replica, now_s: float) -> bool:
        """As `_candidates` says of one."""
        return not is_silent(replica, now_s) and self._may_ask(replica)

    def _candidates(self, now_s: float) -> tuple[Replica, ...]:
        """The replicas worth asking."""
        answering = prefer_answering(self._replicas.values(), now_s)
        return tuple(r for r in answering if self._may_ask(r))

    def _may_ask(self, replica: Replica) -> bool:
        """One that keeps a ticket for each exchange that waits calls us itself."""
        return len(replica.tickets) < max(1, len(self._waiting))

    def _requeue(self, exchange: Exchange) -> None:
        """Put an exchange back where it stood: those that came before it are few, and all at the front."""
        older = list(takewhile(lambda other: other.arrived_s < exchange.arrived_s, self._waiting))
        self._waiting[exchange] = None
        for first in (exchange, *reversed(older)):
            self._waiting.move_to_end(first, last=False)

    def _on_reserved(self, replica: Replica, stream: Stream) -> None:
        if self._waiting:
            exchange, _ = self._waiting.popitem(last=False)
            exchange.start(stream, replica)
            self._count_waiting()
        else:
            replica.decline(stream)

    def _on_plain_refusal(self, exchange: Exchange, replica: Replica, refused: replica_pb2.Refused) -> None:
        match refused.reason:
            case Reason.REASON_DEADLINE_EXCEEDED:
                exchange.fail(RequestTimeoutError(f"Request {exchange.open.request_id} timed out."))
            case Reason.REASON_CALL_LOOP:
                exchange.fail(
                    SlipknotServeException(
                        f"the calls of request {exchange.open.request_id} go round in a loop: "
                        f"{' > '.join(exchange.open.caller_chain[-4:])} > {self.deployment_id}"
                    )
                )
            case Reason.REASON_DRAINING | Reason.REASON_WRONG_DEPLOYMENT:
                replica.avoid_until_s = math.inf  # the next snapshot is without it
            case _:
                now_s = time.monotonic()
                again = now_s - replica.avoid_until_s < MAX_BUSY_BACKOFF_S
                replica.backoff_s = (
                    min(replica.backoff_s * 2, MAX_BUSY_BACKOFF_S) if again else BUSY_BACKOFF_S
                )
                replica.avoid_until_s = now_s + replica.backoff_s

    @property
    def _bound(self) -> int:
        route = self._route
        return (
            route.max_queued_requests
            if route is not None and route.max_queued_requests >= 0
            else MAX_QUEUED_REQUESTS
        )

    def _enforce_bound(self, *, returned: bool = False) -> None:
        bound = self._bound
        link = self._share(bound)
        limit = bound if link is None else link.limit(len(self._waiting), bound, returned=returned)
        while len(self._waiting) > limit:
            self.counts.dropped += 1
            newest = next(reversed(self._waiting))
            newest.fail(self._backpressure(bound))
        if link is not None:
            link.settle(len(self._waiting), returned=returned)

    def _share(self, bound: int) -> ShareLink | None:
        """The link to the keeper of the queue's account; None while there is none, or no need for it."""
        self._check_link()
        is_needed = self._waiting and self._replicas and bound < MAX_QUEUED_REQUESTS
        if self._link is None and is_needed:
            # All callers have the same snapshot, or soon will: they agree on this one.
            keeper = self._replicas[min(self._replicas)]
            if keeper is self._lost_keeper and time.monotonic() < self._link_again_s:
                return None
            self._keeper = keeper
            self._link = self._keeper.share_queue(len(self._waiting) - 1, self._enforce_bound)
        return self._link

    def _check_link(self) -> None:
        """Forget a link that has ended, or whose replica is not the keeper any more."""
        link, keeper = self._link, self._keeper
        if link is None or keeper is None:
            return
        if not link.has_ended and keeper is self._replicas.get(min(self._replicas, default="")):
            return
        if link.has_ended:
            pause_s = UNKNOWN_LINK_S if link.is_unknown else LOST_LINK_S
            self._lost_keeper, self._link_again_s = keeper, time.monotonic() + pause_s
        link.close()
        self._link = self._keeper = None

    def _count_waiting(self) -> None:
        if self._link is not None:
            self._link.count(len(self._waiting))

    def _backpressure(self, bound: int) -> BackPressureError:
        route = self._route or DeploymentRoute(self.deployment_id)
        return BackPressureError(
            f"Request dropped due to backpressure ({bound} requests to {self.deployment_id} are queued,"
            f" max_queued_requests={bound}).",
            route.backpressure_status_code,
            route.backpressure_retry_after_s,
        )

    def _wake_later(self, now_s: float) -> None:
        """Assign again when the first of the replicas that were avoided at `now_s` may be tried.

        That must be when the choice was made: of a replica that may be tried since, nobody would be told.
        """
        times = [r.avoid_until_s for r in self._replicas.values() if now_s < r.avoid_until_s < math.inf]
        if self._timer is not None:
            self._timer.cancel()
        delay_s = min(times, default=math.inf) - now_s
        self._timer = (
            None if delay_s == math.inf else asyncio.get_running_loop().call_later(delay_s, self._assign)
        )

    def _retire(self, replica: Replica) -> None:
        self._retired = {r for r in self._retired if not r.is_closed}
        self._retired.add(replica)
        replica.retire()

    def _fail_all(self, error: SlipknotServeException) -> None:
        self._gone = error
        while self._waiting:
            exchange, _ = self._waiting.popitem(last=False)
            exchange.fail(error)


def _reason_name(reason: Reason) -> str:
    """As a label; a newer replica may give a reason unknown here."""
    return _REASON_NAMES.get(reason, "UNKNOWN")


def _near_or_all(replicas: Collection[Replica], node_id: str) -> tuple[Replica, ...]:
    if len(replicas) < MANY_REPLICAS:
        return ()
    return tuple(r for r in replicas if node_id and r.node_id == node_id) or tuple(replicas)


def _pick(candidates: Sequence[Replica]) -> Replica:
    return candidates[int(random.random() * len(candidates))]
