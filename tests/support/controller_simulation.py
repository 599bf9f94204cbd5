"""One deployment under the controller's rules, with a clock set by hand and replicas that do as they are
told.
"""

from dataclasses import dataclass, replace

from slipknot_controller.condition import Condition, after_order
from slipknot_controller.desired import Desired
from slipknot_controller.engine import NoRoom
from slipknot_controller.lifecycle import ReplicaState
from slipknot_controller.observed import ObservedDeployment, Registration
from slipknot_controller.reconcile import reconcile
from slipknot_core.ids import DeploymentId
from slipknot_core.spec import CodeSource, DeploymentSpec

DEPLOYMENT = DeploymentId("app", "Model")


@dataclass
class Effect:
    """Something the controller did, in the words of the scenario files."""

    verb: str
    replica: str
    number: float | None = None

    def __str__(self) -> str:
        return f"{self.verb} {self.replica}" + ("" if self.number is None else f" {self.number:g}")


class Simulation:
    """Replicas are named r1, r2, … in the order of their start. Every event is followed by reconciling."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.observed = ObservedDeployment()
        self.desired: Desired | None = None
        self.effects: list[Effect] = []
        self.wake_at_s: float | None = None
        self.places: int | None = None
        """For replicas, of whatever version; None: without end."""
        self.makes_room = True
        """A place is there again when an old replica has left."""
        self._generation = 0
        self._started = 0

    # What the controller does (`Effects`).

    def start(self, desired: Desired, rank: int) -> tuple[str, str]:
        """A process that does nothing until `joined` or `running` is called for it."""
        replicas = self.observed.replicas.values()
        if self.places is not None and len(replicas) >= self.places:
            old = [r.replica_id for r in replicas if r.is_staying and r.version != desired.spec.version]
            raise NoRoom("all is full", tuple(old[-1:]) if self.makes_room else ())
        self._started += 1
        self.effects.append(Effect("start", f"r{self._started}"))
        return f"r{self._started}", "node"

    def stop(self, replica_id: str, grace_s: float) -> bool:
        """Note it; `exited` must be called to make it true."""
        self.effects.append(Effect("stop", replica_id, grace_s))
        return True

    def send_drain(self, replica_id: str, timeout_s: float) -> None:
        """Note it."""
        self.effects.append(Effect("drain", replica_id, timeout_s))

    def send_reconfigure(self, replica_id: str, spec: DeploymentSpec) -> None:
        """Note it; `reconfigured` answers it."""
        self.effects.append(Effect("reconfigure", replica_id))

    # What users ask for.

    def deploy(self, version: str = "v1", replicas: int = 1, **options: object) -> None:
        """Deploy anew."""
        self._generation += 1
        spec = DeploymentSpec("Model", CodeSource(), num_replicas=replicas, version=version)
        self._want(Desired(DEPLOYMENT, replace(spec, **options), self._generation))  # type: ignore[arg-type]

    def scale(self, replicas: int) -> None:
        """Change the number of replicas only."""
        assert self.desired is not None
        self._want(replace(self.desired, spec=replace(self.desired.spec, num_replicas=replicas)))

    def delete(self) -> None:
        """Want nothing any more."""
        self.desired = None
        self.reconcile()

    # What happens in the world.

    def room(self, word: str) -> None:
        """The engine has a place for another replica ("some"), has none, or would have one after one left; or
        it has so many places.
        """
        self.makes_room = word != "none"
        self.places = int(word) if word.isdecimal() else None if word == "some" else 0
        self.reconcile()

    def advance(self, to_s: float) -> None:
        """Let time pass, waking the controller whenever it asked to be woken."""
        for _ in range(10_000):
            if self.wake_at_s is None or self.wake_at_s > to_s:
                self.now_s = to_s
                return
            self.now_s = max(self.now_s, self.wake_at_s)
            self.reconcile()
        raise AssertionError("the controller wakes for ever")

    def joined(self, name: str) -> None:
        """The process has registered."""
        if not self.observed.replicas[name].has_lease:
            self.observed.joined(
                Registration(name, self.observed.replicas[name].version, f"unix:{name}"), self.now_s
            )
        self.reconcile()

    def running(self, name: str, *, has_health_check: bool = False) -> None:
        """The constructor has returned."""
        self.joined(name)
        self.observed.running(name, self.now_s, has_health_check=has_health_check)
        self.reconcile()

    def failed(self, name: str, message: str = "boom") -> None:
        """The constructor has raised; the process exits."""
        self.joined(name)
        self.observed.start_failed(name, message, self.now_s)
        self.reconcile()
        self.exited(name)

    def lost(self, name: str) -> None:
        """The lease has lapsed."""
        self.observed.lease_lost(name, self.now_s)
        self.reconcile()

    def stopped(self, name: str) -> None:
        """The replica has drained; the process exits."""
        self.observed.leaving(name, self.now_s, is_done=True)
        self.exited(name)

    def exited(self, name: str, message: str = "exited") -> None:
        """The node agent has seen the process end."""
        self.observed.gone(name, message, self.now_s)
        self.reconcile()

    def checked(self, name: str, *, is_healthy: bool) -> None:
        """A health check has ended."""
        self.observed.health_reported(name, is_healthy=is_healthy, message="ill", now_s=self.now_s)
        self.reconcile()

    def reconfigured(self, name: str, error: str = "") -> None:
        """The replica has answered new options."""
        pending = self.observed.replicas[name].pending_options
        assert pending is not None, f"{name} was not asked to reconfigure"
        self.observed.reconfigured(name, pending.user_config_hash, error)
        self.reconcile()

    def reconcile(self) -> None:
        """As the controller does after each event."""
        self.wake_at_s = reconcile(DEPLOYMENT, self.desired, self.observed, self, self.now_s)

    # What can be seen.

    def routable(self) -> list[str]:
        """Replicas in the snapshot."""
        return [r.replica_id for r in self.observed.replicas.values() if r.state is ReplicaState.RUNNING]

    def named(self, *states: ReplicaState) -> list[str]:
        """Replicas in one of these states."""
        return [r.replica_id for r in self.observed.replicas.values() if r.state in states]

    def take_effects(self) -> list[str]:
        """Effects since the last call."""
        effects, self.effects = self.effects, []
        return [str(effect) for effect in effects]

    def _want(self, desired: Desired) -> None:
        so_far = Condition(self.observed.status, self.observed.trigger, self.observed.message)
        self.observed.set_status("Model", *after_order(self.desired, desired, so_far))
        self.desired = desired
        self.observed.want(desired)
        self.reconcile()
