"""Properties of planning that hold in every history: what never happens, and where it always ends."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from slipknot_controller.lifecycle import DeploymentStatus, ReplicaState
from slipknot_controller.plan import plan
from slipknot_controller.rolling import limits
from tests.support.controller_simulation import Simulation

LEAVING = (ReplicaState.DRAINING, ReplicaState.FAILED, ReplicaState.LOST)


class Histories(RuleBasedStateMachine):
    """Deploys, scalings, successes, failures and crashes in any order, then peace."""

    def __init__(self) -> None:
        super().__init__()
        self.world = Simulation()
        self.starts_seen = 0

    @initialize(replicas=st.integers(1, 4))
    def begin(self, replicas: int) -> None:
        """Something is deployed."""
        self.world.deploy("v1", replicas)

    @rule(
        version=st.sampled_from(["v1", "v2", "v3"]),
        replicas=st.integers(1, 4),
        config=st.integers(0, 2),
        share=st.sampled_from([0.2, 0.5, 1.0]),
        surge=st.sampled_from([0.0, 0.5]),
    )
    def deploy(self, version: str, replicas: int, config: int, share: float, surge: float) -> None:
        """Deploying never leaves fewer routable replicas than the options of the update allow."""
        before = len(self.world.routable())
        self.world.deploy(
            version,
            replicas,
            user_config_json=str(config),
            rolling_update_percentage=share,
            max_surge_percent=surge,
        )
        assert len(self.world.routable()) >= self.at_least(before)

    @rule(word=st.sampled_from(["some", "none", "after-leaving"]))
    def room(self, word: str) -> None:
        """Nodes come and go."""
        before = len(self.world.routable())
        self.world.room(word)
        assert len(self.world.routable()) >= self.at_least(before)

    def at_least(self, before: int) -> int:
        """Of so many, these serve throughout an update; without room for its successor one more may leave."""
        if self.world.desired is None:
            return 0
        spec = self.world.desired.spec
        batch, surge = limits(spec)
        fewest = spec.num_replicas - max(0, batch - surge)
        return max(0, min(before, fewest) - self.may_leave())

    def may_leave(self) -> int:
        """Replicas that leave so that another one has a place."""
        return int(self.world.places is not None and self.world.makes_room)

    @rule(replicas=st.integers(1, 4))
    def scale(self, replicas: int) -> None:
        """Scaling keeps as many as are wanted."""
        if self.world.desired is None:
            return
        before = len(self.world.routable())
        self.world.scale(replicas)
        assert len(self.world.routable()) >= self.at_least(before)

    @rule()
    def delete(self) -> None:
        """Deleting takes everything out of the snapshot at once."""
        self.world.delete()
        assert self.world.routable() == []

    @rule(delay_s=st.sampled_from([0.05, 0.5, 3.0, 25.0]))
    def wait(self, delay_s: float) -> None:
        """Time alone takes no healthy replica away, unless its place was waited for."""
        before = self.world.routable()
        self.world.advance(self.world.now_s + delay_s)
        assert self.world.routable() == before or (
            self.may_leave() and len(self.world.routable()) >= self.at_least(len(before))
        )

    @precondition(lambda self: self.world.named(ReplicaState.STARTING))
    @rule(
        data=st.data(), outcome=st.sampled_from(["running", "running", "failed", "joined", "lost", "exited"])
    )
    def start_goes_on(self, data: st.DataObject, outcome: str) -> None:
        """A start that succeeds or fails never reduces what serves below what is wanted."""
        name = data.draw(st.sampled_from(self.world.named(ReplicaState.STARTING)))
        before = len(self.world.routable())
        if outcome == "lost":
            self.world.joined(name)
        if name in self.world.observed.replicas:
            getattr(self.world, outcome)(name)
        assert len(self.world.routable()) >= self.at_least(before)

    @precondition(lambda self: self.world.named(ReplicaState.RUNNING))
    @rule(data=st.data(), sign=st.sampled_from(["lost", "exited"]))
    def crash(self, data: st.DataObject, sign: str) -> None:
        """A crash costs that replica only."""
        self.world.room("some")
        before = self.world.routable()
        name = data.draw(st.sampled_from(before))
        getattr(self.world, sign)(name)
        assert set(self.world.routable()) == set(before) - {name}

    @precondition(lambda self: self.world.named(*LEAVING))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """Who leaves does so without further effect on who serves, unless its place was waited for."""
        before = self.world.routable()
        self.world.exited(data.draw(st.sampled_from(self.world.named(*LEAVING))))
        assert self.world.routable() == before or (
            self.may_leave() and len(self.world.routable()) >= self.at_least(len(before))
        )

    @rule(error=st.sampled_from(["", "Traceback"]))
    def answer_reconfigure(self, error: str) -> None:
        """Replicas answer, well or badly."""
        for replica in list(self.world.observed.replicas.values()):
            if replica.pending_options is not None:
                self.world.reconfigured(replica.replica_id, error)

    @invariant()
    def no_two_of_a_version_have_the_same_rank(self) -> None:
        """While both stay."""
        ranks = [(r.version, r.rank) for r in self.world.observed.replicas.values() if r.is_staying]
        assert len(ranks) == len(set(ranks))

    @invariant()
    def planning_again_finds_nothing(self) -> None:
        """Reconciling reaches a fixed point."""
        assert plan(self.world.desired, self.world.observed, self.world.now_s).actions == ()

    @invariant()
    def nobody_is_told_to_drain_while_routable(self) -> None:
        """Whoever was told to go has been taken out of the snapshot before."""
        assert not any(self.world.observed.replicas[name].is_told_to_drain for name in self.world.routable())

    @invariant()
    def starts_are_bounded(self) -> None:
        """There are never more replicas on the way than are wanted."""
        desired = self.world.desired
        current = [
            r
            for r in self.world.observed.replicas.values()
            if r.is_staying and desired is not None and r.version == desired.spec.version
        ]
        assert len(current) <= (desired.spec.num_replicas if desired else 0)

    @invariant()
    def surge_is_bounded(self) -> None:
        """Nothing is started that makes more serve or start than options allow beyond the wanted number."""
        before, self.starts_seen = self.starts_seen, self.world.observed.start_count
        desired = self.world.desired
        if desired is not None and self.starts_seen > before:
            staying = [r for r in self.world.observed.replicas.values() if r.is_staying]
            assert len(staying) <= desired.spec.num_replicas + limits(desired.spec).surge

    def teardown(self) -> None:
        """If everything works from now on, what was asked for is reached."""
        world = self.world
        world.room("some")
        if world.desired is not None:
            world.deploy(world.desired.spec.version, world.desired.spec.num_replicas)
        for _ in range(50):
            for name in world.named(ReplicaState.STARTING):
                if name in world.named(ReplicaState.STARTING):
                    world.running(name)
            for replica in list(world.observed.replicas.values()):
                if replica.pending_options is not None:
                    world.reconfigured(replica.replica_id)
            world.advance(world.now_s + 1)
            for name in world.named(*LEAVING):
                world.exited(name)
        wanted = world.desired.spec.num_replicas if world.desired else 0
        assert len(world.observed.replicas) == len(world.routable()) == wanted
        if world.desired is not None:
            assert {r.version for r in world.observed.replicas.values()} == {world.desired.spec.version}
            assert world.observed.status is DeploymentStatus.HEALTHY
        assert world.wake_at_s is None


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=150,
    stateful_step_count=30,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
