"""Watches the load of autoscaled deployments and changes how many replicas are wanted, as `autoscaling.py`
decides.

Not guaranteed: that the load is exact. Replicas report theirs at most twice a second, callers their queues
four times; a request on its way from one to the other may be counted twice or not at all for that long.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from slipknot_core.autoscaling_spec import AutoscalingSpec
from slipknot_core.errors import StateNotStoredError
from slipknot_core.ids import DeploymentId
from slipknot_core.spec import DeploymentSpec
from slipknot_core.tasks import TaskOwner

from .applications import Applications
from .autoscaling import ScalingState, decide
from .demand import Demand
from .engine import NoRoom
from .lifecycle import ReplicaState
from .observed import ObservedDeployment
from .policies import POLICY_PERIOD_S, Load, PolicyCall, PolicyOutcome, policy_answer, policy_call

logger = logging.getLogger("slipknot.serve")

TICK_S = 0.5
"""Between two decisions on the same deployment, if nothing hurries."""


@dataclass(slots=True)
class _Policy:
    state: Mapping[str, Any] = field(default_factory=dict)
    next_at_s: float = 0.0
    is_asked: bool = False


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
        self._policies: dict[DeploymentId, _Policy] = {}
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
                self._look(deployment_id, spec)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if not self._is_ready():
                continue
            scaled = self._scaled()
            for deployment_id in self._states.keys() - scaled.keys():
                del self._states[deployment_id]
                self._policies.pop(deployment_id, None)
            for deployment_id, spec in scaled.items():
                self._look(deployment_id, spec)

    def _scaled(self) -> dict[DeploymentId, DeploymentSpec]:
        return {
            DeploymentId(record.name, spec.name): spec
            for record in self._applications.records.values()
            if record.spec is not None and not record.is_deleting
            for spec in record.spec.deployments
            if spec.autoscaling is not None
        }

    def _look(self, deployment_id: DeploymentId, spec: DeploymentSpec) -> None:
        if spec.autoscaling is None or deployment_id in self._changing:
            return
        now_s = time.monotonic()
        load = Load(self._ongoing(deployment_id), self._demand.queued(deployment_id, now_s))
        state = self._states.get(deployment_id) or ScalingState()
        decision = decide(spec.autoscaling, spec.num_replicas, load.total, state, now_s)
        self._states[deployment_id] = decision.state
        wakes = spec.num_replicas == 0 and load.total > 0
        if spec.autoscaling.policy_function and not wakes:
            self._ask_policy(deployment_id, spec, load, now_s)
        elif decision.number != spec.num_replicas:
            self._change(deployment_id, spec.autoscaling, decision.number)

    def _ask_policy(
        self, deployment_id: DeploymentId, spec: DeploymentSpec, load: Load, now_s: float
    ) -> None:
        policy = self._policies.setdefault(deployment_id, _Policy())
        observed = self._observed.get(deployment_id)
        if policy.is_asked or now_s < policy.next_at_s or spec.autoscaling is None or observed is None:
            return
        running = sum(r.state is ReplicaState.RUNNING for r in observed.replicas.values())
        call = policy_call(
            deployment_id,
            spec,
            running=running,
            load=load,
            history=self._states[deployment_id].history,
            policy_state=policy.state,
            now_s=now_s,
        )
        policy.is_asked = True
        self._tasks.spawn(
            self._follow_policy(deployment_id, spec, policy, call), f"policy of {deployment_id}"
        )

    async def _follow_policy(
        self, deployment_id: DeploymentId, spec: DeploymentSpec, policy: "_Policy", call: PolicyCall
    ) -> None:
        scaling, error = spec.autoscaling, ""
        assert scaling is not None
        try:
            outcome = await self._evaluate(call)
            load = self._ongoing(deployment_id) + self._demand.queued(deployment_id, time.monotonic())
            number, policy.state = policy_answer(scaling, outcome, load)
            await self._applications.autoscale(deployment_id, scaling, number)
        except StateNotStoredError as refusal:
            error = str(refusal)
        except (NoRoom, ValueError) as caught:
            error = f"The autoscaling policy {scaling.policy_function!r} failed:\n{caught}"
        finally:
            policy.is_asked, policy.next_at_s = False, time.monotonic() + POLICY_PERIOD_S
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

    def _ongoing(self, deployment_id: DeploymentId) -> int:
        observed = self._observed.get(deployment_id)
        if observed is None:
            return 0
        return sum(r.ongoing for r in observed.replicas.values() if r.state is ReplicaState.RUNNING)
