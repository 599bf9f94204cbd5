"""The account of a deployment's queue: how many of its `max_queued_requests` places each caller holds. Pure.

One replica keeps it: the one with the smallest id in the snapshot, which all callers agree on. Places are
never taken away: a caller that holds more than its part is asked for some, and gives them back as its
requests leave the queue. So the sum stays within the bound, except right after the account has moved to
another replica: then callers declare what they hold already.

Invariant: the places held and those on their way to a caller are at most the bound, or no place is granted.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple


class Answer(NamedTuple):
    """What a caller is told."""

    granted: int
    ask_back: int
    unmet: int


@dataclass(eq=False, slots=True)
class _Account:
    held: int = 0
    wanted: int = 0
    asked_back: int = 0


class QueueBank:
    """All callers' places. `repr` tells the sum."""

    def __init__(self) -> None:
        self.bound = 0
        self._accounts: dict[Hashable, _Account] = {}

    def __repr__(self) -> str:
        return f"<QueueBank {self.held} of {self.bound} places held by {len(self._accounts)} callers>"

    @property
    def held(self) -> int:
        """Places of all callers."""
        return sum(account.held for account in self._accounts.values())

    @property
    def callers(self) -> int:
        """How many there are."""
        return len(self._accounts)

    def update(
        self, caller: Hashable, *, declared: int = 0, given_back: int = 0, wanted: int, bound: int
    ) -> dict[Hashable, Answer]:
        """Take what a caller says, and return what is to be said to whom.

        Args:
            caller: Who; the first time opens an account.
            declared: Places it holds from before, the first time.
            given_back: Places it needs no more.
            wanted: Places it would like to have besides those it holds.
            bound: `max_queued_requests`, as the caller knows it.
        """
        account = self._accounts.get(caller)
        if account is None:
            account = self._accounts[caller] = _Account(held=declared)
        account.held = max(0, account.held - given_back)
        account.asked_back = max(0, account.asked_back - given_back)
        account.wanted = min(wanted, bound)
        self.bound = bound
        answers = self._distribute()
        if wanted and caller not in answers:
            answers[caller] = Answer(0, 0, account.wanted)
        return answers

    def close(self, caller: Hashable) -> dict[Hashable, Answer]:
        """A caller is gone, with all it held; returns what is to be said to whom."""
        self._accounts.pop(caller, None)
        return self._distribute()

    # --- inside -------------------------------------------------------------------------------------

    def _distribute(self) -> dict[Hashable, Answer]:
        granted: dict[Hashable, int] = {}
        free = self.bound - self.held
        while free > 0 and (wanting := [item for item in self._accounts.items() if item[1].wanted]):
            caller, poorest = min(wanting, key=lambda item: item[1].held)
            poorest.held += 1
            poorest.wanted -= 1
            granted[caller] = granted.get(caller, 0) + 1
            free -= 1
        asked = self._ask_back()
        return {
            caller: Answer(granted.get(caller, 0), asked.get(caller, 0), self._accounts[caller].wanted)
            for caller in granted.keys() | asked.keys()
        }

    def _ask_back(self) -> dict[Hashable, int]:
        """Who is asked for how many, so that those who want get an equal part."""
        active = [account for account in self._accounts.values() if account.held or account.wanted]
        part = self.bound // max(1, len(active))
        lacking = sum(min(account.wanted, max(0, part - account.held)) for account in active)
        lacking -= sum(account.asked_back for account in active)
        asked: dict[Hashable, int] = {}
        for caller, account in self._accounts.items():
            count = min(lacking, account.held - account.asked_back - max(part, 1))
            if count > 0:
                account.asked_back += count
                asked[caller] = count
                lacking -= count
        return asked
