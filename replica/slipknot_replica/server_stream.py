"""The serving end of a stream: frames in, frames out, one exchange at a time. What carries it is its wire.

What is legal when:
    idle        open
    ticketed    open (only once the slot is reserved), decline
    exchange    body, ws_message, ws_close, credit, cancel
    just closed whatever the caller sent before it saw the closing reply is ignored; then as idle
Anything else ends the RPC with INVALID_ARGUMENT naming the frame.
"""

import asyncio
from typing import Protocol

from slipknot_core.errors import ProtocolError
from slipknot_core.routing.messages import ReplyFrame
from slipknot_core.tasks import TaskOwner
from slipknot_proto.v1 import replica_pb2
from slipknot_proto.v1.payload_pb2 import CancelReason

from .admission import Admission, Ticket, TicketState
from .metrics import Counters

REFUSE_AFTER_S = 0.002
"""A request that finds no free slot is refused only after this: often one gets free in the meantime."""

MAX_CALLER_CHAIN = 64

Reason = replica_pb2.Refused.Reason
_REASON_NAMES = {number: name.removeprefix("REASON_") for name, number in Reason.items()}


class Running(Protocol):
    """The exchange that a stream carries."""

    @property
    def body_is_complete(self) -> bool:
        """The caller has nothing more to send of the request's body."""

    def start(self) -> None:
        """Run user code; the slot is taken already."""

    def on_frame(self, kind: str, frame: replica_pb2.CallFrame) -> None:
        """Take a body, ws_message, ws_close or credit frame. Raises ProtocolError."""

    def cancel(self, reason: CancelReason, origin: str) -> None:
        """Cancel what runs; idempotent."""


class Host(Protocol):
    """The replica, as its streams see it."""

    admission: Admission
    tasks: TaskOwner
    counters: Counters

    def refusal(self, open_: replica_pb2.Open) -> Reason | None:
        """Why this Open cannot be served here at all, or None."""

    def new_exchange(self, open_: replica_pb2.Open, stream: "ServerStream") -> Running:
        """Make the exchange for an admitted Open. Raises ProtocolError."""


class Wire(Protocol):
    """What carries a stream: an RPC of its own, or a session with others."""

    message_count: int
    """Messages that were taken from what was posted: while it stays the same, what was posted can be added
    to."""

    def post(self, stream: "ServerStream", frame: ReplyFrame) -> None:
        """Send a reply soon, after those posted before."""

    def has_room(self, byte_count: int) -> bool:
        """Count what a producer is about to post; False: it should wait for `room` first."""

    async def room(self) -> None:
        """Wait until what was posted is on its way, or nobody takes it any more."""

    def on_ended(self, stream: "ServerStream") -> None:
        """The caller sends nothing more on the stream and has had its answer."""

    def fail(self, error: ProtocolError) -> None:
        """The caller has broken the protocol: end the RPC."""


class ServerStream:
    """One stream of exchanges. Everything happens between two awaits of the loop."""

    def __init__(self, host: Host, wire: Wire) -> None:
        self._host = host
        self._wire = wire
        self._exchange: Running | None = None
        self._ticket: Ticket | None = None
        self._held_open: replica_pb2.Open | None = None
        self._refuse_timer: asyncio.TimerHandle | None = None
        self._just_closed = False
        self._is_half_closed = False
        self.has_ended = False

    def post(self, frame: ReplyFrame) -> None:
        """Send a reply soon."""
        if not self.has_ended:
            self._wire.post(self, frame)

    @property
    def message_count(self) -> int:
        """As `Wire.message_count`."""
        return self._wire.message_count

    def has_room(self, byte_count: int) -> bool:
        """As `Wire.has_room`."""
        return self.has_ended or self._wire.has_room(byte_count)

    async def room(self) -> None:
        """As `Wire.room`."""
        await self._wire.room()

    def post_closing(self, frame: ReplyFrame, exchange: Running) -> None:
        """Send the closing reply of `exchange`; the stream is idle afterwards."""
        self.post(frame)
        if self._exchange is exchange:
            self._exchange = None
            self._just_closed = True
            if self._is_half_closed:
                self._end()

    # --- for the wire -------------------------------------------------------------------------------

    def lose(self) -> None:
        """The caller is gone: give up what waits and cancel what runs. Twice is fine."""
        self.has_ended = True
        self._drop_ticket()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.cancel(CancelReason.CANCEL_REASON_CALLER_LOST, "replica")

    def on_half_close(self) -> None:
        """The caller sends nothing more. Or it has cancelled: then this comes first, and the cancellation
        next.
        """
        self._is_half_closed = True
        if self._exchange is None:
            self._drop_ticket()
            self._end()
        elif not self._exchange.body_is_complete:
            self._exchange.cancel(CancelReason.CANCEL_REASON_CALLER_LOST, "replica")

    def on_frame(self, frame: replica_pb2.CallFrame) -> None:
        """Take a frame of the caller.

        Raises:
            ProtocolError: It is not legal now.
        """
        kind = frame.WhichOneof("frame")
        if kind == "open":
            self._on_open(frame.open)
        elif kind is None:
            raise ProtocolError("a frame of an unknown kind, or an empty one")
        elif kind == "decline":
            self._drop_ticket()
        elif self._exchange is not None:
            self._on_exchange_frame(kind, frame)
        elif not self._just_closed and kind != "cancel":
            raise ProtocolError(f"frame {kind!r} without a running exchange; begin with 'open'")
        elif kind == "cancel":
            self._drop_ticket()

    # --- inside -------------------------------------------------------------------------------------

    def _end(self) -> None:
        if not self.has_ended:
            self.has_ended = True
            self._wire.on_ended(self)

    def _on_exchange_frame(self, kind: str, frame: replica_pb2.CallFrame) -> None:
        assert self._exchange is not None
        if kind == "cancel":
            self._exchange.cancel(frame.cancel.reason, frame.cancel.origin)
        else:
            self._exchange.on_frame(kind, frame)

    # --- admission ----------------------------------------------------------------------------------

    def _on_open(self, open_: replica_pb2.Open) -> None:
        if self._exchange is not None or self._held_open is not None:
            raise ProtocolError("frame 'open' while an exchange is running on this stream")
        self._just_closed = False
        ticket, self._ticket = self._ticket, None
        if ticket is not None and ticket.state is TicketState.WAITING:
            raise ProtocolError(
                "frame 'open' while this stream waits for a slot; wait for 'slot_reserved' or decline"
            )
        reason = self._host.refusal(open_)
        if reason is not None:
            if ticket is not None:
                self._host.admission.withdraw(ticket)
            self._refuse(reason)
        elif (ticket is not None and self._host.admission.claim(ticket)) or self._host.admission.try_admit():
            self._admit(open_)
        else:
            self._hold(open_)

    def _admit(self, open_: replica_pb2.Open) -> None:
        try:
            self._exchange = self._host.new_exchange(open_, self)
        except ProtocolError:
            self._host.admission.release()
            raise
        self._exchange.start()

    def _hold(self, open_: replica_pb2.Open) -> None:
        """No slot is free: queue for one, and tell the caller if that takes more than a moment."""
        if not open_.wait_for_slot:
            self._refuse(Reason.REASON_BUSY)
            return
        ticket = Ticket(self._on_reserved, self._on_drained)
        if not self._host.admission.enqueue(ticket):
            self._refuse(Reason.REASON_BUSY)
            return
        self._ticket, self._held_open = ticket, open_
        self._refuse_timer = asyncio.get_running_loop().call_later(REFUSE_AFTER_S, self._send_back)

    def _send_back(self) -> None:
        """Refuse what waits for a slot, so that the caller can try elsewhere; its ticket stays."""
        self._held_open = None
        self._refuse(Reason.REASON_BUSY, waiting=True)

    def _on_reserved(self) -> None:
        open_, ticket = self._take_held()
        if open_ is None:
            self.post(replica_pb2.ReplyFrame(slot_reserved=replica_pb2.SlotReserved()))
            return
        self._ticket = None
        assert ticket is not None
        self._host.admission.claim(ticket)
        try:
            self._admit(open_)
        except ProtocolError as error:
            self._wire.fail(error)

    def _on_drained(self) -> None:
        self._take_held()
        self._ticket = None
        self._refuse(Reason.REASON_DRAINING)

    def _take_held(self) -> tuple[replica_pb2.Open | None, Ticket | None]:
        open_, self._held_open = self._held_open, None
        if self._refuse_timer is not None:
            self._refuse_timer.cancel()
            self._refuse_timer = None
        return open_, self._ticket

    def _drop_ticket(self) -> None:
        _, ticket = self._take_held()
        self._ticket = None
        if ticket is not None:
            self._host.admission.withdraw(ticket)

    def _refuse(self, reason: Reason, *, waiting: bool = False) -> None:
        admission = self._host.admission
        self._host.counters.refused.add((_REASON_NAMES[reason],))
        refused = replica_pb2.Refused(
            reason=reason, ongoing=admission.ongoing, max_ongoing=admission.max_ongoing, waiting=waiting
        )
        self.post(replica_pb2.ReplyFrame(refused=refused))
