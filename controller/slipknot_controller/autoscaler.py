"""Watches the load of autoscaled deployments and changes how many replicas are wanted, as `autoscaling.py`
decides.

Not guaranteed: that the load is exact. Replicas report theirs at most twice a second, callers their queues
four times; a request on its way from one to the other may be counted twice or not at all for that long.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from slipknot_core.autoscaling_spec import AutoscalingSpec
from slipknot_core.ids import DeploymentId
from slipknot_core.spec import DeploymentSpec
from slipknot_core.tasks import TaskOwner

from .applications import Applications
from .autoscaling import ScalingState, decide
from .demand import Demand
from .lifecycle import ReplicaState
from .observed import ObservedDeployment

logger = logging.getLogger("slipknot.serve")

TICK_S = 0.5
"""Between two decisions on the same deployment, if nothing hurries."""


class Autoscaler:
    """Belongs to the loop `start` is called on; `stop` before the applications'. `repr` tells how many
    deployments it scales.

    Args:
        applications: Where the numbers are read and changed.
        observed: Deployments by id, with the load that replicas report.
        is_ready: False while the controller does not know yet what runs.
    """

    def __init__(
        self,
        applications: Applications,
        observed: Mapping[DeploymentId, ObservedDeployment],
        is_ready: Callable[[], bool],
    ) -> None:
        self._applications = applications
        self._observed = observed
        self._is_ready = is_ready
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
        load = self._ongoing(deployment_id) + self._demand.queued(deployment_id, now_s)
        state = self._states.get(deployment_id) or ScalingState()
        decision = decide(spec.autoscaling, spec.num_replicas, load, state, now_s)
        self._states[deployment_id] = decision.state
        if decision.number != spec.num_replicas:
            self._change(deployment_id, spec.autoscaling, decision.number)

    def _change(self, deployment_id: DeploymentId, scaling: AutoscalingSpec, number: int) -> None:
        self._changing.add(deployment_id)
        change = self._tasks.spawn(
            self._applications.autoscale(deployment_id, scaling, number), f"scale {deployment_id}"
        )
        change.add_done_callback(lambda _: self._changing.discard(deployment_id))

    def _ongoing(self, deployment_id: DeploymentId) -> int:
        observed = self._observed.get(deployment_id)
        if observed is None:
            return 0
        return sum(r.ongoing for r in observed.replicas.values() if r.state is ReplicaState.RUNNING)
