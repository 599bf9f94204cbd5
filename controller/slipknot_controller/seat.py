"""The leader's seat in one controller: taken when the leadership is won, left when it is lost.

Each term has a coordinator of its own, made from the store's state: nothing that a former term believed is
carried over. Between the terms this controller is a standby.
"""

import asyncio
import logging
from collections.abc import Callable

from slipknot_core.errors import NotLeaderError
from slipknot_core.tasks import TaskOwner

from .coordinator import Coordinator
from .leadership import Leadership, Term
from .store import Fenced, StoreRefused, StoreUnavailable

logger = logging.getLogger("slipknot.serve")

RETRY_PAUSE_S = 1.0
"""After a term that could not begin, so that another controller may try."""


class Seat:
    """Holds the coordinator of the present term, if this controller leads. `repr` tells.

    Args:
        leadership: How to come to lead; not closed here.
        make: Makes the coordinator of a term.
    """

    def __init__(self, leadership: Leadership, make: Callable[[Term], Coordinator]) -> None:
        self._leadership = leadership
        self._make = make
        self._coordinator: Coordinator | None = None
        self._tasks = TaskOwner("seat")

    def __repr__(self) -> str:
        return f"<Seat: {self._coordinator or 'standby'}>"

    @property
    def coordinator(self) -> Coordinator | None:
        """That of the present term; None on a standby."""
        coordinator = self._coordinator
        return coordinator if coordinator is not None and coordinator.is_leading() else None

    @property
    def leader_address(self) -> str:
        """Where the leader serves, as far as is known; empty: nobody leads."""
        return self._leadership.leader_address

    def leading(self) -> Coordinator:
        """The coordinator of the present term.

        Raises:
            NotLeaderError: This is a standby; the error tells where the leader is.
        """
        coordinator = self.coordinator
        if coordinator is None:
            address = self.leader_address
            where = f"the leader is at {address}" if address else "no controller leads at the moment"
            raise NotLeaderError(f"this controller is a standby; {where}", address)
        return coordinator

    async def start(self) -> None:
        """Work from now on. Without other candidates the first term has begun when this returns; then what
        goes wrong with it is raised.
        """
        term = None
        if self._leadership.is_certain:
            term = await self._leadership.campaign()
            await self._begin(term)
        self._tasks.spawn(self._work(term), "work")

    async def stop(self) -> None:
        """Leave the seat; calling it twice is fine."""
        await self._tasks.stop()
        await self._leave()

    async def _work(self, term: Term | None) -> None:
        while True:
            if term is None:
                term = await self._next_term()
            await term.lost.wait()
            await self._leave()
            term = None

    async def _next_term(self) -> Term:
        while True:
            term = None
            try:
                term = await self._leadership.campaign()
                await self._begin(term)
            except (StoreRefused, StoreUnavailable, Fenced) as error:
                logger.error("Not leading: %s", error)
            except Exception:  # what is stored may be anything; another controller may be able to read it
                logger.exception("The controller could not begin its term.")
            else:
                return term
            if term is not None:
                term.lose("the term could not begin")
            await asyncio.sleep(RETRY_PAUSE_S)

    async def _begin(self, term: Term) -> None:
        coordinator = self._make(term)
        try:
            await coordinator.start()
        except BaseException:
            await coordinator.stop()
            raise
        # Only now: before it has read what is stored it would send every member away as unknown.
        self._coordinator = coordinator

    async def _leave(self) -> None:
        coordinator, self._coordinator = self._coordinator, None
        if coordinator is not None:
            await coordinator.stop()
