"""The seam between how many replicas there should be and where their processes run.

An engine is told synchronously and never blocks; what comes of it is reported to its listener. It places
processes by itself. Asking twice for the same replica is asking once.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from slipknot_core.spec import ApplicationSpec, ReplicaLaunch

from .desired import Build
from .policies import PolicyCall, PolicyOutcome


class NoRoom(Exception):
    """There is no place for another process now, the message says why; the listener hears when that may have
    changed.

    Args:
        reason: For people.
        blockers: Replicas of other versions of the same deployment; once all have ended there is a place.
    """

    def __init__(self, reason: str, blockers: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.reason, self.blockers = reason, blockers


class BuildInterrupted(Exception):
    """The build neither worked nor failed: its node went away. Build again."""


class EngineListener(Protocol):
    """Who wants to know what becomes of processes. Called on the event loop."""

    def process_exited(self, replica_id: str, message: str) -> None:
        """A process has ended; `message` says how, with its last words."""
        ...

    def process_unknown(self, replica_id: str) -> None:
        """Nobody watches a process any more: its node went away and did not come back, or came back without
        it.
        """
        ...

    def node_left(self, replica_ids: Sequence[str]) -> None:
        """A node went away; these replicas are there. They may live on, or have gone with it."""
        ...

    def room_changed(self) -> None:
        """Places, or the processes that are known to run, have changed."""
        ...


class Engine(Protocol):
    """Starts, stops and lists replica processes, and builds applications."""

    def can_build(self) -> bool:
        """`build` would find a place now."""
        ...

    def ensure(self, launch: ReplicaLaunch) -> str:
        """Have a process started, unless there is one; returns the id of its node.

        Raises:
            NoRoom: There is no place for it.
        """
        ...

    def stop(self, replica_id: str, grace_s: float) -> bool:
        """Have a process ended: asked to at once, forced to after `grace_s`. False: it is not known."""
        ...

    def processes(self) -> Mapping[str, str]:
        """Replica ids of the processes that run, as far as is known, with the ids of their nodes."""
        ...

    async def build(self, name: str, build: Build, timeout_s: float) -> ApplicationSpec | str:
        """Build an application where its code can run; returns it, or the traceback of its failure.

        Raises:
            NoRoom: There is no place to build.
            BuildInterrupted: The place was lost.
        """
        ...

    async def evaluate(self, call: PolicyCall) -> PolicyOutcome:
        """Call an autoscaling policy where its code can run.

        Raises:
            NoRoom: There is no place for it.
        """
        ...
