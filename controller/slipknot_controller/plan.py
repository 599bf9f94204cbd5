"""From desired and observed state to actions, for one deployment. Pure.

The rules, in the order in which they apply:
1. Who leaves is seen off: told to drain once routers have heard of it, stopped when overdue, forgotten when
   even that failed.
2. An unhealthy replica leaves; its replacement starts at once.
3. What is missing is started, all at once, or in batches while an old version is replaced (see `rolling.py`);
   after a failed start one by one and with a growing pause.
4. A surplus leaves, those that do not serve yet first, then the youngest.
5. A replica of an old version leaves when a RUNNING one of the wanted version takes its place, not before,
   unless there is no room for both.
6. A RUNNING replica with other options than wanted gets them in place.

Planning again after the actions were applied gives no further actions until something happens or `wake_at_s`
comes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .desired import Desired, options_hash
from .lifecycle import ReplicaState
from .observed import EXIT_SLACK_S, ObservedDeployment, Replica
from .rolling import has_taken_over, is_rolling, keep_count, limits, start_count

DRAIN_NOTICE_S = 0.05
"""Between the snapshot without a replica and its order to drain, so that routers need not be told twice."""
RECONFIGURE_TIMEOUT_S = 60.0
"""A replica must answer a reconfigure within this time."""


@dataclass(frozen=True, slots=True)
class StartReplicas:
    """Start this many replicas of the wanted version."""

    count: int


@dataclass(frozen=True, slots=True)
class BeginDrain:
    """Take a replica out of the snapshot for good."""

    replica_id: str
    reason: str
    is_unhealthy: bool = False


@dataclass(frozen=True, slots=True)
class SendDrain:
    """Tell a replica to finish and exit."""

    replica_id: str
    timeout_s: float


@dataclass(frozen=True, slots=True)
class StopReplica:
    """Have a replica's process ended by the engine."""

    replica_id: str
    grace_s: float


@dataclass(frozen=True, slots=True)
class Forget:
    """Give a replica up: nobody could say that it has exited."""

    replica_id: str
    message: str


@dataclass(frozen=True, slots=True)
class SendReconfigure:
    """Give a replica the wanted options."""

    replica_id: str


@dataclass(frozen=True, slots=True)
class FailReconfigure:
    """A replica has not answered a reconfigure in time."""

    replica_id: str


Action = StartReplicas | BeginDrain | SendDrain | StopReplica | Forget | SendReconfigure | FailReconfigure


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, and when to look again if nothing happens before (None: never)."""

    actions: tuple[Action, ...]
    wake_at_s: float | None


def plan(desired: Desired | None, observed: ObservedDeployment, now_s: float) -> Plan:
    """Decide what brings `observed` nearer to `desired`; None: there should be no replica at all."""
    planner = _Planner(observed, now_s)
    for replica in observed.replicas.values():
        planner.see_off(replica)
    staying = [replica for replica in observed.replicas.values() if replica.is_staying]
    if desired is None:
        planner.drain(staying, "it is not wanted any more")
    else:
        planner.approach(desired, staying)
    return Plan(tuple(planner.actions), planner.wake_at_s)


def start_failure_limit(desired: Desired, observed: ObservedDeployment) -> int:
    """Failed starts in a row that make a deployment fail: those of the first, parallel round count as one
    attempt.
    """
    wanted = desired.spec.num_replicas
    at_once = min(wanted, max(limits(desired.spec))) if is_rolling(desired.spec, observed) else wanted
    return max(0, at_once - 1) + max(1, desired.spec.max_constructor_attempts)


def has_failed_to_start(desired: Desired, observed: ObservedDeployment) -> bool:
    """The wanted version has never run and no further attempt will be made."""
    if observed.has_run or observed.failed_starts < start_failure_limit(desired, observed):
        return False
    return not any(
        r.state is ReplicaState.STARTING and r.version == desired.spec.version
        for r in observed.replicas.values()
    )


class _Planner:
    def __init__(self, observed: ObservedDeployment, now_s: float) -> None:
        self.actions: list[Action] = []
        self.wake_at_s: float | None = None
        self._observed = observed
        self._now_s = now_s

    def approach(self, desired: Desired, staying: Sequence[Replica]) -> None:
        healthy = self._without_unhealthy(desired, staying)
        if not desired.may_start:
            return
        current = [r for r in healthy if r.version == desired.spec.version]
        old = [r for r in healthy if r.version != desired.spec.version]
        serving = [r for r in old if r.state is ReplicaState.RUNNING]
        self.drain((r for r in old if r not in serving), "its version was replaced before it ran")
        self._start_missing(desired, current, len(serving))
        surplus = _youngest_first(current)[: max(0, len(current) - desired.spec.num_replicas)]
        self.drain(surplus, "there are more than wanted")
        staying_on = [r for r in current if r not in surplus]
        running = [r for r in staying_on if r.state is ReplicaState.RUNNING]
        keep = keep_count(desired.spec, staying_on, has_run=self._observed.has_run)
        blocking = self._blocking(desired, staying_on, serving)
        self.drain(blocking, "the new version needs its place")
        serving = [r for r in serving if r not in blocking]
        self.drain(_youngest_first(serving)[: max(0, len(serving) - keep)], "its version was replaced")
        for replica in running:
            self._reconfigure(desired, replica)

    def see_off(self, replica: Replica) -> None:
        if replica.forget_by_s is not None:
            if self._is_due(replica.forget_by_s):
                self.actions.append(
                    Forget(replica.replica_id, f"Replica {replica.replica_id} could not be stopped.")
                )
            return
        if replica.state is ReplicaState.DRAINING and not replica.is_told_to_drain:
            self._tell_to_drain(replica)
        elif replica.leave_by_s is not None and self._is_due(replica.leave_by_s):
            self._stop(replica)

    def drain(self, replicas: Iterable[Replica], reason: str) -> None:
        self.actions += [BeginDrain(replica.replica_id, reason) for replica in replicas]

    def _tell_to_drain(self, replica: Replica) -> None:
        if replica.running_since_s is None or not replica.has_lease:
            # Nobody was ever routed to it, or nobody can tell it anything.
            self.actions.append(StopReplica(replica.replica_id, replica.shutdown_timeout_s))
        elif self._is_due((replica.drain_since_s or 0.0) + DRAIN_NOTICE_S):
            self.actions.append(SendDrain(replica.replica_id, replica.shutdown_timeout_s))

    def _stop(self, replica: Replica) -> None:
        # A process that has drained or failed has had its time; one that merely lost its lease may have work
        # to finish.
        may_work = not replica.has_lease and replica.running_since_s is not None
        self.actions.append(
            StopReplica(replica.replica_id, replica.shutdown_timeout_s if may_work else EXIT_SLACK_S)
        )
        if replica.state is ReplicaState.STARTING:
            # Its place is needed for another attempt at once.
            self.actions.append(
                Forget(replica.replica_id, f"Replica {replica.replica_id} did not register in time.")
            )

    def _without_unhealthy(self, desired: Desired, replicas: Sequence[Replica]) -> list[Replica]:
        healthy = []
        for replica in replicas:
            if replica.is_unhealthy(desired.spec, self._now_s):
                self.actions.append(
                    BeginDrain(replica.replica_id, "it failed its health checks", is_unhealthy=True)
                )
                continue
            overdue_s = replica.next_overdue_s(desired.spec, self._now_s)
            if overdue_s is not None:
                self._wake(overdue_s)
            healthy.append(replica)
        return healthy

    def _start_missing(self, desired: Desired, current: Sequence[Replica], old_count: int) -> None:
        missing = start_count(desired.spec, current, old_count)
        if missing == 0 or self._observed.no_room or has_failed_to_start(desired, self._observed):
            return
        if self._observed.failed_starts > 0:
            is_trying = any(r.state is ReplicaState.STARTING for r in current)
            missing = 0 if is_trying or self._has_no_attempt_left(desired) else 1
        if missing and self._is_due(self._observed.retry_at_s):
            self.actions.append(StartReplicas(missing))

    def _blocking(
        self, desired: Desired, current: Sequence[Replica], old: Sequence[Replica]
    ) -> list[Replica]:
        """Old replicas without which the next new one would have a place; none while another one, of
        whatever version, is coming or leaving already.
        """
        blockers = self._observed.room_blockers
        blocking = [r for r in old if r.replica_id in blockers]
        is_quiet = all(r.state is ReplicaState.RUNNING for r in self._observed.replicas.values())
        if (
            self._observed.no_room
            and len(blocking) == len(blockers)
            and is_quiet
            and all(has_taken_over(r) for r in current)
            and not has_failed_to_start(desired, self._observed)
        ):
            return blocking
        return []

    def _has_no_attempt_left(self, desired: Desired) -> bool:
        return not self._observed.has_run and self._observed.failed_starts >= start_failure_limit(
            desired, self._observed
        )

    def _reconfigure(self, desired: Desired, replica: Replica) -> None:
        if replica.pending_options is not None:
            if self._is_due(replica.pending_since_s + RECONFIGURE_TIMEOUT_S):
                self.actions.append(FailReconfigure(replica.replica_id))
            return
        wanted_hash = options_hash(desired.spec)
        if wanted_hash not in (replica.options_hash, replica.failed_options_hash) and replica.has_lease:
            self.actions.append(SendReconfigure(replica.replica_id))

    def _is_due(self, at_s: float) -> bool:
        if self._now_s >= at_s:
            return True
        self._wake(at_s)
        return False

    def _wake(self, at_s: float) -> None:
        self.wake_at_s = at_s if self.wake_at_s is None else min(self.wake_at_s, at_s)


def _youngest_first(replicas: Sequence[Replica]) -> list[Replica]:
    """Those that do not run yet, then by age; the older of two equals is kept longer."""
    ages = {
        r.replica_id: (r.running_since_s is not None, -(r.running_since_s or r.created_at_s))
        for r in replicas
    }
    return sorted(reversed(replicas), key=lambda r: ages[r.replica_id])
