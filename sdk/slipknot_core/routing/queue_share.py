"""One caller's part of a deployment's queue: `max_queued_requests` counts over all callers. Pure: the clock
is an argument.

The bound is a number of places, and one replica keeps the account of them (`queue_bank.py` over there). A
caller holds places; each request that waits uses one. It asks for more when a request comes and none is left,
waits for the answer with that request in its queue, and gives back what it does not need.

- Known to be full: refuse at once, and go on wanting, so that a place that gets free comes here in turn.
- Asked and not answered yet: the request stays queued for the moment.
- Not answered for `PATIENCE_S`, the account-keeper is busy: use an equal part of the bound.
- Asked to give back: what waits stays, and nothing new is taken in until there is less.

A place is given back only when nobody has needed it for a while. A request that leaves the queue is sent to a
replica on the chance that it has a slot, and may come back a moment later: its place must still be there, or
it would be refused while the place travels to a caller that has refused its own requests already.
"""

from typing import NamedTuple

PATIENCE_S = 0.5
"""An answer takes a millisecond or two; a replica whose loop is blocked takes longer."""

FIRST_PATIENCE_S = 2.0
"""The same for the first answer: before it nobody knows how many callers there are."""

INTEREST_S = 0.2
"""Places are wanted for so long after the last request that found none."""

SPARE_S = 0.05
"""Places that nobody needed for so long go back."""


class Message(NamedTuple):
    """What the account-keeper is told."""

    given_back: int
    wanted: int


class QueueShare:
    """What one caller holds. `repr` tells the counts.

    Invariant: requests up to `placed` are in the queue for good; those beyond it wait for an answer.
    """

    def __init__(self, waiting: int) -> None:
        self.held = waiting
        self.placed = waiting
        self.callers = 1
        self.asked_back = 0
        self.is_full = False
        self._was_answered = False
        self._wanted = 0
        self._said_wanted = 0
        self._to_give_back = 0
        self._least_spare = 0
        """Places that were not used at any moment since the last tick."""
        self._asked_at_s = 0.0
        self._lacked_at_s = 0.0

    def __repr__(self) -> str:
        full = ", full" if self.is_full else ""
        return f"<QueueShare {self.placed} placed, {self.held} held, {self._wanted} wanted{full}>"

    @property
    def patience_s(self) -> float:
        """How long an answer is waited for."""
        return PATIENCE_S if self._was_answered else FIRST_PATIENCE_S

    def limit(self, bound: int, now_s: float, *, returned: bool = False) -> int:
        """How many requests may wait here now, with a total bound of `bound`; `returned`: the last one was in
        the queue before.
        """
        own = self._own(returned=returned)
        if self.is_full:
            return min(own, bound)
        if self._asked_at_s and now_s - self._asked_at_s >= self.patience_s:
            return min(max(own, -(-bound // self.callers)), bound)
        return bound

    def note(self, waiting: int, bound: int, now_s: float, *, returned: bool = False) -> None:
        """So many wait now, those included that have just come, or have `returned`; decides what is to be
        said.
        """
        self.placed = min(self.placed, waiting)
        lack = waiting - self._own(returned=returned)
        if lack > 0:
            self._lacked_at_s = now_s
            self._wanted = min(max(self._wanted, lack), bound)
        self._least_spare = min(self._least_spare, self.held - waiting)

    def leave(self, waiting: int) -> None:
        """So many wait now: some have left the queue. Where places are asked back, nobody takes theirs."""
        if self.asked_back:
            self.placed = min(self.placed, waiting)

    def settle(self, waiting: int, bound: int, now_s: float, *, returned: bool = False) -> None:
        """So many wait after those too many were refused."""
        is_definite = waiting <= self._own(returned=returned) or self.limit(bound, now_s) < bound
        if is_definite:
            self.placed = waiting

    def tick(self, waiting: int, now_s: float) -> bool:
        """Give up what was not needed since the last tick; False if there is nothing left to look after."""
        idle_s = now_s - self._lacked_at_s
        if idle_s >= INTEREST_S:
            self._wanted, self.is_full = 0, False
        spare = min(self._least_spare, self.held - waiting)
        self._give_back(spare if idle_s >= SPARE_S else min(self.asked_back, spare))
        self._least_spare = self.held - waiting
        return bool(self.held or self._wanted or self._said_wanted)

    def take_message(self, now_s: float) -> Message | None:
        """What is to be said now, if anything. While it is full, a growing wish is told when it has doubled:
        refusing must be cheap.
        """
        grown = self._wanted > self._said_wanted * (2 if self.is_full else 1)
        if not (self._to_give_back or grown or (self._said_wanted and not self._wanted)):
            return None
        message = Message(self._to_give_back, self._wanted)
        if self._wanted > self._said_wanted and not self.is_full:
            self._asked_at_s = self._asked_at_s or now_s
        self._to_give_back, self._said_wanted = 0, self._wanted
        return message

    def answer(self, *, granted: int, ask_back: int, unmet: int, callers: int) -> None:
        """Take an answer: `granted` places more, `ask_back` to be given back, `unmet` still wanted."""
        self._was_answered = True
        self.held += granted
        self.asked_back += ask_back
        self.callers = max(1, callers)
        self._asked_at_s = 0.0
        self._wanted = self._said_wanted = unmet
        self.is_full = unmet > 0

    def _own(self, *, returned: bool) -> int:
        """Places for those that are here and those that come; one that has `returned` may use any."""
        return max(self.held if returned else self.held - self.asked_back, self.placed)

    def _give_back(self, count: int) -> None:
        if count > 0:
            self.held -= count
            self.asked_back = max(0, self.asked_back - count)
            self._to_give_back += count
