"""From the controller's own values to the messages that others read: snapshots and statuses. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping

from slipknot_core.routing.snapshot import ApplicationRoute, DeploymentRoute
from slipknot_core.spec import DeploymentSpec
from slipknot_proto.v1 import controller_pb2, discovery_pb2

from .condition import application_condition
from .desired import ApplicationRecord
from .lifecycle import ReplicaState
from .nodes_engine import NodeInfo, NodesView
from .observed import ObservedDeployment, Replica
from .placement import Holding, used_amounts
from .rollout import Observed

_SHOWN_STATE = {
    ReplicaState.STARTING: "STARTING",
    ReplicaState.RUNNING: "RUNNING",
    ReplicaState.DRAINING: "STOPPING",
    ReplicaState.FAILED: "STOPPING",
    ReplicaState.LOST: "STOPPING",
}


def snapshot_message(
    epoch: int, version: int, routes: Mapping[str, ApplicationRoute], *, refuse_pickle: bool = False
) -> discovery_pb2.Snapshot:
    """The routing state as routers read it."""
    return discovery_pb2.Snapshot(
        epoch=epoch,
        version=version,
        applications=[_application_route(route) for route in routes.values()],
        refuse_pickle=refuse_pickle,
    )


def status_message(
    epoch: int,
    snapshot_version: int,
    records: Mapping[str, ApplicationRecord],
    observed: Observed,
    members: tuple[Iterable[discovery_pb2.ProxyInfo], NodesView],
    *,
    leader_address: str = "",
) -> controller_pb2.ClusterStatus:
    """The whole status.

    Args:
        epoch: The controller's term.
        snapshot_version: Of the newest snapshot.
        records: Applications by name.
        observed: Deployments by id.
        members: The proxies, and the nodes with what runs there.
        leader_address: Of the controller whose status this is.
    """
    proxies, nodes = members
    return controller_pb2.ClusterStatus(
        epoch=epoch,
        snapshot_version=snapshot_version,
        applications=[
            _application_status(records[name], observed, nodes.holdings) for name in sorted(records)
        ],
        proxies=[_proxy_status(proxy) for proxy in proxies],
        nodes=[_node_status(node, nodes.holdings) for node in nodes.nodes],
        leader_address=leader_address,
        answered_by=leader_address,
    )


def _application_route(route: ApplicationRoute) -> discovery_pb2.ApplicationRoute:
    return discovery_pb2.ApplicationRoute(
        name=route.name,
        route_prefix=route.route_prefix or "",
        ingress_deployment=route.ingress_deployment,
        deployments=[_deployment_route(deployment) for deployment in route.deployments.values()],
        unavailable=route.unavailable,
    )


def _deployment_route(route: DeploymentRoute) -> discovery_pb2.DeploymentRoute:
    retry_after_s = route.backpressure_retry_after_s
    return discovery_pb2.DeploymentRoute(
        name=route.id.name,
        max_ongoing_requests=route.max_ongoing_requests,
        max_queued_requests=route.max_queued_requests,
        backpressure_status_code=route.backpressure_status_code,
        backpressure_retry_after_s=-1 if retry_after_s is None else retry_after_s,
        replicas=[
            discovery_pb2.ReplicaRoute(
                replica_id=replica.replica_id,
                address=replica.address,
                node_id=replica.node_id,
                max_ongoing_requests=replica.max_ongoing_requests,
                multiplexed_model_ids=sorted(replica.model_ids),
            )
            for replica in route.replicas
        ],
        unavailable=route.unavailable,
        autoscaled=route.autoscaled,
    )


def _application_status(
    record: ApplicationRecord, observed: Observed, holdings: Mapping[str, Holding]
) -> controller_pb2.ApplicationStatus:
    by_name = {i.name: observed[i] for i in record.deployment_ids() if i in observed}
    condition = application_condition(record, by_name)
    spec = record.spec
    ingress_name = spec.ingress_deployment if spec else ""
    # What an update has left behind is no part of the application any more, though it may still be leaving.
    specs = (*(spec.deployments if spec else ()), *(record.retiring if record.is_deleting else ()))
    return controller_pb2.ApplicationStatus(
        name=record.name,
        status=condition.status.value,
        message=condition.message,
        deployed_time_s=record.deployed_time_s,
        deployments=[
            _deployment_status(s, by_name.get(s.name, ObservedDeployment()), holdings) for s in specs
        ],
        route_prefix=record.route_prefix or "",
        docs_path=_docs_path(by_name.get(ingress_name)) or (spec.docs_path if spec else ""),
        generation=record.generation,
        ingress_deployment=ingress_name,
    )


def _docs_path(ingress: ObservedDeployment | None) -> str:
    if ingress is None:
        return ""
    return next((r.docs_path for r in reversed(ingress.replicas.values()) if r.docs_path), "")


def _deployment_status(
    spec: DeploymentSpec, observed: ObservedDeployment, holdings: Mapping[str, Holding]
) -> controller_pb2.DeploymentStatus:
    replicas = list(observed.replicas.values())
    states = Counter(_SHOWN_STATE[replica.state] for replica in replicas)
    if observed.no_room:
        current = sum(r.is_staying and r.version == spec.version for r in replicas)
        states["PENDING"] = max(1, spec.num_replicas - current)
    return controller_pb2.DeploymentStatus(
        name=spec.name,
        status=observed.status.value,
        status_trigger=observed.trigger,
        message="\n".join(filter(None, (observed.message, observed.scaling_error))),
        replica_states=states,
        target_num_replicas=spec.num_replicas,
        replicas=[_replica_status(replica, holdings.get(replica.replica_id)) for replica in replicas],
        pending_replicas=states["PENDING"],
        pending_reason=observed.no_room,
    )


def _replica_status(replica: Replica, holding: Holding | None) -> controller_pb2.ReplicaStatus:
    return controller_pb2.ReplicaStatus(
        replica_id=replica.replica_id,
        state=_SHOWN_STATE[replica.state],
        pid=replica.pid,
        node_id=replica.node_id,
        ongoing=replica.ongoing,
        address=replica.address,
        resources=holding.resources.amounts() if holding else None,
        gpu_ids=holding.gpu_ids if holding else (),
    )


def _node_status(node: NodeInfo, holdings: Mapping[str, Holding]) -> controller_pb2.NodeStatus:
    held = [holding for holding in holdings.values() if holding.node_id == node.node_id]
    offered = {name: amount for name, amount in node.offer.amounts().items() if amount > 0}
    return controller_pb2.NodeStatus(
        node_id=node.node_id,
        hostname=node.hostname,
        pid=node.pid,
        replica_count=len(held),
        offered=offered,
        used=used_amounts(held),
        labels=dict(node.offer.labels),
        admin_address=node.admin_address,
    )


def _proxy_status(proxy: discovery_pb2.ProxyInfo) -> controller_pb2.ProxyStatus:
    return controller_pb2.ProxyStatus(
        proxy_id=proxy.proxy_id,
        status="HEALTHY",
        node_id=proxy.node_id,
        http_address=proxy.http_address,
        gateway_address=proxy.gateway_address,
        pid=proxy.pid,
        gateway_is_open=proxy.gateway_is_open,
        admin_address=proxy.admin_address,
    )
