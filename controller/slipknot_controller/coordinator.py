"""The controller's heart: events come in, applications are reconciled one by one, snapshots and statuses go
out.

Everything here runs on one event loop and never waits, except for the state store and for builds, which are
tasks. One application is reconciled as a whole, since the order of a rollout concerns several of its
deployments.

After a restart nothing is reconciled or published for a while (`RECOVERY_S`): replicas that live on register
again, and routers keep the last snapshot they have. So nobody is restarted, and no request notices.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from slipknot_core.errors import NotLeaderError, ProtocolError, StateNotStoredError
from slipknot_core.ids import DeploymentId, new_replica_id
from slipknot_core.spec import DeploymentSpec, ReplicaLaunch
from slipknot_core.tasks import TaskOwner

from .applications import Applications
from .archives import Archives
from .autoscaler import Autoscaler
from .condition import Condition, after_order
from .desired import Desired
from .leadership import Term
from .leases import DrainOrder, Lease, Leases, ReconfigureOrder
from .nodes_engine import NodesEngine
from .observed import DEFAULT_SHUTDOWN_TIMEOUT_S, ObservedDeployment, Registration, Replica
from .publisher import Publisher
from .reconcile import reconcile
from .reconcile_queue import ReconcileQueue
from .recovery import has_recovered, was_let_go, was_replaced
from .rollout import wanted_deployments
from .steps import Steps
from .store import Fenced, StateStore, StoreRefused, StoreUnavailable
from .store.interface import raise_counter

logger = logging.getLogger("slipknot.serve")

RECOVERY_S = 4.0
"""What a restarted controller waits for replicas to register again; longer than the longest pause before a
reconnect.
"""
TAKEOVER_S = 6.0
"""The same for a controller that takes over from another one: members may still be waiting for a word of a
leader that is frozen."""
MAX_EPOCH = 2**53
"""What a member says to have seen beyond this is made up; epochs have 64 bits."""
ORPHAN_S = 10.0
"""A process that a node reports, and that has not registered this long after, is stopped."""
ANSWER_S = 2.0
"""A replica whose node has gone has so long to say that it is still there."""
DELETE_SLACK_S = 10.0
"""Given to a shutdown of the cluster on top of the longest graceful shutdown."""

OnReport = Callable[[ObservedDeployment, float], None]
"""Takes note of what a replica reports, in the observed state of its deployment, at a point in time."""


class Coordinator:
    """Owns desired and observed state. `start` first, `stop` last. `repr` tells what there is.

    Args:
        store: Where desired state is kept; not closed here.
        address: This controller's own address, for the replicas it starts.
        allow_pickle: Take applications that come by value, and let replicas read pickle.
        term: In which it may act; by default one that does not end.
    """

    def __init__(
        self, store: StateStore, address: str, *, allow_pickle: bool = True, term: Term | None = None
    ) -> None:
        self._term = term or Term(0, store)
        self.applications = Applications(
            store, self._application_changed, self._term.lose, allow_pickle=allow_pickle
        )
        self.archives = Archives(store)
        self.engine = NodesEngine()
        self._store = store
        self._address = address
        self._allow_pickle = allow_pickle
        self._observed: dict[DeploymentId, ObservedDeployment] = {}
        evaluate, is_ready = self.engine.evaluate, lambda: self._recovery is None
        self.autoscaler = Autoscaler(self.applications, self._observed, is_ready, evaluate, self._changed)
        self._owners: dict[str, DeploymentId] = {}
        self._leases = Leases()
        self._queue: ReconcileQueue[str] = ReconcileQueue()
        self._steps = Steps(self.applications, self._observed, self.engine, self._queue)
        self.publisher = Publisher(
            address,
            self.applications,
            self._observed,
            self.engine,
            lambda: self._recovery is None and self.is_leading(),
            refuse_pickle=not allow_pickle,
        )
        self._tasks = TaskOwner("coordinator")
        self._recovery: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Coordinator epoch {self.epoch}: {self.applications.records.keys()}, {self._queue}>"

    @property
    def epoch(self) -> int:
        """This controller's term, as members know it."""
        return self.publisher.epoch

    @property
    def observed(self) -> Mapping[DeploymentId, ObservedDeployment]:
        """Observed state, to look at."""
        return self._observed

    async def start(self) -> None:
        """Read the desired state and begin to work on it."""
        self.publisher.epoch = await raise_counter(self._store, "epoch", at_least=self._term.revision - 1)
        self.engine.listen(self)
        await self.applications.load()
        if self.applications.records:
            self._recovery = asyncio.get_running_loop().call_later(
                TAKEOVER_S if self._term.revision else RECOVERY_S, self._end_recovery
            )
            logger.info("Recovering %d applications.", len(self.applications.records))
        else:
            self.publisher.publish()
        self._tasks.spawn(self._work(), "reconcile")
        self.autoscaler.start()

    async def stop(self) -> None:
        """Let go of everything; calling it twice is fine."""
        if self._recovery is not None:
            self._recovery.cancel()
        await self.autoscaler.stop()
        await self._tasks.stop()
        await self._steps.stop()
        self._queue.close()
        self.engine.close()
        self._leases.close()
        self.publisher.close()
        await self.applications.stop()

    def is_leading(self) -> bool:
        """It may act: its term has not ended."""
        return self._term.is_held()

    async def hear_epoch(self, seen: int) -> None:
        """A member has taken commands of epoch `seen`. If that is larger than ours, and nobody else leads,
        the store is not the one that it was: then ours is raised above it, or the member would obey nobody.

        Raises:
            NotLeaderError: Somebody else leads.
            ProtocolError: There was never such an epoch.
            StateNotStoredError: The store takes no changes.
        """
        if not self.is_leading():
            raise NotLeaderError("this controller's term has ended")
        if seen <= self.epoch:
            return
        if seen > MAX_EPOCH:
            raise ProtocolError(f"no controller has had epoch {seen}")
        try:
            epoch = await raise_counter(self._store, "epoch", at_least=seen)
        except (Fenced, StoreUnavailable) as error:
            self._term.lose(f"a member has seen epoch {seen}: {error}")
            raise NotLeaderError("another controller leads") from None
        except StoreRefused as error:
            raise StateNotStoredError(f"epoch {seen} could not be stored: {error}") from None
        if epoch > self.epoch:
            logger.warning("A member has seen epoch %d; going on with epoch %d.", seen, epoch)
            self.publisher.raise_epoch(epoch)

    async def delete_everything(self) -> None:
        """Delete all applications and wait until their replicas are gone, within bounds."""
        records = self.applications.records.values()
        timeouts = [d.graceful_shutdown_timeout_s for r in records if r.spec for d in r.spec.deployments]
        await self.applications.delete_all()
        try:
            async with asyncio.timeout(max(timeouts, default=0.0) + DELETE_SLACK_S):
                async for status in self.publisher.statuses.watch():
                    if not status.applications:
                        return
        except TimeoutError:
            logger.error("Not all applications have ended: %s.", ", ".join(self.applications.records))

    # --- For the services: members come, report and go.

    def replica_joined(
        self, deployment_id: DeploymentId, registration: Registration
    ) -> tuple[Lease | None, str]:
        """A replica has connected. Returns its lease, or None and why it is not wanted."""
        spec = self._spec_of(deployment_id)
        if spec is None:
            return None, f"there is no deployment {deployment_id} in this cluster"
        observed = self._observed.setdefault(deployment_id, ObservedDeployment())
        replica_id, now_s = registration.replica_id, time.monotonic()
        if replica_id in observed.departed:
            return None, f"replica {replica_id} was given up; others have taken its place"
        if self._recovery is None and was_replaced(registration, spec, observed):
            return None, f"version {registration.version} of deployment {deployment_id} was replaced"
        record = self.applications.records[deployment_id.app_name]
        if self._recovery is None and was_let_go(registration, deployment_id.name, record, self._observed):
            return None, f"deployment {deployment_id} was removed by an update"
        if replica_id in observed.replicas:
            observed.joined(registration, now_s)
        else:
            observed.adopted(registration, spec, now_s)
            self._owners[replica_id] = deployment_id
            logger.info("Adopted replica %s.", replica_id)
        lease = self._leases.open(replica_id)
        self._changed(deployment_id)
        if self._recovery is not None and has_recovered(self.applications.records, self._observed):
            self._recovery.cancel()
            self._end_recovery()
        return lease, ""

    def replica_reported(self, lease: Lease, take_note: OnReport) -> bool:
        """A replica has news; False if it is not known any more."""
        deployment_id = self._owners.get(lease.replica_id)
        observed = self._observed.get(deployment_id) if deployment_id else None
        if deployment_id is None or observed is None or lease.replica_id not in observed.replicas:
            return False
        had_run = observed.has_run
        take_note(observed, time.monotonic())
        if observed.has_run and not had_run and observed.wanted is not None:
            self._steps.prove(deployment_id, observed)
        self._changed(deployment_id)
        return True

    def load_reported(self, lease: Lease, ongoing: int) -> None:
        """A replica has told its load; it shows in the next status and changes nothing else."""
        replica = self._replica(lease.replica_id)
        if replica is not None:
            replica.ongoing = ongoing

    def models_reported(self, lease: Lease, model_ids: frozenset[str]) -> None:
        """A replica holds other multiplexed models; routers learn of it with the next snapshot."""
        replica = self._replica(lease.replica_id)
        if replica is None:
            return
        if replica.model_ids != model_ids:
            self.publisher.publish_models(len(self._owners))
        replica.model_ids = model_ids

    def replica_left(self, lease: Lease) -> None:
        """A replica's connection has ended."""
        if not self._leases.end(lease):
            return
        deployment_id = self._owners.get(lease.replica_id)
        observed = self._observed.get(deployment_id) if deployment_id else None
        if deployment_id is not None and observed is not None and lease.replica_id in observed.replicas:
            observed.lease_lost(lease.replica_id, time.monotonic())
            self._changed(deployment_id)

    # --- `EngineListener`.

    def process_exited(self, replica_id: str, message: str) -> None:
        """As `EngineListener.process_exited`."""
        self._wake_pending()
        deployment_id = self._owners.pop(replica_id, None)
        if deployment_id is None:
            return
        observed = self._observed.get(deployment_id)
        if observed is not None:
            observed.gone(replica_id, message, time.monotonic())
        self._changed(deployment_id)

    def process_unknown(self, replica_id: str) -> None:
        """As `EngineListener.process_unknown`. A replica that still has its lease is alive all the same."""
        replica = self._replica(replica_id)
        if replica is not None and not replica.has_lease:
            self.process_exited(replica_id, f"Replica {replica_id} was lost with its node.")

    def node_left(self, replica_ids: Sequence[str]) -> None:
        """As `EngineListener.node_left`. A machine that fell silent says nothing: its replicas are asked."""
        check = self._leases.challenge(replica_ids, self.engine.is_watched)
        asyncio.get_running_loop().call_later(ANSWER_S, check)

    def room_changed(self) -> None:
        """As `EngineListener.room_changed`."""
        asyncio.get_running_loop().call_later(ORPHAN_S, self._stop_orphans)
        for name in self.applications.records:
            self._queue.add(name)
        self.publisher.publish_status()

    # --- `Effects` of reconciling.

    def start_replica(self, desired: Desired, rank: int) -> tuple[str, str]:
        """As `Effects.start`."""
        replica_id = new_replica_id(*desired.id)
        launch = ReplicaLaunch(
            replica_id=replica_id,
            app_name=desired.id.app_name,
            deployment=desired.spec,
            controller_address=self._address,
            node_id="",
            is_ingress=desired.is_ingress,
            route_prefix=desired.route_prefix,
            refuse_pickle=not self._allow_pickle,
            rank=rank,
        )
        node_id = self.engine.ensure(launch)
        self._owners[replica_id] = desired.id
        return replica_id, node_id

    def stop_replica(self, replica_id: str, grace_s: float) -> bool:
        """As `Effects.stop`."""
        return self.engine.stop(replica_id, grace_s)

    def send_drain(self, replica_id: str, timeout_s: float) -> None:
        """As `Effects.send_drain`."""
        self._leases.send(replica_id, DrainOrder(timeout_s))

    def send_reconfigure(self, replica_id: str, spec: DeploymentSpec) -> None:
        """As `Effects.send_reconfigure`."""
        self._leases.send(replica_id, ReconfigureOrder(spec))

    # --- Inside.

    def _application_changed(self, name: str) -> None:
        self._queue.add(name)

    def _changed(self, deployment_id: DeploymentId) -> None:
        self._queue.add(deployment_id.app_name)

    def _spec_of(self, deployment_id: DeploymentId) -> DeploymentSpec | None:
        record = self.applications.records.get(deployment_id.app_name)
        if record is None:
            return None
        specs = (*(record.spec.deployments if record.spec else ()), *record.retiring)
        return next((spec for spec in specs if spec.name == deployment_id.name), None)

    def _wake_pending(self) -> None:
        """Somebody's place has become free: look again at those who wait for one."""
        for deployment_id, observed in self._observed.items():
            if observed.no_room:
                self._changed(deployment_id)

    def _replica(self, replica_id: str) -> Replica | None:
        observed = self._observed.get(self._owners.get(replica_id, DeploymentId("", "")))
        return observed.replicas.get(replica_id) if observed else None

    async def _work(self) -> None:
        while True:
            name = await self._queue.get()
            try:
                if self._recovery is None and self.is_leading():
                    self._reconcile(name)
                    self._queue.succeeded(name)
            except Exception:  # a bug must stop neither the other applications nor, for good, this one
                delay_s = self._queue.retry(name)
                logger.exception("Reconciling application %r failed; trying again in %.1f s.", name, delay_s)
            finally:
                self._queue.done(name)
            self.publisher.publish()
            await asyncio.sleep(0)  # let the members be heard between two rounds

    def _reconcile(self, name: str) -> None:
        record = self.applications.records.get(name)
        if record is None:
            for deployment_id in [i for i in self._observed if i.app_name == name]:
                del self._observed[deployment_id]
            return
        wanted = wanted_deployments(record, self._observed)
        if record.is_building:
            # What is wanted now is still what the last deploy asked for; the new one begins when it is built.
            wanted = {i: desired and self._as_before(desired) for i, desired in wanted.items()}
        wakes_s = [self._reconcile_deployment(i, desired) for i, desired in wanted.items()]
        now_s = time.monotonic()
        for at_s in wakes_s:
            if at_s is not None:
                self._queue.add_after(name, at_s - now_s)
        if _is_wanted(wanted_deployments(record, self._observed)) != _is_wanted(wanted):
            self._queue.add(name)
        self._steps.advance(record)

    def _reconcile_deployment(self, deployment_id: DeploymentId, desired: Desired | None) -> float | None:
        observed = self._observed.setdefault(deployment_id, ObservedDeployment())
        if desired is not None and observed.wanted != desired:
            so_far = Condition(observed.status, observed.trigger, observed.message)
            observed.set_status(str(deployment_id), *after_order(observed.wanted, desired, so_far))
            observed.want(desired, self.applications.proven_version(deployment_id))
        return reconcile(deployment_id, desired, observed, _Effects(self), time.monotonic())

    def _as_before(self, desired: Desired) -> Desired:
        before = self._observed.get(desired.id, ObservedDeployment()).wanted
        return desired if before is None else replace(desired, generation=before.generation)

    def _end_recovery(self) -> None:
        self._recovery = None
        for name in self.applications.records:
            self._queue.add(name)

    def _stop_orphans(self) -> None:
        known = {replica_id for observed in self._observed.values() for replica_id in observed.replicas}
        for replica_id in [r for r in self.engine.processes() if r not in known]:
            logger.warning("Stopping replica %s, which nobody wants.", replica_id)
            self.engine.stop(replica_id, DEFAULT_SHUTDOWN_TIMEOUT_S)


def _is_wanted(wanted: Mapping[DeploymentId, Desired | None]) -> dict[DeploymentId, bool]:
    return {deployment_id: desired is not None for deployment_id, desired in wanted.items()}


class _Effects:
    """The coordinator as `Effects`, whose short names would be unclear on it."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.start = coordinator.start_replica
        self.stop = coordinator.stop_replica
        self.send_drain = coordinator.send_drain
        self.send_reconfigure = coordinator.send_reconfigure
