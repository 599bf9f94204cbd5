"""Steps that the controller takes by itself and that change what is stored: removing an application that has
ended, going on with a rollout, going back to the last good version, building, noting that a version has run.

A step that the store refuses (its disk is full) is taken again later, for as long as it is due.
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any

from slipknot_core.errors import StateNotStoredError
from slipknot_core.ids import DeploymentId
from slipknot_core.spec import ApplicationSpec
from slipknot_core.tasks import TaskOwner

from .applications import Applications
from .desired import ApplicationRecord, Build
from .engine import BuildInterrupted, NoRoom
from .nodes_engine import NodesEngine
from .observed import ObservedDeployment
from .reconcile_queue import ReconcileQueue
from .rollback import after_failure
from .rollout import after_rollout, is_deleted

logger = logging.getLogger("slipknot.serve")

BUILD_TIMEOUT_S = 120.0
"""For building an application from its import path."""
STORE_RETRY_S = 2.0
"""After the store has refused a step."""


class Steps:
    """Takes steps in the background; `stop` cancels them. `repr` tells how many are under way.

    Args:
        applications: What is changed.
        observed: Deployments by id.
        engine: Builds.
        queue: Is asked to look at an application again.
    """

    def __init__(
        self,
        applications: Applications,
        observed: Mapping[DeploymentId, ObservedDeployment],
        engine: NodesEngine,
        queue: ReconcileQueue[str],
    ) -> None:
        self._applications = applications
        self._observed = observed
        self._engine = engine
        self._queue = queue
        self._builds: dict[str, Build] = {}
        self._refusal = ""
        self._tasks = TaskOwner("steps")

    def __repr__(self) -> str:
        return f"<Steps: {len(self._tasks)} under way>"

    async def stop(self) -> None:
        """Take no more; calling it twice is fine."""
        await self._tasks.stop()

    def advance(self, record: ApplicationRecord) -> None:
        """Begin what takes time, or take the next step of a rollout that has come so far."""
        if is_deleted(record, self._observed):
            self._spawn(record, f"remove {record.name}", self._applications.remove(record))
            return
        after = after_rollout(record, self._observed) or after_failure(record, self._observed)
        if after is not None:
            self._spawn(record, f"go on with {record.name}", self._applications.replace(record, after))
        build = record.build
        if (
            build
            and not build.error
            and self._engine.can_build()
            and self._builds.get(record.name) is not build
        ):
            self._builds[record.name] = build
            self._spawn(record, f"build {record.name}", self._build(record, build))

    def prove(self, deployment_id: DeploymentId, observed: ObservedDeployment) -> None:
        """The version that is wanted has run: note it."""
        self._tasks.spawn(self._prove(deployment_id, observed), "note a proven version")

    def _spawn(self, record: ApplicationRecord, name: str, step: Coroutine[Any, Any, Any]) -> None:
        async def take() -> None:
            try:
                await step
            except StateNotStoredError as error:
                self._refused(name, error)
                self._queue.add_after(record.name, STORE_RETRY_S)
            else:
                self._refusal = ""

        self._tasks.spawn(take(), name)

    def _refused(self, name: str, error: StateNotStoredError) -> None:
        if str(error) != self._refusal:  # else it is said every other second
            self._refusal = str(error)
            logger.error("Cannot %s now, trying again until it can be stored: %s", name, error)

    async def _prove(self, deployment_id: DeploymentId, observed: ObservedDeployment) -> None:
        wanted = observed.wanted
        version = wanted.spec.version if wanted is not None else None
        while version is not None and observed.wanted is not None and observed.wanted.spec.version == version:
            try:
                await self._applications.prove(deployment_id, version)
            except StateNotStoredError as error:
                self._refused(f"note that a version of {deployment_id} has run", error)
                await asyncio.sleep(STORE_RETRY_S)
            else:
                return

    async def _build(self, record: ApplicationRecord, build: Build) -> None:
        outcome: ApplicationSpec | str
        try:
            outcome = await self._engine.build(record.name, build, BUILD_TIMEOUT_S)
            await self._applications.finish_build(record, outcome)
        except (NoRoom, BuildInterrupted) as error:
            logger.warning("Building application %r again: %s.", record.name, error)
            self._queue.retry(record.name)
        finally:
            if self._builds.get(record.name) is build:
                del self._builds[record.name]
