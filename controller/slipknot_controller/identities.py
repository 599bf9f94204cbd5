"""Who must not come back: identities that were given up, or that somebody newer has taken over. Pure.

Kept in memory, bounded: what a controller that was replaced has given up is told by versions and epochs.
"""

from collections import OrderedDict

MAX_REMEMBERED = 4096
"""Of each kind; the oldest are forgotten."""


class Departed:
    """Ids that are over for good. `repr` tells how many are remembered."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Departed: {len(self._ids)}>"

    def __contains__(self, identity: str) -> bool:
        return identity in self._ids

    def add(self, identity: str) -> None:
        """It must not come back."""
        self._ids[identity] = None
        while len(self._ids) > MAX_REMEMBERED:
            self._ids.popitem(last=False)


class Incarnations:
    """Which process holds a name: the newest that came; earlier ones have lost it for good."""

    def __init__(self) -> None:
        self._current: dict[str, str] = {}
        self._superseded = Departed()

    def admit(self, name: str, incarnation: str) -> bool:
        """A process claims a name; False if a newer one holds it.

        Args:
            name: For example a node's id.
            incarnation: Drawn by each process when it starts; one without is always admitted.
        """
        if not incarnation:
            return True
        if f"{name} {incarnation}" in self._superseded:
            return False
        before = self._current.get(name, incarnation)
        if before != incarnation:
            self._superseded.add(f"{name} {before}")
        self._current[name] = incarnation
        return True
