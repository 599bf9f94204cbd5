"""Who runs now: `max_ongoing_requests` slots, and a first-come queue of tickets for those who wait. Pure but
for timers.

Invariants: `ongoing + reserved <= max_ongoing` (unless the bound was lowered meanwhile); tickets wait only
while no slot is free.
"""

import asyncio
import enum
from collections import OrderedDict
from collections.abc import Callable

RESERVATION_S = 1.0
"""How long a slot is held for a ticket whose turn it is."""

MAX_TICKETS = 4096
"""Waiting streams of all callers together; beyond it a caller is refused without a ticket."""


class TicketState(enum.Enum):
    """Where a ticket stands."""

    WAITING = "waiting"
    RESERVED = "reserved"
    OVER = "over"


class Ticket:
    """A place in the queue. `on_reserved` is called when its turn has come, `on_refused` when the replica
    drains.
    """

    def __init__(self, on_reserved: Callable[[], None], on_refused: Callable[[], None]) -> None:
        self.state = TicketState.WAITING
        self.on_reserved = on_reserved
        self.on_refused = on_refused
        self.timer: asyncio.TimerHandle | None = None


class Admission:
    """The slots of one replica. All callers share them; `repr` tells the counts."""

    def __init__(self, max_ongoing: int) -> None:
        self.max_ongoing = max_ongoing
        self.ongoing = 0
        self.reserved = 0
        self.is_draining = False
        self.on_change: Callable[[], None] = lambda: None
        self._tickets: OrderedDict[Ticket, None] = OrderedDict()

    def __repr__(self) -> str:
        slots = f"{self.ongoing} of {self.max_ongoing} ongoing, {self.reserved} reserved"
        return f"<Admission {slots}, {self.waiting} waiting>"

    @property
    def waiting(self) -> int:
        """Tickets in the queue."""
        return len(self._tickets)

    @property
    def is_idle(self) -> bool:
        """Nothing runs and no slot is reserved."""
        return self.ongoing == 0 and self.reserved == 0

    def try_admit(self) -> bool:
        """Take a slot if one is free; those with a ticket come first."""
        if self.is_draining or self.ongoing + self.reserved >= self.max_ongoing:
            return False
        self.ongoing += 1
        self.on_change()
        return True

    def enqueue(self, ticket: Ticket) -> bool:
        """Put a ticket at the end of the queue; False if the queue is full or the replica drains."""
        if self.is_draining or len(self._tickets) >= MAX_TICKETS:
            return False
        self._tickets[ticket] = None
        self.on_change()
        return True

    def claim(self, ticket: Ticket) -> bool:
        """Turn a reserved slot into a taken one; False if the reservation is over."""
        if ticket.state is not TicketState.RESERVED:
            return False
        self._end(ticket)
        self.reserved -= 1
        self.ongoing += 1
        return True

    def withdraw(self, ticket: Ticket) -> None:
        """Give up a ticket or its reserved slot; afterwards a no-op."""
        was_reserved = ticket.state is TicketState.RESERVED
        self._tickets.pop(ticket, None)
        self._end(ticket)
        if was_reserved:
            self.reserved -= 1
        self._advance()

    def release(self) -> None:
        """Give a slot back. Synchronous, so that nothing can come between the end of user code and this."""
        self.ongoing -= 1
        self._advance()

    def resize(self, max_ongoing: int) -> None:
        """Change the bound; those who run above a smaller one finish."""
        self.max_ongoing = max_ongoing
        self._advance()

    def drain(self) -> None:
        """Admit nobody any more and turn away those who wait."""
        self.is_draining = True
        while self._tickets:
            ticket, _ = self._tickets.popitem(last=False)
            self._end(ticket)
            ticket.on_refused()
        self.on_change()

    def _advance(self) -> None:
        while self._tickets and self.ongoing + self.reserved < self.max_ongoing:
            ticket, _ = self._tickets.popitem(last=False)
            ticket.state = TicketState.RESERVED
            self.reserved += 1
            ticket.timer = asyncio.get_running_loop().call_later(RESERVATION_S, self.withdraw, ticket)
            ticket.on_reserved()
        self.on_change()

    def _end(self, ticket: Ticket) -> None:
        ticket.state = TicketState.OVER
        if ticket.timer is not None:
            ticket.timer.cancel()
