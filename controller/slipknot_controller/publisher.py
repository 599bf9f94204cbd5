"""What the controller tells: snapshots to those who route, the status to those who look.

A snapshot is published when the routes have changed, and only by a controller that knows what runs and leads;
the status always.
"""

import asyncio
from collections.abc import Callable, Mapping

from slipknot_core.ids import DeploymentId
from slipknot_proto.v1 import controller_pb2, discovery_pb2

from .applications import Applications
from .latest import Latest
from .messages import snapshot_message, status_message
from .nodes_engine import NodesEngine
from .observed import ObservedDeployment
from .routes import application_routes

MODELS_PUBLISH_S = 0.1
"""Reports of multiplexed models are collected for this long before a snapshot tells them."""
MODELS_PUBLISH_PER_REPLICA_S = 0.002
"""Added for each replica in the cluster: a snapshot tells all of them, to all of them."""


class Publisher:
    """Looks at desired and observed state and tells what is new. `close` last; `repr` tells the version.

    Args:
        address: The controller's own.
        applications: Desired state.
        observed: Deployments by id.
        engine: The nodes.
        may_publish: What runs is known, and this controller leads.
        refuse_pickle: Members of the cluster must not read pickle.
    """

    def __init__(
        self,
        address: str,
        applications: Applications,
        observed: Mapping[DeploymentId, ObservedDeployment],
        engine: NodesEngine,
        may_publish: Callable[[], bool],
        *,
        refuse_pickle: bool,
    ) -> None:
        self.epoch = 0
        """Goes with everything that is told."""
        self.admin_address = ""
        """Where this controller's metrics are."""
        self.snapshots: Latest[discovery_pb2.Snapshot] = Latest()
        self.statuses: Latest[controller_pb2.ClusterStatus] = Latest()
        self._address = address
        self._applications = applications
        self._observed = observed
        self._engine = engine
        self._may_publish = may_publish
        self._refuse_pickle = refuse_pickle
        self._proxies: dict[str, discovery_pb2.ProxyInfo] = {}
        self._version = 0
        self._routes: object = None
        self._models_timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Publisher: epoch {self.epoch}, version {self._version}>"

    def close(self) -> None:
        """Everybody who listens hears the end; calling it twice is fine."""
        if self._models_timer is not None:
            self._models_timer.cancel()
        self.snapshots.close()
        self.statuses.close()

    def raise_epoch(self, epoch: int) -> None:
        """Go on with another epoch, and tell everything again."""
        self.epoch, self._routes = epoch, None
        self.publish()

    def publish(self) -> None:
        """Tell what is new."""
        if self._may_publish():
            routes = application_routes(self._applications.records, self._observed)
            if routes != self._routes:
                self._routes = routes
                self._version += 1
                self.snapshots.publish(
                    snapshot_message(self.epoch, self._version, routes, refuse_pickle=self._refuse_pickle)
                )
        self.publish_status()

    def publish_status(self) -> None:
        """Tell what is new of the status; no routes have changed."""
        status = self.status()
        if status != self.statuses.value:
            self.statuses.publish(status)

    def publish_models(self, replica_count: int) -> None:
        """Replicas hold other models: publish soon, for all reports of that time together."""
        if self._models_timer is None:
            delay_s = MODELS_PUBLISH_S + MODELS_PUBLISH_PER_REPLICA_S * replica_count
            self._models_timer = asyncio.get_running_loop().call_later(delay_s, self._models_are_due)

    def proxy_joined(self, proxy: discovery_pb2.ProxyInfo) -> None:
        """A proxy follows the snapshots."""
        self._proxies[proxy.proxy_id] = proxy
        self.publish_status()

    def proxy_left(self, proxy: discovery_pb2.ProxyInfo) -> None:
        """A proxy's connection has ended."""
        if self._proxies.get(proxy.proxy_id) is proxy:
            del self._proxies[proxy.proxy_id]
            self.publish_status()

    def status(self) -> controller_pb2.ClusterStatus:
        """The status now."""
        status = status_message(
            self.epoch,
            self._version,
            self._applications.records,
            self._observed,
            (self._proxies.values(), self._engine.view()),
            leader_address=self._address,
        )
        status.admin_address = self.admin_address
        return status

    def _models_are_due(self) -> None:
        self._models_timer = None
        self.publish()
