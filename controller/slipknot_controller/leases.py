"""The streams of the replicas that are here: its lease, and the way to tell it something."""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from slipknot_core.spec import DeploymentSpec

from .outbox import Outbox

logger = logging.getLogger("slipknot.serve")


@dataclass(frozen=True, slots=True)
class DrainOrder:
    """Finish, then exit."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class ReconfigureOrder:
    """Take over new options."""

    spec: DeploymentSpec


@dataclass(frozen=True, slots=True)
class ProveAliveOrder:
    """Answer."""


Order = DrainOrder | ReconfigureOrder | ProveAliveOrder


@dataclass(eq=False, slots=True)
class Lease:
    """One connection of one replica."""

    replica_id: str
    outbox: Outbox[Order] = field(default_factory=Outbox)
    heard_at_s: float = field(default_factory=time.monotonic)


class Leases:
    """Open leases by replica; of two for one replica the newer counts. `repr` tells how many there are."""

    def __init__(self) -> None:
        self._leases: dict[str, Lease] = {}

    def __repr__(self) -> str:
        return f"<Leases: {len(self._leases)} open>"

    def open(self, replica_id: str) -> Lease:
        """Begin a lease; an earlier one of the same replica ends without further notice."""
        before = self._leases.get(replica_id)
        if before is not None:
            before.outbox.close()
        lease = self._leases[replica_id] = Lease(replica_id)
        return lease

    def end(self, lease: Lease) -> bool:
        """End a lease; False if a newer one has taken its place."""
        lease.outbox.close()
        if self._leases.get(lease.replica_id) is not lease:
            return False
        del self._leases[lease.replica_id]
        return True

    def send(self, replica_id: str, order: Order) -> None:
        """Tell a replica something; lost if it has no lease."""
        lease = self._leases.get(replica_id)
        if lease is not None:
            lease.outbox.put(order)

    def challenge(self, replica_ids: Iterable[str], is_watched: Callable[[str], bool]) -> Callable[[], None]:
        """Ask replicas to answer; call what is returned a while later: it ends the leases of those that have
        not, unless a node watches over them by then: a replica whose loop is blocked cannot answer.
        """
        asked = [self._leases[replica_id] for replica_id in replica_ids if replica_id in self._leases]
        asked_at_s = time.monotonic()
        for lease in asked:
            lease.outbox.put(ProveAliveOrder())

        def end_the_silent() -> None:
            for lease in asked:
                if lease.heard_at_s < asked_at_s and not is_watched(lease.replica_id):
                    logger.warning("Replica %s does not answer.", lease.replica_id)
                    lease.outbox.close()  # which ends its stream, and with it the lease

        return end_the_silent

    def close(self) -> None:
        """End all leases; calling it twice is fine."""
        for lease in self._leases.values():
            lease.outbox.close()
