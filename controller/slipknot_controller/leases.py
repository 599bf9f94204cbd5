"""The streams of the replicas that are here: its lease, and the way to tell it something."""

from dataclasses import dataclass, field

from slipknot_core.spec import DeploymentSpec

from .outbox import Outbox


@dataclass(frozen=True, slots=True)
class DrainOrder:
    """Finish, then exit."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class ReconfigureOrder:
    """Take over new options."""

    spec: DeploymentSpec


Order = DrainOrder | ReconfigureOrder


@dataclass(eq=False, slots=True)
class Lease:
    """One connection of one replica."""

    replica_id: str
    outbox: Outbox[Order] = field(default_factory=Outbox)


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

    def close(self) -> None:
        """End all leases; calling it twice is fine."""
        for lease in self._leases.values():
            lease.outbox.close()
