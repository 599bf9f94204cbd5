"""The desired state of all applications: in memory to read, in the store to survive.

Invariants:
- What is in memory has been stored before; a client that gets an answer can rely on it.
- One change at a time, in the order of the calls. A client that goes away does not stop its change half-way.
- A change of which it is not known whether the store has it ends the term: the next one reads what there is.
- `records` holds immutable values: whoever decided on the base of one can check by identity that it is still
  the newest.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from slipknot_core.autoscaling_spec import AutoscalingSpec
from slipknot_core.errors import (
    ApplicationNotFoundError,
    ControllerUnavailableError,
    NotLeaderError,
    StateNotStoredError,
)
from slipknot_core.ids import DeploymentId
from slipknot_core.spec import ApplicationSpec, DeploymentSpec
from slipknot_core.tasks import TaskOwner

from .config_file import read_builds
from .desired import ApplicationRecord, Build
from .store import Fenced, RevisionConflict, StateStore, StoreRefused, StoreUnavailable
from .store.interface import ABSENT
from .validation import check_no_pickle, check_num_replicas, check_route_is_free, checked_application

logger = logging.getLogger("slipknot.serve")

Result = TypeVar("Result")

_RECORDS = "applications/"
_PROVEN = "proven/"
_CONFIG = "config"
_STOP_TIMEOUT_S = 5.0


class Applications:
    """Reads are of memory, changes are awaited. Call `load` first and `stop` last.

    Args:
        store: Where they are kept.
        on_change: Is told the name of an application that has changed.
        on_doubt: Is told why memory and store may differ.
    """

    def __init__(
        self,
        store: StateStore,
        on_change: Callable[[str], None],
        on_doubt: Callable[[str], None] = lambda _: None,
        *,
        allow_pickle: bool = True,
    ) -> None:
        self._store = store
        self._allow_pickle = allow_pickle
        self._on_change = on_change
        self._on_doubt = on_doubt
        self._records: dict[str, ApplicationRecord] = {}
        self._proven: dict[DeploymentId, str] = {}
        self._revisions: dict[str, int] = {}
        self._config_json = ""
        self._config_deploy_id = ""
        self._config_generation = 0
        self._generation = 0
        self._turn = asyncio.Lock()
        self._tasks = TaskOwner("applications")

    @property
    def records(self) -> Mapping[str, ApplicationRecord]:
        """All applications by name."""
        return MappingProxyType(self._records)

    @property
    def config_json(self) -> str:
        """The config last applied; empty if none."""
        return self._config_json

    def proven_version(self, deployment_id: DeploymentId) -> str:
        """The version of the deployment that has last been RUNNING; empty if none."""
        return self._proven.get(deployment_id, "")

    async def load(self) -> None:
        """Read everything from the store, and finish a config that was being applied."""
        for entry in await self._store.list(_RECORDS):
            record = ApplicationRecord.from_bytes(entry.value)
            self._records[record.name] = record
            self._revisions[entry.key] = entry.revision
            self._generation = max(self._generation, record.generation)
        for entry in await self._store.list(_PROVEN):
            app_name, name = entry.key.removeprefix(_PROVEN).split("/")
            self._proven[DeploymentId(unquote(app_name), unquote(name))] = entry.value.decode()
            self._revisions[entry.key] = entry.revision
        await self._load_config()

    async def deploy(self, spec: ApplicationSpec, deploy_id: str = "") -> int:
        """Set the desired state of one application; returns its generation.

        Args:
            spec: What it shall be.
            deploy_id: If the newest deploy has this id, that was it, and nothing changes; empty: it is new.

        Raises:
            ValueError: The spec is not valid.
            ConflictError: Another application has its route prefix.
            StateNotStoredError: The store takes no changes; nothing was changed. Every change may raise it.
        """

        async def change() -> int:
            known = self._records.get(spec.name)
            if known is not None and deploy_id and known.deploy_id == deploy_id:
                return known.generation
            checked = checked_application(spec, self._generation + 1)
            if not self._allow_pickle:
                check_no_pickle(checked)
            check_route_is_free(spec.name, spec.route_prefix, self._records)
            self._generation += 1
            before = replace(known or ApplicationRecord(spec.name, 0, 0.0), deploy_id=deploy_id)
            await self._put(before.with_spec(checked, self._generation, time.time()))
            logger.info("Deploying application %r (generation %d).", spec.name, self._generation)
            return self._generation

        return await self._in_turn(change)

    async def delete(self, name: str) -> bool:
        """Want an application gone; False if there is none."""

        async def change() -> bool:
            record = self._records.get(name)
            if record is not None and not record.is_deleting:
                await self._put(replace(record, is_deleting=True, build=None))
                logger.info("Deleting application %r.", name)
            return record is not None

        return await self._in_turn(change)

    async def delete_all(self) -> None:
        """Want all applications gone, and the config with them."""
        await self.apply_config('{"applications": []}')

        async def change() -> None:
            await self._delete_key(_CONFIG)
            self._config_json = ""

        await self._in_turn(change)

    async def scale(self, deployment_id: DeploymentId, num_replicas: int) -> None:
        """Change the number of replicas of one deployment.

        Raises:
            ApplicationNotFoundError: There is no such deployment.
            ValueError: The number is not valid, or autoscaling decides on it.
        """

        async def change() -> None:
            check_num_replicas(num_replicas)
            record = self._records.get(deployment_id.app_name)
            spec = _deployment(record, deployment_id)
            if record is None or spec is None:
                raise ApplicationNotFoundError(f"there is no deployment {deployment_id}")
            if spec.autoscaling is not None:
                raise ValueError(
                    f"autoscaling decides how many replicas {deployment_id} has; change min_replicas and "
                    "max_replicas of its autoscaling_config, or deploy it with num_replicas instead"
                )
            await self._put(_with_number(record, deployment_id, num_replicas))
            logger.info("Scaling deployment %s to %d.", deployment_id, num_replicas)

        await self._in_turn(change)

    async def autoscale(self, deployment_id: DeploymentId, scaling: AutoscalingSpec, number: int) -> None:
        """Change the number of replicas of a deployment with this autoscaling; ignored if it is outdated."""

        async def change() -> None:
            record = self._records.get(deployment_id.app_name)
            spec = _deployment(record, deployment_id)
            if record is None or spec is None or spec.autoscaling != scaling or spec.num_replicas == number:
                return
            await self._put(_with_number(record, deployment_id, number))
            logger.info("Autoscaling deployment %s from %d to %d.", deployment_id, spec.num_replicas, number)

        await self._in_turn(change)

    async def apply_config(self, config_json: str, deploy_id: str = "") -> int:
        """Make the set of applications equal to a config; returns the generation of all of them.

        Args:
            config_json: The config.
            deploy_id: As in `deploy`, for the config last applied.

        Raises:
            ValueError: The config is not valid; nothing was changed.
            StateNotStoredError: The store takes no changes; a part of the config may have been applied.
        """

        async def change() -> int:
            if deploy_id and deploy_id == self._config_deploy_id:
                return self._config_generation
            builds = read_builds(config_json)
            self._generation += 1
            await self._apply_builds(config_json, builds, self._generation, deploy_id)
            return self._generation

        return await self._in_turn(change)

    async def finish_build(self, before: ApplicationRecord, outcome: ApplicationSpec | str) -> None:
        """Deploy what was built, or note the traceback of a build that failed; ignored if that of
        `before` is not wanted any more.
        """

        async def change() -> None:
            build, record = before.build, self._records.get(before.name)
            if record is None or build is None or record.build is not build:
                return
            try:
                if isinstance(outcome, str):
                    raise ValueError(outcome)
                spec = replace(
                    outcome,
                    name=record.name,
                    route_prefix=build.route_prefix,
                    import_source=build.source,
                    autoscaling_policy=build.autoscaling_policy,
                )
                checked = checked_application(spec, record.generation)
            except ValueError as error:
                await self._put(replace(record, build=replace(build, error=str(error) or "unknown error")))
                logger.error("Building application %r failed: %s", record.name, error)
                return
            await self._put(record.with_spec(checked, record.generation, record.deployed_time_s))
            logger.info("Deploying application %r (generation %d).", record.name, record.generation)

        await self._in_turn(change)

    async def replace(self, before: ApplicationRecord, after: ApplicationRecord) -> bool:
        """Put `after` in the place of `before`; False, and nothing is changed, if that is not the newest any
        more.
        """

        async def change() -> bool:
            if self._records.get(before.name) is not before:
                return False
            await self._put(after)
            return True

        return await self._in_turn(change)

    async def remove(self, before: ApplicationRecord) -> bool:
        """Forget an application; False, and nothing is changed, if `before` is not the newest any more."""

        async def change() -> bool:
            if self._records.get(before.name) is not before:
                return False
            await self._delete_key(_record_key(before.name))
            del self._records[before.name]
            for deployment_id in [i for i in self._proven if i.app_name == before.name]:
                await self._delete_key(_proven_key(deployment_id))
                del self._proven[deployment_id]
            logger.info("Deleted application %r.", before.name)
            self._on_change(before.name)
            return True

        return await self._in_turn(change)

    async def prove(self, deployment_id: DeploymentId, version: str) -> None:
        """Note that a version has been RUNNING, so that a restarted controller does not give it up."""

        async def change() -> None:
            if self._proven.get(deployment_id) != version and deployment_id.app_name in self._records:
                await self._set(_proven_key(deployment_id), version.encode())
                self._proven[deployment_id] = version

        await self._in_turn(change)

    async def stop(self) -> None:
        """Let changes that are under way finish, within bounds; calling it twice is fine."""
        try:
            await asyncio.wait_for(self._turn.acquire(), _STOP_TIMEOUT_S)
            self._turn.release()
        except TimeoutError:
            logger.error("The state store did not finish its changes within %.0f s.", _STOP_TIMEOUT_S)
        await self._tasks.stop()

    async def _load_config(self) -> None:
        entry = await self._store.get(_CONFIG)
        if entry is None:
            return
        self._revisions[_CONFIG] = entry.revision
        stored = json.loads(entry.value)
        self._config_json, generation = stored["config_json"], stored["generation"]
        self._config_deploy_id, self._config_generation = stored.get("deploy_id", ""), generation
        self._generation = max(self._generation, generation)
        if not stored["is_applied"]:
            builds, deploy_id = read_builds(self._config_json), self._config_deploy_id
            await self._in_turn(lambda: self._apply_builds(self._config_json, builds, generation, deploy_id))

    async def _apply_builds(
        self, config_json: str, builds: Mapping[str, Build], generation: int, deploy_id: str
    ) -> None:
        stored = {"config_json": config_json, "generation": generation, "deploy_id": deploy_id}
        await self._put_config(stored, is_applied=False)
        for record in list(self._records.values()):
            if record.name not in builds and not record.is_deleting:
                await self._put(replace(record, is_deleting=True, build=None))
                logger.info("Deleting application %r.", record.name)
        now_s = time.time()
        for name, build in builds.items():
            before = self._records.get(name)
            if before is None or before.is_deleting:
                before = ApplicationRecord(name, generation, now_s)
            await self._put(
                replace(before, generation=generation, deployed_time_s=now_s, build=build, deploy_id="")
            )
            logger.info("Building application %r from %r.", name, build.source.import_path)
        await self._put_config(stored, is_applied=True)
        self._config_json, self._config_deploy_id = config_json, deploy_id
        self._config_generation = generation

    async def _put_config(self, stored: Mapping[str, Any], *, is_applied: bool) -> None:
        await self._set(_CONFIG, json.dumps({**stored, "is_applied": is_applied}).encode())

    async def _put(self, record: ApplicationRecord) -> None:
        await self._set(_record_key(record.name), record.to_bytes())
        self._records[record.name] = record
        self._on_change(record.name)

    async def _set(self, key: str, value: bytes) -> None:
        self._revisions[key] = await self._store.compare_and_swap(
            key, value, self._revisions.get(key, ABSENT)
        )

    async def _delete_key(self, key: str) -> None:
        await self._store.delete(key, self._revisions.get(key))
        self._revisions.pop(key, None)

    async def _in_turn(self, change: Callable[[], Awaitable[Result]]) -> Result:
        outcome: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            async with self._turn:
                try:
                    result = await change()
                except Exception as error:  # noqa: BLE001 - whatever it is belongs to the caller
                    if not outcome.done():
                        outcome.set_exception(self._translated(error))
                    return
            if not outcome.done():
                outcome.set_result(result)

        def give_up(_: object) -> None:
            if not outcome.done():
                outcome.set_exception(ControllerUnavailableError("this controller's term has ended"))

        self._tasks.spawn(run(), "change").add_done_callback(give_up)
        return await outcome

    def _translated(self, error: Exception) -> Exception:
        if isinstance(error, StoreRefused):
            return StateNotStoredError(f"the change could not be stored: {error}")
        if not isinstance(error, Fenced | RevisionConflict | StoreUnavailable):
            return error
        self._on_doubt(f"a change could not be stored: {error}")
        if isinstance(error, Fenced):
            return NotLeaderError("another controller leads")
        return ControllerUnavailableError(f"the change may or may not have been stored: {error}")


async def read_records(store: StateStore) -> dict[str, ApplicationRecord]:
    """The applications as they are stored, by name; for those who do not lead."""
    records = [ApplicationRecord.from_bytes(entry.value) for entry in await store.list(_RECORDS)]
    return {record.name: record for record in records}


async def read_applied_config(store: StateStore) -> str:
    """The config last applied as it is stored; empty if none."""
    entry = await store.get(_CONFIG)
    return str(json.loads(entry.value)["config_json"]) if entry else ""


def _deployment(record: ApplicationRecord | None, deployment_id: DeploymentId) -> DeploymentSpec | None:
    if record is None or record.spec is None or record.is_deleting:
        return None
    return next((d for d in record.spec.deployments if d.name == deployment_id.name), None)


def _with_number(record: ApplicationRecord, deployment_id: DeploymentId, number: int) -> ApplicationRecord:
    assert record.spec is not None
    deployments = [
        replace(d, num_replicas=number) if d.name == deployment_id.name else d
        for d in record.spec.deployments
    ]
    return replace(record, spec=record.spec.with_deployments(deployments))


def _record_key(name: str) -> str:
    return _RECORDS + quote(name, safe="")


def _proven_key(deployment_id: DeploymentId) -> str:
    return f"{_PROVEN}{quote(deployment_id.app_name, safe='')}/{quote(deployment_id.name, safe='')}"
