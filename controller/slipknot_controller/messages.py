"""From the controller's own values to the messages that others read: snapshots and statuses. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping

from slipknot_core.routing.snapshot import ApplicationRoute, DeploymentRoute
from slipknot_core.spec import DeploymentSpec
from slipknot_proto.v1 import controller_pb2, discovery_pb2

from .condition import application_condition
from .desired import ApplicationRecord
from .lifecycle import ReplicaState
from .nodes_engine import NodeInfo
from .observed import ObservedDeployment, Replica
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
    members: tuple[Iterable[discovery_pb2.ProxyInfo], Iterable[tuple[NodeInfo, int]]],
) -> controller_pb2.ClusterStatus:
    """The whole status.

    Args:
        epoch: The controller's term.
        snapshot_version: Of the newest snapshot.
        records: Applications by name.
        observed: Deployments by id.
        members: The proxies, and the nodes with the numbers of their processes.
    """
    proxies, nodes = members
    return controller_pb2.ClusterStatus(
        epoch=epoch,
        snapshot_version=snapshot_version,
        applications=[_application_status(records[name], observed) for name in sorted(records)],
        proxies=[_proxy_status(proxy) for proxy in proxies],
        nodes=[
            controller_pb2.NodeStatus(
                node_id=node.node_id,
                hostname=node.hostname,
                pid=node.pid,
                replica_count=count,
                admin_address=node.admin_address,
            )
            for node, count in nodes
        ],
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


def _application_status(record: ApplicationRecord, observed: Observed) -> controller_pb2.ApplicationStatus:
    by_name = {i.name: observed[i] for i in record.deployment_ids() if i in observed}
    condition = application_condition(record, by_name)
    spec = record.spec
    ingress_name = spec.ingress_deployment if spec else ""
    specs = (*(spec.deployments if spec else ()), *record.retiring)
    return controller_pb2.ApplicationStatus(
        name=record.name,
        status=condition.status.value,
        message=condition.message,
        deployed_time_s=record.deployed_time_s,
        deployments=[_deployment_status(s, by_name.get(s.name, ObservedDeployment())) for s in specs],
        route_prefix=record.route_prefix or "",
        docs_path=_docs_path(by_name.get(ingress_name)) or (spec.docs_path if spec else ""),
        generation=record.generation,
        ingress_deployment=ingress_name,
    )


def _docs_path(ingress: ObservedDeployment | None) -> str:
    if ingress is None:
        return ""
    return next((r.docs_path for r in reversed(ingress.replicas.values()) if r.docs_path), "")


def _deployment_status(spec: DeploymentSpec, observed: ObservedDeployment) -> controller_pb2.DeploymentStatus:
    replicas = list(observed.replicas.values())
    return controller_pb2.DeploymentStatus(
        name=spec.name,
        status=observed.status.value,
        status_trigger=observed.trigger,
        message=observed.message,
        replica_states=Counter(_SHOWN_STATE[replica.state] for replica in replicas),
        target_num_replicas=spec.num_replicas,
        replicas=[_replica_status(replica) for replica in replicas],
    )


def _replica_status(replica: Replica) -> controller_pb2.ReplicaStatus:
    return controller_pb2.ReplicaStatus(
        replica_id=replica.replica_id,
        state=_SHOWN_STATE[replica.state],
        pid=replica.pid,
        node_id=replica.node_id,
        ongoing=replica.ongoing,
        address=replica.address,
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
