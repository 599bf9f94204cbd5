"""An engine of node agents: each offers a machine, and starts, watches and stops replica processes on it."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from slipknot_core.ids import short_id
from slipknot_core.spec import ApplicationSpec, ReplicaLaunch

from .desired import Build
from .engine import BuildInterrupted, EngineListener, NoRoom
from .outbox import Outbox

logger = logging.getLogger("slipknot.serve")

NODE_RETURN_S = 3.0
"""A node agent that lost its connection has this long to come back before its processes count as unwatched.
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


Command = StartCommand | StopCommand | BuildCommand


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What a node agent says of itself."""

    node_id: str
    hostname: str = ""
    pid: int = 0
    num_cpus: float = 0.0
    memory_bytes: int = 0
    admin_address: str = ""


@dataclass(eq=False, slots=True)
class NodeSession:
    """One connection of one node agent."""

    info: NodeInfo
    outbox: Outbox[Command] = field(default_factory=Outbox)
    builds: dict[str, asyncio.Future[ApplicationSpec | str]] = field(default_factory=dict)


class NodesEngine:
    """An `Engine`. A new replica goes to the node with the fewest. `repr` tells how many nodes and processes
    there are.
    """

    def __init__(self) -> None:
        self._listener: EngineListener | None = None
        self._sessions: dict[str, NodeSession] = {}
        self._processes: dict[str, str] = {}
        self._absences: dict[str, asyncio.TimerHandle] = {}

    def __repr__(self) -> str:
        return f"<NodesEngine: {len(self._sessions)} nodes, {len(self._processes)} processes>"

    def listen(self, listener: EngineListener) -> None:
        """Set who is told what becomes of processes."""
        self._listener = listener

    # For the controller: `Engine`.

    def has_room(self) -> bool:
        """As `Engine.has_room`."""
        return bool(self._sessions)

    def ensure(self, launch: ReplicaLaunch) -> str:
        """As `Engine.ensure`."""
        node_id = self._processes.get(launch.replica_id)
        if node_id is not None:
            return node_id
        session = self._least_loaded()
        node_id = session.info.node_id
        self._processes[launch.replica_id] = node_id
        session.outbox.put(StartCommand(replace(launch, node_id=node_id)))
        return node_id

    def stop(self, replica_id: str, grace_s: float) -> bool:
        """As `Engine.stop`."""
        session = self._sessions.get(self._processes.get(replica_id, ""))
        if session is None:
            return False
        session.outbox.put(StopCommand(replica_id, grace_s))
        return True

    def processes(self) -> Mapping[str, str]:
        """As `Engine.processes`."""
        return self._processes

    async def build(self, name: str, build: Build, timeout_s: float) -> ApplicationSpec | str:
        """As `Engine.build`."""
        session = self._least_loaded()
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

    # For the service that node agents speak to.

    def nodes(self) -> list[tuple[NodeInfo, int]]:
        """The nodes that are here, with the number of their processes."""
        return [(session.info, self._count(node_id)) for node_id, session in sorted(self._sessions.items())]

    def joined(self, info: NodeInfo, replica_ids: Iterable[str]) -> NodeSession:
        """A node agent has connected; an earlier connection of the same node ends."""
        node_id = info.node_id
        before = self._sessions.get(node_id)
        if before is not None:
            self._end(before)
        absence = self._absences.pop(node_id, None)
        if absence is not None:
            absence.cancel()
        session = self._sessions[node_id] = NodeSession(info)
        logger.info("Node %s joined (%s, pid %d).", node_id, info.hostname, info.pid)
        running = set(replica_ids)
        known = {replica_id for replica_id, where in self._processes.items() if where == node_id}
        self._processes.update(dict.fromkeys(running, node_id))
        for replica_id in known - running:
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
        loop = asyncio.get_running_loop()
        self._absences[node_id] = loop.call_later(NODE_RETURN_S, self._give_up_node, node_id)
        self._room_changed()

    def process_exited(self, session: NodeSession, replica_id: str, message: str) -> None:
        """A node agent has seen a process end."""
        if self._processes.get(replica_id) == session.info.node_id:
            del self._processes[replica_id]
        if self._listener is not None:
            self._listener.process_exited(replica_id, message)

    def build_finished(self, session: NodeSession, build_id: str, outcome: ApplicationSpec | str) -> None:
        """A node agent has built an application, or has failed to; ignored if nobody waits any more."""
        waiting = session.builds.get(build_id)
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

    def _give_up_node(self, node_id: str) -> None:
        self._absences.pop(node_id, None)
        lost = [r for r, where in self._processes.items() if where == node_id]
        if lost:
            logger.warning("Node %s did not come back; %d replicas are lost with it.", node_id, len(lost))
        for replica_id in lost:
            self._unknown(replica_id)
        self._room_changed()

    def _unknown(self, replica_id: str) -> None:
        self._processes.pop(replica_id, None)
        if self._listener is not None:
            self._listener.process_unknown(replica_id)

    def _room_changed(self) -> None:
        if self._listener is not None:
            self._listener.room_changed()

    def _least_loaded(self) -> NodeSession:
        if not self._sessions:
            raise NoRoom("no node has joined the cluster")
        return min(self._sessions.values(), key=lambda s: (self._count(s.info.node_id), s.info.node_id))

    def _count(self, node_id: str) -> int:
        return sum(1 for where in self._processes.values() if where == node_id)
