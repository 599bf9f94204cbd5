"""Observed state of one deployment, and what each event makes of it. Pure: no I/O, the clock is an argument.

Invariants:
- A replica is routable iff it is RUNNING, has its lease, and is not unhealthy.
- A failed start is counted exactly once: when the replica reports FAILED, or when a STARTING one is gone.
- A crash is counted exactly once: when a RUNNING replica loses its lease, or when its process exits before
  that is seen.
"""

import itertools
from dataclasses import dataclass, field

from slipknot_core.spec import DeploymentSpec

from . import backoff
from .desired import Desired, options_hash
from .identities import Departed
from .lifecycle import (
    DeploymentStatus,
    ReplicaState,
    check_deployment_transition,
    check_replica_transition,
)

REGISTER_TIMEOUT_S = 60.0
"""A process that has not registered by then never will."""
EXIT_SLACK_S = 2.0
"""A process that says or shows that it is ending has this long to do so by itself."""
EARLY_CRASH_S = 30.0
"""A replica that crashes before this age may be in a crash loop."""
HEALTH_FAILURE_LIMIT = 3
"""Failed checks in a row until a replica is replaced."""
HEALTH_REPORT_SLACK_S = 1.0
"""A report may be this late before it counts as a failed check."""

DEFAULT_SHUTDOWN_TIMEOUT_S = 20.0


@dataclass(slots=True)
class Replica:
    """One replica as far as the controller knows it. Times are points on its clock in seconds."""

    replica_id: str
    version: str
    created_at_s: float
    state: ReplicaState = ReplicaState.STARTING
    rank: int = 0
    node_id: str = ""
    address: str = ""
    pid: int = 0
    docs_path: str = ""
    ongoing: int = 0
    max_ongoing_requests: int = 0
    shutdown_timeout_s: float = DEFAULT_SHUTDOWN_TIMEOUT_S
    has_lease: bool = False
    running_since_s: float | None = None

    options_hash: str = ""
    """Of the options in effect; empty: unknown."""
    pending_options: DeploymentSpec | None = None
    """Sent to the replica, not answered yet."""
    pending_since_s: float = 0.0
    failed_options_hash: str = ""
    """Of the options that the replica could not take; not tried again until the next deploy."""

    has_health_check: bool = False
    failed_checks: int = 0
    passed_checks: int = 0
    checked_at_s: float = 0.0
    awaits_check: bool = False
    """It has a health check that it has not passed yet since it was started."""

    drain_since_s: float | None = None
    is_told_to_drain: bool = False
    leave_by_s: float | None = None
    """When the process should have exited by itself; then it is stopped."""
    forget_by_s: float | None = None
    """When a stopped process is given up; set once it has been stopped."""

    model_ids: frozenset[str] = frozenset()
    """Multiplexed models that it holds or loads."""

    @property
    def is_staying(self) -> bool:
        """It is meant to serve, now or soon."""
        return self.state in (ReplicaState.STARTING, ReplicaState.RUNNING)

    def failure_count(self, spec: DeploymentSpec, now_s: float) -> int:
        """Failed health checks in a row; reports that are overdue count as failed."""
        if not self.has_health_check or self.state is not ReplicaState.RUNNING:
            return 0
        return self.failed_checks + int((now_s - self.checked_at_s) / _report_interval_s(spec))

    def next_overdue_s(self, spec: DeploymentSpec, now_s: float) -> float | None:
        """When the next missing health report would count as a failure."""
        if not self.has_health_check or self.state is not ReplicaState.RUNNING:
            return None
        interval_s = _report_interval_s(spec)
        return self.checked_at_s + (int((now_s - self.checked_at_s) / interval_s) + 1) * interval_s

    def is_unhealthy(self, spec: DeploymentSpec, now_s: float) -> bool:
        """It has failed too many checks in a row."""
        return self.failure_count(spec, now_s) >= HEALTH_FAILURE_LIMIT

    def move_to(self, state: ReplicaState) -> None:
        """Change the state by the table.

        Raises:
            InvalidTransition: The table forbids it; nothing was changed.
        """
        check_replica_transition(self.replica_id, self.state, state)
        self.state = state


@dataclass(slots=True)
class Registration:
    """What a replica says of itself when it joins."""

    replica_id: str
    version: str
    address: str
    node_id: str = ""
    pid: int = 0
    user_config_hash: str = ""
    has_health_check: bool = False
    state: ReplicaState = ReplicaState.STARTING
    model_ids: frozenset[str] = frozenset()
    rank: int = 0


@dataclass(slots=True)
class ObservedDeployment:
    """Replicas of one deployment and how they have fared. `replicas` is ordered by age."""

    replicas: dict[str, Replica] = field(default_factory=dict)
    wanted: Desired | None = None
    """Desired state that the counters below belong to."""
    has_run: bool = False
    """A replica of the wanted version has once been RUNNING."""
    has_served: bool = False
    """A replica of any version has once been RUNNING since the application was first deployed."""
    failed_starts: int = 0
    """In a row, since the last success or deploy."""
    early_crashes: int = 0
    """In a row, of young replicas."""
    last_error: str = ""
    reconfigure_error: str = ""
    retry_at_s: float = 0.0
    must_pass_check: bool = False
    """A replica was unhealthy: its successors must pass a health check before all is well."""
    start_count: int = 0
    """Replicas asked for; this and the next two are for the metrics and only grow."""
    failed_start_count: int = 0
    crash_count: int = 0
    no_room: str = ""
    """Why the engine had no place for another replica when it was asked last; empty: it had, or was not
    asked.
    """
    room_blockers: tuple[str, ...] = ()
    """Replicas of other versions that would make room."""
    young_losses: int = 0
    """Replicas of the wanted version, in a row, that crashed young or became unhealthy; one that passes a
    health check ends the row.
    """
    status: DeploymentStatus = DeploymentStatus.UPDATING
    trigger: str = ""
    message: str = ""
    scaling_error: str = ""
    """Why the autoscaling policy could not decide last time."""
    departed: Departed = field(default_factory=Departed)
    """Replicas that have exited or were given up; one that registers all the same is not taken back."""

    @property
    def may_be_at_zero(self) -> bool:
        """It can be called without a replica: the first request brings one."""
        scaling = self.wanted.spec.autoscaling if self.wanted else None
        return scaling is not None and scaling.min_replicas == 0

    def want(self, wanted: Desired, proven_version: str = "") -> None:
        """Take note of what is wanted now; if that is news, earlier failures count no more."""
        before, self.wanted = self.wanted, wanted
        if before == wanted or (before is not None and before.is_autoscaled_to(wanted)):
            return
        if before is None or before.spec.version != wanted.spec.version:
            self.has_run = wanted.spec.version == proven_version or any(
                r.version == wanted.spec.version and r.state is ReplicaState.RUNNING
                for r in self.replicas.values()
            )
        self.failed_starts = self.early_crashes = 0
        self.last_error = self.reconfigure_error = self.scaling_error = ""
        self.retry_at_s = 0.0
        self.must_pass_check = False
        self.young_losses = 0
        for replica in self.replicas.values():
            replica.failed_options_hash = ""

    def set_status(self, name: str, status: DeploymentStatus, trigger: str, message: str) -> bool:
        """Set the condition by the table; False if nothing changed."""
        if (self.status, self.trigger, self.message) == (status, trigger, message):
            return False
        check_deployment_transition(name, self.status, status)
        self.status, self.trigger, self.message = status, trigger, message
        if status is DeploymentStatus.HEALTHY:
            self.must_pass_check = False
        return True

    def room_asked(self, no_room: str = "", blockers: tuple[str, ...] = ()) -> None:
        """The engine is to be asked again, or has just said that it has no place, and why."""
        self.no_room, self.room_blockers = no_room, blockers

    def free_rank(self, version: str) -> int:
        """The smallest that no replica of the version has which stays."""
        taken = {r.rank for r in self.replicas.values() if r.is_staying and r.version == version}
        return next(rank for rank in itertools.count() if rank not in taken)

    def launched(self, replica_id: str, spec: DeploymentSpec, now_s: float, rank: int = 0) -> Replica:
        """A new replica's process was asked for."""
        self.start_count += 1
        replica = Replica(replica_id, spec.version, now_s, rank=rank, leave_by_s=now_s + REGISTER_TIMEOUT_S)
        _set_options(replica, spec)
        self.replicas[replica_id] = replica
        return replica

    def adopted(self, registration: Registration, spec: DeploymentSpec, now_s: float) -> Replica:
        """A replica that an earlier controller started has come back."""
        replica = Replica(registration.replica_id, registration.version, now_s, rank=registration.rank)
        _set_options(replica, spec)
        if registration.user_config_hash != spec.user_config_hash:
            replica.options_hash = ""
        self.replicas[replica.replica_id] = replica
        self.joined(registration, now_s)
        replica.awaits_check = False  # it may have passed many before
        return replica

    def joined(self, registration: Registration, now_s: float) -> None:
        """A replica has its lease."""
        replica = self.replicas[registration.replica_id]
        replica.address, replica.pid = registration.address, registration.pid
        replica.node_id = registration.node_id or replica.node_id
        replica.model_ids = registration.model_ids
        replica.has_lease = True
        if replica.state is ReplicaState.STARTING:
            replica.leave_by_s = None
        if registration.state is ReplicaState.RUNNING:
            self.running(replica.replica_id, now_s, has_health_check=registration.has_health_check)
        elif registration.state is ReplicaState.DRAINING:
            self.leaving(replica.replica_id, now_s)

    def running(
        self, replica_id: str, now_s: float, *, docs_path: str = "", has_health_check: bool = False
    ) -> None:
        """A replica is ready to serve. One that is on its way out stays so."""
        replica = self.replicas[replica_id]
        if replica.state is not ReplicaState.STARTING:
            return
        replica.move_to(ReplicaState.RUNNING)
        replica.running_since_s = replica.checked_at_s = now_s
        replica.docs_path, replica.has_health_check = docs_path, has_health_check
        replica.awaits_check = has_health_check
        self.has_served = True
        if self.wanted is not None and replica.version == self.wanted.spec.version:
            self.has_run = True
            self.failed_starts = 0

    def start_failed(self, replica_id: str, message: str, now_s: float) -> None:
        """A replica's constructor raised; its process is about to exit."""
        replica = self.replicas[replica_id]
        if replica.state is not ReplicaState.STARTING:
            return
        replica.move_to(ReplicaState.FAILED)
        replica.leave_by_s = now_s + EXIT_SLACK_S
        self._count_failed_start(replica, message, now_s)

    def drain_begun(self, replica_id: str, now_s: float, *, is_unhealthy: bool = False) -> None:
        """The controller has decided to let a replica go."""
        replica = self.replicas[replica_id]
        if is_unhealthy and self._concerns(replica):
            self.young_losses += 1
        self.must_pass_check = self.must_pass_check or (is_unhealthy and self._concerns(replica))
        replica.move_to(ReplicaState.DRAINING)
        replica.drain_since_s = now_s
        replica.leave_by_s = None

    def drain_sent(self, replica_id: str, timeout_s: float, now_s: float) -> None:
        """A replica was told to finish and exit."""
        replica = self.replicas[replica_id]
        replica.is_told_to_drain = True
        replica.leave_by_s = now_s + timeout_s + EXIT_SLACK_S

    def leaving(self, replica_id: str, now_s: float, *, is_done: bool = False) -> None:
        """A replica says that it drains, or (`is_done`) that it has finished."""
        replica = self.replicas[replica_id]
        if replica.is_staying:
            self.drain_begun(replica_id, now_s)
        if is_done:
            replica.is_told_to_drain = True
            replica.leave_by_s = now_s + EXIT_SLACK_S
        elif not replica.is_told_to_drain:
            self.drain_sent(replica_id, replica.shutdown_timeout_s, now_s)

    def stop_sent(self, replica_id: str, grace_s: float, now_s: float) -> None:
        """A replica's process is being stopped."""
        self.replicas[replica_id].forget_by_s = now_s + grace_s + EXIT_SLACK_S

    def lease_lost(self, replica_id: str, now_s: float) -> None:
        """A replica's stream has ended. Whether its process lives is the engine's to say."""
        replica = self.replicas[replica_id]
        replica.has_lease = False
        if replica.state is ReplicaState.RUNNING:
            replica.move_to(ReplicaState.LOST)
            self._count_crash(replica, f"Replica {replica_id} lost its connection to the controller.", now_s)
        if replica.leave_by_s is None or replica.leave_by_s > now_s + EXIT_SLACK_S:
            replica.leave_by_s = now_s + EXIT_SLACK_S

    def gone(self, replica_id: str, message: str, now_s: float) -> None:
        """A replica's process has exited, or is given up."""
        replica = self.replicas.pop(replica_id, None)
        if replica is None:
            return
        self.departed.add(replica_id)
        if replica.state is ReplicaState.STARTING:
            self._count_failed_start(replica, message, now_s)
        elif replica.state is ReplicaState.RUNNING:
            self._count_crash(replica, message, now_s)
        elif replica.state is ReplicaState.LOST and self._concerns(replica):
            self.last_error = message

    def health_reported(self, replica_id: str, *, is_healthy: bool, message: str, now_s: float) -> None:
        """A health check has ended."""
        replica = self.replicas[replica_id]
        replica.checked_at_s = now_s
        replica.has_health_check = True
        if is_healthy:
            replica.failed_checks = 0
            replica.passed_checks += 1
            replica.awaits_check = False
            if self._concerns(replica):
                self.young_losses = 0
            return
        replica.failed_checks += 1
        if self._concerns(replica):
            self.last_error = message or f"The health check of replica {replica_id} failed."

    def reconfigure_sent(self, replica_id: str, spec: DeploymentSpec, now_s: float) -> None:
        """A replica was given new options."""
        replica = self.replicas[replica_id]
        replica.pending_options, replica.pending_since_s = spec, now_s

    def reconfigured(self, replica_id: str, user_config_hash: str, error: str) -> None:
        """A replica has answered, for the user_config it names; an answer to nothing is ignored."""
        replica = self.replicas[replica_id]
        spec = replica.pending_options
        if spec is None or spec.user_config_hash != user_config_hash:
            return
        replica.pending_options = None
        if not error:
            _set_options(replica, spec)
            return
        # What is in effect now is unknown, so that going back to the old options sends them again.
        replica.options_hash = ""
        replica.failed_options_hash = options_hash(spec)
        if self._concerns(replica):
            self.reconfigure_error = error

    def _concerns(self, replica: Replica) -> bool:
        return self.wanted is None or replica.version == self.wanted.spec.version

    def _count_failed_start(self, replica: Replica, message: str, now_s: float) -> None:
        self.failed_start_count += 1
        if not self._concerns(replica):
            return
        self.failed_starts += 1
        self.last_error = message
        self.retry_at_s = now_s + backoff.delay_s(self.failed_starts)

    def _count_crash(self, replica: Replica, message: str, now_s: float) -> None:
        self.crash_count += 1
        if not self._concerns(replica):
            return
        lived_s = now_s - (replica.running_since_s or replica.created_at_s)
        self.early_crashes = self.early_crashes + 1 if lived_s < EARLY_CRASH_S else 0
        self.young_losses += lived_s < EARLY_CRASH_S
        self.last_error = message
        # Every replica may crash once at the same time, as when somebody kills them all: that is no loop yet.
        tolerated = self.wanted.spec.num_replicas if self.wanted else 1
        self.retry_at_s = now_s + backoff.delay_s(self.early_crashes - tolerated)


def _set_options(replica: Replica, spec: DeploymentSpec) -> None:
    replica.options_hash = options_hash(spec)
    replica.failed_options_hash = ""
    replica.max_ongoing_requests = spec.max_ongoing_requests
    replica.shutdown_timeout_s = spec.graceful_shutdown_timeout_s


def _report_interval_s(spec: DeploymentSpec) -> float:
    return spec.health_check_period_s + spec.health_check_timeout_s + HEALTH_REPORT_SLACK_S
