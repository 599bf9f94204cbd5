"""An engine of node agents: each offers a machine, and starts, watches and stops replica processes on it."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from slipknot_core.ids import DeploymentId, short_id
from slipknot_core.spec import ApplicationSpec, ReplicaLaunch

from .desired import Build
from .engine import BuildInterrupted, EngineListener, NoRoom
from .outbox import Outbox
from .placement import Holding, NodeOffer, NoPlace, Wanted, place
from .policies import PolicyCall, PolicyOutcome

logger = logging.getLogger("slipknot.serve")

NODE_RETURN_S = 3.0
"""A node agent that lost its connection has this long to come back before its processes count as unwatched.
"""
QUIET_S = 2.0
"""A node that has not been heard of for so long, twice its usual pause, gets new replicas only if no other
node has room.
"""
BUILD_SLACK_S = 5.0
"""Given to a node on top of a build's own timeout to report that it has passed."""


@dataclass(frozen=True, slots=True)
class StartCommand:
    """Start a replica process."""

    launch: ReplicaLaunch


@dataclass(frozen=True, slots=True)
class StopCommand:
    """End a replica process."""

    replica_id: str
    grace_s: float


@dataclass(frozen=True, slots=True)
class BuildCommand:
    """Build an application in a throw-away process."""

    build_id: str
    name: str
    build: Build
    timeout_s: float


@dataclass(frozen=True, slots=True)
class PolicyCommand:
    """Evaluate an autoscaling policy in a throw-away process."""

    evaluation_id: str
    call: PolicyCall


@dataclass(frozen=True, slots=True)
class LeavingNoted:
    """Nothing more is placed on a node that has said that it leaves."""


Command = StartCommand | StopCommand | BuildCommand | PolicyCommand | LeavingNoted


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What a node agent says of itself."""

    node_id: str
    hostname: str = ""
    pid: int = 0
    offer: NodeOffer = field(default_factory=lambda: NodeOffer(""))
    admin_address: str = ""


@dataclass(frozen=True, slots=True)
class NodesView:
    """The nodes that are here, and what runs where."""

    nodes: tuple[NodeInfo, ...]
    holdings: Mapping[str, Holding]
    """By replica id."""


@dataclass(eq=False, slots=True)
class NodeSession:
    """One connection of one node agent."""

    info: NodeInfo
    heard_at_s: float = field(default_factory=time.monotonic)
    is_leaving: bool = False
    """It finishes what it has; nothing more is placed there."""
    outbox: Outbox[Command] = field(default_factory=Outbox)
    builds: dict[str, asyncio.Future[ApplicationSpec | str]] = field(default_factory=dict)
    evaluations: dict[str, asyncio.Future[PolicyOutcome]] = field(default_factory=dict)


class NodesEngine:
    """An `Engine`. Where a new replica goes is decided by `placement.py`. `repr` tells how many nodes and
    processes there are.
    """

    def __init__(self) -> None:
        self._listener: EngineListener | None = None
        self._sessions: dict[str, NodeSession] = {}
        self._holdings: dict[str, Holding] = {}
        self._absences: dict[str, asyncio.TimerHandle] = {}

    def __repr__(self) -> str:
        return f"<NodesEngine: {len(self._sessions)} nodes, {len(self._holdings)} processes>"

    def listen(self, listener: EngineListener) -> None:
        """Set who is told what becomes of processes."""
        self._listener = listener

    # For the controller: `Engine`.

    def can_build(self) -> bool:
        """As `Engine.can_build`."""
        return any(not session.is_leaving for session in self._sessions.values())

    def ensure(self, launch: ReplicaLaunch) -> str:
        """As `Engine.ensure`."""
        holding = self._holdings.get(launch.replica_id)
        if holding is not None:
            return holding.node_id
        spec = launch.deployment
        deployment = DeploymentId(launch.app_name, spec.name)
        wanted = Wanted(
            deployment, spec.resources, spec.placement_strategy, spec.max_replicas_per_node, spec.version
        )
        found = place(wanted, self._offers(), self._holdings.values())
        if isinstance(found, NoPlace):
            raise NoRoom(found.reason, found.blockers)
        self._holdings[launch.replica_id] = Holding(
            launch.replica_id, deployment, found.node_id, spec.resources, found.gpu_ids, spec.version
        )
        launch = replace(launch, node_id=found.node_id, gpu_ids=found.gpu_ids)
        self._sessions[found.node_id].outbox.put(StartCommand(launch))
        return found.node_id

    def stop(self, replica_id: str, grace_s: float) -> bool:
        """As `Engine.stop`."""
        holding = self._holdings.get(replica_id)
        session = self._sessions.get(holding.node_id) if holding is not None else None
        if session is None:
            return False
        session.outbox.put(StopCommand(replica_id, grace_s))
        return True

    def processes(self) -> Mapping[str, str]:
        """As `Engine.processes`."""
        return {replica_id: holding.node_id for replica_id, holding in self._holdings.items()}

    async def build(self, name: str, build: Build, timeout_s: float) -> ApplicationSpec | str:
        """As `Engine.build`."""
        session = self._builder()
        build_id = short_id()
        outcome: asyncio.Future[ApplicationSpec | str] = asyncio.get_running_loop().create_future()
        session.builds[build_id] = outcome
        session.outbox.put(BuildCommand(build_id, name, build, timeout_s))
        try:
            return await asyncio.wait_for(outcome, timeout_s + BUILD_SLACK_S)
        except TimeoutError:
            return f"The build did not end within {timeout_s:g} s."
        finally:
            session.builds.pop(build_id, None)

    async def evaluate(self, call: PolicyCall) -> PolicyOutcome:
        """As `Engine.evaluate`."""
        session = self._builder()
        evaluation_id = short_id()
        outcome: asyncio.Future[PolicyOutcome] = asyncio.get_running_loop().create_future()
        session.evaluations[evaluation_id] = outcome
        session.outbox.put(PolicyCommand(evaluation_id, call))
        try:
            return await asyncio.wait_for(outcome, call.timeout_s + BUILD_SLACK_S)
        except TimeoutError:
            return PolicyOutcome(error=f"The policy did not answer within {call.timeout_s:g} s.")
        finally:
            session.evaluations.pop(evaluation_id, None)

    # For the service that node agents speak to.

    def view(self) -> NodesView:
        """The nodes that are here, and what runs where."""
        return NodesView(tuple(s.info for _, s in sorted(self._sessions.items())), self._holdings)

    def is_watched(self, replica_id: str) -> bool:
        """A node that is here says that the replica's process runs."""
        holding = self._holdings.get(replica_id)
        return holding is not None and holding.node_id in self._sessions

    def joined(self, info: NodeInfo, holdings: Iterable[Holding]) -> NodeSession:
        """A node agent has connected; an earlier connection of the same node ends.

        Args:
            info: The node and what it offers.
            holdings: The replicas that run there.
        """
        node_id = info.node_id
        before = self._sessions.get(node_id)
        if before is not None:
            self._end(before)
        absence = self._absences.pop(node_id, None)
        if absence is not None:
            absence.cancel()
        session = self._sessions[node_id] = NodeSession(info)
        logger.info("Node %s joined (%s, pid %d).", node_id, info.hostname, info.pid)
        known = {h.replica_id for h in self._holdings.values() if h.node_id == node_id}
        running = {holding.replica_id: holding for holding in holdings}
        self._holdings.update(running)
        for replica_id in sorted(known - running.keys()):
            self._unknown(replica_id)
        self._room_changed()
        return session

    def left(self, session: NodeSession) -> None:
        """A node agent's connection has ended; its processes may live on for a while."""
        node_id = session.info.node_id
        self._end(session)
        if self._sessions.get(node_id) is not session:
            return
        del self._sessions[node_id]
        logger.info("Node %s left.", node_id)
        if self._listener is None:
            return  # closed: whether it comes back is another engine's concern
        loop = asyncio.get_running_loop()
        self._absences[node_id] = loop.call_later(NODE_RETURN_S, self._give_up_node, node_id)
        self._listener.node_left([h.replica_id for h in self._holdings.values() if h.node_id == node_id])
        self._room_changed()

    def leaving(self, session: NodeSession) -> None:
        """A node agent is about to end its replicas, and itself."""
        session.is_leaving = True
        session.outbox.put(LeavingNoted())
        logger.info("Node %s drains.", session.info.node_id)

    def process_exited(self, session: NodeSession, replica_id: str, message: str) -> None:
        """A node agent has seen a process end."""
        holding = self._holdings.get(replica_id)
        if holding is not None and holding.node_id == session.info.node_id:
            del self._holdings[replica_id]
        if self._listener is not None:
            self._listener.process_exited(replica_id, message)

    def build_finished(self, session: NodeSession, build_id: str, outcome: ApplicationSpec | str) -> None:
        """A node agent has built an application, or has failed to; ignored if nobody waits any more."""
        waiting = session.builds.get(build_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(outcome)

    def policy_evaluated(self, session: NodeSession, evaluation_id: str, outcome: PolicyOutcome) -> None:
        """A node agent has evaluated a policy, or has failed to; ignored if nobody waits any more."""
        waiting = session.evaluations.get(evaluation_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(outcome)

    def close(self) -> None:
        """End all connections; calling it twice is fine."""
        for absence in self._absences.values():
            absence.cancel()
        self._absences.clear()
        self._listener = None
        for session in self._sessions.values():
            self._end(session)

    def _end(self, session: NodeSession) -> None:
        session.outbox.close()
        for waiting in session.builds.values():
            if not waiting.done():
                waiting.set_exception(BuildInterrupted(f"node {session.info.node_id} left"))
        for evaluation in session.evaluations.values():
            if not evaluation.done():
                evaluation.set_result(PolicyOutcome(error=f"Node {session.info.node_id} left."))

    def _give_up_node(self, node_id: str) -> None:
        self._absences.pop(node_id, None)
        lost = [h.replica_id for h in self._holdings.values() if h.node_id == node_id]
        if lost:
            logger.warning("Node %s did not come back; %d replicas are lost with it.", node_id, len(lost))
        for replica_id in lost:
            self._unknown(replica_id)
        self._room_changed()

    def _unknown(self, replica_id: str) -> None:
        self._holdings.pop(replica_id, None)
        if self._listener is not None:
            self._listener.process_unknown(replica_id)

    def _room_changed(self) -> None:
        if self._listener is not None:
            self._listener.room_changed()

    def _offers(self) -> list[NodeOffer]:
        silent_since_s = time.monotonic() - QUIET_S
        return [
            replace(session.info.offer, node_id=node_id, answers=session.heard_at_s >= silent_since_s)
            for node_id, session in self._sessions.items()
            if not session.is_leaving
        ]

    def _builder(self) -> NodeSession:
        """The node that answers and has the fewest processes."""
        offers = {offer.node_id: offer for offer in self._offers()}
        if not offers:
            raise NoRoom("no node has joined the cluster")
        counts = Counter(holding.node_id for holding in self._holdings.values())
        best = min(offers, key=lambda n: (not offers[n].answers, counts[n], n))
        return self._sessions[best]
