"""Watches the load of autoscaled deployments and changes how many replicas are wanted, as `autoscaling.py`
decides.

Not guaranteed: that the load is exact. Replicas report theirs at most twice a second, callers their queues
four times; a request on its way from one to the other may be counted twice or not at all for that long.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from slipknot_core.autoscaling_spec import AutoscalingSpec
from slipknot_core.errors import StateNotStoredError
from slipknot_core.ids import DeploymentId
from slipknot_core.spec import ApplicationSpec, DeploymentSpec
from slipknot_core.tasks import TaskOwner

from .applications import Applications
from .autoscaling import ScalingState, decide
from .demand import Demand
from .engine import NoRoom
from .lifecycle import ReplicaState
from .observed import ObservedDeployment, Replica
from .policies import (
    POLICY_PERIOD_S,
    Load,
    PolicyCall,
    PolicyOutcome,
    Situation,
    allowed_number,
    application_policy_answer,
    application_policy_call,
    deployment_policy_answer,
    deployment_policy_call,
)

logger = logging.getLogger("slipknot.serve")

TICK_S = 0.5
"""Between two decisions on the same deployment, if nothing hurries."""


@dataclass(slots=True)
class _Policy:
    state: Mapping[str, Any] = field(default_factory=dict)
    """That of an application's policy is by the names of its deployments."""
    next_at_s: float = 0.0
    is_asked: bool = False

    def is_due(self, now_s: float) -> bool:
        """It may be asked now."""
        return not self.is_asked and now_s >= self.next_at_s


class Autoscaler:
    """Belongs to the loop `start` is called on; `stop` before the applications'. `repr` tells how many
    deployments it scales.

    Args:
        applications: Where the numbers are read and changed.
        observed: Deployments by id, with the load that replicas report.
        is_ready: False while the controller does not know yet what runs.
        evaluate: Calls a policy of the user's on a node.
        on_news: Told of a deployment whose status has news.
    """

    def __init__(
        self,
        applications: Applications,
        observed: Mapping[DeploymentId, ObservedDeployment],
        is_ready: Callable[[], bool],
        evaluate: Callable[[PolicyCall], Awaitable[PolicyOutcome]],
        on_news: Callable[[DeploymentId], None],
    ) -> None:
        self._applications = applications
        self._observed = observed
        self._is_ready = is_ready
        self._evaluate = evaluate
        self._on_news = on_news
        self._policies: dict[DeploymentId | str, _Policy] = {}  # of deployments, and of applications by name
        self._demand = Demand()
        self._states: dict[DeploymentId, ScalingState] = {}
        self._changing: set[DeploymentId] = set()
        self._tasks = TaskOwner("autoscaler")

    def __repr__(self) -> str:
        return f"<Autoscaler: {len(self._states)} deployments, {self._demand}>"

    def start(self) -> None:
        """Begin to look at the load."""
        self._tasks.spawn(self._tick(), "tick")

    async def stop(self) -> None:
        """Change nothing more; calling it twice is fine."""
        await self._tasks.stop()

    def reported(self, caller: str, queued: Mapping[DeploymentId, int]) -> None:
        """A caller has told what waits in its queues; a deployment without replicas gets one at once."""
        self._demand.reported(caller, queued, time.monotonic())
        if not self._is_ready():
            return
        scaled = self._scaled()
        for deployment_id in queued:
            spec = scaled.get(deployment_id)
            if spec is not None and spec.num_replicas == 0:
                self._look(deployment_id, spec, time.monotonic())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if not self._is_ready():
                continue
            scaled, now_s = self._scaled(), time.monotonic()
            for deployment_id in self._states.keys() - scaled.keys():
                del self._states[deployment_id]
            applications = {deployment_id.app_name for deployment_id in scaled}
            for key in self._policies.keys() - scaled.keys() - applications:
                del self._policies[key]
            for deployment_id, spec in scaled.items():
                self._look(deployment_id, spec, now_s)
            for name in applications:
                self._ask_application(name, [i for i in scaled if i.app_name == name], now_s)

    def _scaled(self) -> dict[DeploymentId, DeploymentSpec]:
        return {
            DeploymentId(record.name, spec.name): spec
            for record in self._applications.records.values()
            if record.spec is not None and not record.is_deleting
            for spec in record.spec.deployments
            if spec.autoscaling is not None
        }

    def _look(self, deployment_id: DeploymentId, spec: DeploymentSpec, now_s: float) -> None:
        if spec.autoscaling is None or deployment_id in self._changing:
            return
        load = self._load(deployment_id, now_s)
        state = self._states.get(deployment_id) or ScalingState()
        decision = decide(spec.autoscaling, spec.num_replicas, load.total, state, now_s)
        self._states[deployment_id] = decision.state
        wakes = spec.num_replicas == 0 and load.total > 0
        if self._application(deployment_id.app_name).autoscaling_policy is not None and not wakes:
            return  # it is asked once for all of them
        if spec.autoscaling.policy_function and not wakes:
            self._ask_deployment(deployment_id, now_s)
        elif decision.number != spec.num_replicas:
            self._change(deployment_id, spec.autoscaling, decision.number)

    def _ask_deployment(self, deployment_id: DeploymentId, now_s: float) -> None:
        policy = self._policies.setdefault(deployment_id, _Policy())
        if policy.is_due(now_s):
            policy.is_asked = True
            situation = self._situation(deployment_id, policy.state, now_s)
            self._tasks.spawn(self._follow_deployment(situation, policy), f"policy of {deployment_id}")

    def _ask_application(self, name: str, deployments: Sequence[DeploymentId], now_s: float) -> None:
        application = self._application(name)
        policy = self._policies.setdefault(name, _Policy())
        if application.autoscaling_policy is None or not policy.is_due(now_s):
            return
        policy.is_asked = True
        situations = [self._situation(i, policy.state.get(i.name, {}), now_s) for i in deployments]
        self._tasks.spawn(self._follow_application(application, situations, policy), f"policy of {name}")

    async def _follow_deployment(self, situation: Situation, policy: _Policy) -> None:
        deployment_id, scaling = situation.id, situation.spec.autoscaling
        assert scaling is not None
        async with self._following(policy, scaling.policy_function, [deployment_id]):
            outcome = await self._evaluate(deployment_policy_call(situation, time.monotonic()))
            load = self._load(deployment_id, time.monotonic())
            number, policy.state = deployment_policy_answer(scaling, outcome, load.total)
            await self._applications.autoscale(deployment_id, scaling, number)

    async def _follow_application(
        self, application: ApplicationSpec, situations: Sequence[Situation], policy: _Policy
    ) -> None:
        assert application.autoscaling_policy is not None
        function = application.autoscaling_policy.policy_function
        async with self._following(policy, function, [situation.id for situation in situations]):
            outcome = await self._evaluate(application_policy_call(application, situations, time.monotonic()))
            numbers, policy.state = application_policy_answer(outcome)
            for situation in situations:
                scaling, number = situation.spec.autoscaling, numbers.get(situation.id.name)
                if scaling is not None and number is not None:
                    load = self._load(situation.id, time.monotonic())
                    allowed = allowed_number(scaling, number, load.total)
                    await self._applications.autoscale(situation.id, scaling, allowed)

    @asynccontextmanager
    async def _following(
        self, policy: _Policy, function: str, deployments: Sequence[DeploymentId]
    ) -> AsyncIterator[None]:
        error = ""
        try:
            yield
        except StateNotStoredError as refusal:
            error = str(refusal)
        except (NoRoom, ValueError) as caught:
            error = f"The autoscaling policy {function!r} failed:\n{caught}"
        finally:
            policy.is_asked, policy.next_at_s = False, time.monotonic() + POLICY_PERIOD_S
        for deployment_id in deployments:
            self._note(deployment_id, error)

    def _note(self, deployment_id: DeploymentId, error: str) -> None:
        observed = self._observed.get(deployment_id)
        if observed is None or observed.scaling_error == error:
            return
        observed.scaling_error = error
        if error:
            logger.warning("Deployment %s: %s", deployment_id, error)
        self._on_news(deployment_id)

    def _change(self, deployment_id: DeploymentId, scaling: AutoscalingSpec, number: int) -> None:
        self._changing.add(deployment_id)
        change = self._tasks.spawn(self._autoscale(deployment_id, scaling, number), f"scale {deployment_id}")
        change.add_done_callback(lambda _: self._changing.discard(deployment_id))

    async def _autoscale(self, deployment_id: DeploymentId, scaling: AutoscalingSpec, number: int) -> None:
        error = ""
        try:
            await self._applications.autoscale(deployment_id, scaling, number)
        except StateNotStoredError as refusal:  # decided again with the next look
            error = f"Autoscaling to {number} failed: {refusal}"
        self._note(deployment_id, error)

    def _application(self, name: str) -> ApplicationSpec:
        """One that has scaled deployments."""
        spec = self._applications.records[name].spec
        assert spec is not None
        return spec

    def _situation(
        self, deployment_id: DeploymentId, policy_state: Mapping[str, Any], now_s: float
    ) -> Situation:
        return Situation(
            deployment_id,
            self._scaled()[deployment_id],
            self._load(deployment_id, now_s),
            running=[r.replica_id for r in self._running(deployment_id)],
            history=self._states.get(deployment_id, ScalingState()).history,
            state=policy_state,
        )

    def _load(self, deployment_id: DeploymentId, now_s: float) -> Load:
        ongoing = sum(r.ongoing for r in self._running(deployment_id))
        return Load(ongoing, self._demand.queued(deployment_id, now_s))

    def _running(self, deployment_id: DeploymentId) -> list[Replica]:
        observed = self._observed.get(deployment_id)
        if observed is None:
            return []
        return [r for r in observed.replicas.values() if r.state is ReplicaState.RUNNING]
