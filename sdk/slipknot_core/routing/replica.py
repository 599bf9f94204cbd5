"""A replica as its callers see it: a channel, a pool of streams, and how many requests of this process it
has.
"""

import asyncio
import math
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import grpc.aio

from slipknot_proto.v1 import replica_pb2, replica_pb2_grpc

from ..rpc.channel import new_channel, token_metadata
from ..rpc.credentials import Credentials
from ..settings import rpc_settings
from ..tasks import TaskOwner, python_task
from .session import Session
from .share_link import ShareLink
from .silence import is_silent
from .snapshot import ReplicaRoute
from .stream import CallStream, Lane, Stream

MAX_IDLE_STREAMS = 256
"""Idle streams with a gRPC stream of their own kept for each replica; above it they are closed after use."""

MAX_IDLE_SHARED = 4096
"""The same for streams of a session, which cost next to nothing."""

CARRIER_CHANGE_S = 0.5
"""So long after a replica turned out to know no sessions, it is not to blame for exchanges that come back."""

EXPECT_MODEL_S = 5.0
"""A model that was asked for is taken to be there for so long, until the replica's own report has come."""

MAX_EXPECTED_MODELS = 1024


FIRST_LOST_AVOID_S = 0.25
"""A replica whose connection broke gets nothing new for so long, unless the controller removes it first; the
time doubles, up to `MAX_LOST_AVOID_S`, until it is heard again.
"""

MAX_LOST_AVOID_S = 2.0

_SERVICE = replica_pb2.DESCRIPTOR.services_by_name["ReplicaService"].full_name


class Replica:
    """One replica with its connection. `repr` tells what it has of ours.

    Invariant: each of `ongoing` is a sent exchange or a ticket, and each returns by `free` exactly once.
    """

    def __init__(self, route: ReplicaRoute, credentials: Credentials, on_free: Callable[[], None]) -> None:
        self.route = route
        self.ongoing = 0
        self.avoid_until_s = 0.0
        self.backoff_s = 0.0
        self.unanswered_since_s = 0.0
        """When it was first sent something after its last word; 0 if it owes us nothing."""
        self.tickets: dict[Stream, Ticket] = {}
        self._on_free = on_free
        self._lost_avoid_s = FIRST_LOST_AVOID_S
        self._metadata = token_metadata(credentials)
        self._tasks = TaskOwner(f"replica {route.replica_id}")
        self._channel = new_channel(route.address, credentials, rpc_settings().for_data_path())
        self._stub = replica_pb2_grpc.ReplicaServiceStub(self._channel)
        self._new_call = _writes_bytes(self._channel, "Call", replica_pb2.CallResponse)
        self._new_session = _writes_bytes(self._channel, "Session", replica_pb2.SessionResponse)
        self.model_ids: Collection[str] = route.model_ids
        self._expected_models: dict[str, float] = {}
        self._carrier = rpc_settings().carrier
        self._carrier_changed_s = -math.inf
        self._sessions: dict[Lane, Session] = {}
        self._idle: dict[Lane, list[Stream]] = {lane: [] for lane in Lane}
        self._is_retired = False
        self._closing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        idle = sum(map(len, self._idle.values()))
        return f"<Replica {self.replica_id}: {self.ongoing} ongoing, {idle} idle streams>"

    @property
    def is_closed(self) -> bool:
        """`close` has finished."""
        return self._closing is not None and self._closing.done()

    @property
    def replica_id(self) -> str:
        """The replica's id."""
        return self.route.replica_id

    @property
    def node_id(self) -> str:
        """The node it runs on."""
        return self.route.node_id

    @property
    def max_ongoing_requests(self) -> int:
        """Its bound, for all callers together."""
        return self.route.max_ongoing_requests

    def update(self, route: ReplicaRoute) -> None:
        """Take what a newer snapshot says of it."""
        self.route = route
        self._forget_models()

    def expect_model(self, model_id: str) -> None:
        """A request for a model goes there, so it will soon hold it: the next ones are to follow at once."""
        if model_id and model_id not in self.model_ids:
            if len(self._expected_models) < MAX_EXPECTED_MODELS:
                self._expected_models[model_id] = time.monotonic() + EXPECT_MODEL_S
            self._forget_models()

    def take(self, lane: Lane) -> Stream:
        """Take a seat and a stream for it."""
        self.ongoing += 1
        if self.unanswered_since_s == 0.0:
            self.unanswered_since_s = time.monotonic()
        if self._carrier == "call":
            lane = Lane.ALONE
        elif self._carrier == "session" and lane is Lane.ALONE:
            lane = Lane.SHORT
        idle = self._idle[lane]
        return idle.pop() if idle else self._new_stream(lane)

    def free(self, stream: Stream | None) -> None:
        """Give a seat back, with its stream if that can carry another exchange."""
        self.ongoing -= 1
        if self.ongoing == 0:
            self.unanswered_since_s = 0.0
        if stream is not None and not stream.has_ended:
            self._keep(stream)
        if self._is_retired and self.ongoing == 0:
            self._close_soon()
        if stream is None:
            # Cancelled or lost. What is cancelled in the same moment must leave the queue before it is sent.
            asyncio.get_running_loop().call_soon(self._on_free)
        else:
            self._on_free()

    def share_queue(self, waiting: int, on_news: Callable[[], None]) -> ShareLink:
        """Have the replica keep the account of the deployment's queue, in which `waiting` of ours are."""
        return ShareLink(self._stub.ShareQueue(metadata=self._metadata), self._tasks, waiting, on_news)

    def has_changed_carrier(self) -> bool:
        """It was found just now that it knows no sessions: what was sent in one can be sent again at once."""
        return time.monotonic() - self._carrier_changed_s < CARRIER_CHANGE_S

    def hold_ticket(self, stream: Stream) -> None:
        """Keep the seat of a refused exchange: its stream waits in the replica's queue for a slot."""
        self.tickets[stream] = stream.listener = Ticket(self, stream)

    def decline(self, stream: Stream) -> None:
        """Give up a ticket; the replica then expects the next Open on its stream."""
        self.tickets.pop(stream, None)
        stream.listener = None
        stream.post(replica_pb2.CallFrame(decline=replica_pb2.Decline()))
        self.free(stream)

    def retire(self) -> None:
        """It has left the snapshot: close when the last of our requests there has ended."""
        self._is_retired = True
        for stream in list(self.tickets):
            self.decline(stream)
        if self.ongoing == 0:
            self._close_soon()

    async def close(self) -> None:
        """Close everything at once; twice is fine."""
        self._is_retired = True
        for idle in self._idle.values():
            while idle:
                idle.pop().discard()
        for session in tuple(self._sessions.values()):
            await session.close()
        await self._channel.close(None)
        await self._tasks.stop()

    def _forget_models(self) -> None:
        now_s, expected = time.monotonic(), self._expected_models
        self._expected_models = {model: until_s for model, until_s in expected.items() if until_s > now_s}
        self.model_ids = self.route.model_ids.union(self._expected_models)

    def _close_soon(self) -> None:
        if self._closing is None:
            self._closing = python_task(self.close(), f"close {self.replica_id}")

    def _keep(self, stream: Stream) -> None:
        idle = self._idle_of(stream)
        bound = MAX_IDLE_STREAMS if stream.lane is Lane.ALONE else MAX_IDLE_SHARED
        if self._is_retired or len(idle) >= bound:
            stream.discard()
        else:
            idle.append(stream)

    def _new_stream(self, lane: Lane) -> Stream:
        session = self._sessions.get(lane)
        if lane is Lane.ALONE or (session is not None and session.is_full):
            call = self._new_call(metadata=self._metadata)
            return CallStream(call, self._tasks, self._stream_ended, self._heard)
        if session is None:
            call = self._new_session(metadata=self._metadata)
            ended = partial(self._session_ended, lane)
            session = self._sessions[lane] = Session(call, self._tasks, lane, ended, self._heard)
        return session.new_stream(self._stream_ended)

    def _heard(self) -> None:
        if self.unanswered_since_s != 0.0:
            was_silent = is_silent(self, time.monotonic())
            self.unanswered_since_s, self._lost_avoid_s = 0.0, FIRST_LOST_AVOID_S
            if was_silent:
                asyncio.get_running_loop().call_soon(self._on_free)

    def _stream_ended(self, stream: Stream) -> None:
        idle = self._idle_of(stream)
        if stream in idle:
            idle.remove(stream)
        if stream.was_lost:
            self._was_lost()

    def _idle_of(self, stream: Stream) -> list[Stream]:
        return self._idle[stream.lane]

    def _session_ended(self, lane: Lane, is_unknown: bool) -> None:
        del self._sessions[lane]
        self._idle[lane].clear()  # all of them were its own
        if is_unknown:
            self._carrier = "call"
            self._carrier_changed_s = time.monotonic()

    def _was_lost(self) -> None:
        now_s = time.monotonic()
        if self.avoid_until_s <= now_s:
            self.avoid_until_s = now_s + self._lost_avoid_s
            self._lost_avoid_s = min(self._lost_avoid_s * 2, MAX_LOST_AVOID_S)


def _writes_bytes(channel: grpc.aio.Channel, method: str, response: type) -> Callable[..., Any]:
    """A method of the stub whose requests were put together already, see `messages`."""
    multi_callable: Callable[..., Any] = channel.stream_stream(
        f"/{_SERVICE}/{method}",
        request_serializer=None,
        response_deserializer=response.FromString,  # type: ignore[attr-defined]
    )
    return multi_callable


class Ticket:
    """Listens on a stream that waits for a slot. `on_reserved` is set by the router."""

    def __init__(self, replica: Replica, stream: Stream) -> None:
        self._replica = replica
        self._stream = stream
        self.on_reserved: Callable[[Replica, Stream], None] | None = None

    def on_frame(self, frame: replica_pb2.ReplyFrame) -> None:
        """The slot is reserved, or the replica does not want us any more."""
        if frame.WhichOneof("frame") == "slot_reserved" and self.on_reserved is not None:
            self._replica.tickets.pop(self._stream, None)
            self.on_reserved(self._replica, self._stream)
        elif frame.WhichOneof("frame") == "refused":
            self._replica.tickets.pop(self._stream, None)
            self._stream.listener = None
            self._replica.free(self._stream)

    def on_end(self, error: grpc.aio.AioRpcError | None) -> None:
        """The stream broke while it waited: nothing was running."""
        self._replica.tickets.pop(self._stream, None)
        self._replica.free(None)
