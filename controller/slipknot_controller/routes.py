"""What routers may know: applications, deployments and the replicas that may get requests. Pure.

An application can be reached over HTTP once its ingress deployment has had a running replica, or may be at
zero replicas (then the first request brings one), or has failed to deploy (then with 503). Handle calls find
its deployments from the beginning, since constructors may use handles.
"""

from collections.abc import Mapping

from slipknot_core.ids import DeploymentId
from slipknot_core.routing.snapshot import ApplicationRoute, DeploymentRoute, ReplicaRoute
from slipknot_core.spec import DeploymentSpec

from .condition import application_condition, deployments_condition
from .desired import ApplicationRecord
from .lifecycle import ApplicationStatus, DeploymentStatus, ReplicaState
from .observed import ObservedDeployment
from .rollout import Observed, serving_ingress, wanted_deployments

Routes = Mapping[str, ApplicationRoute]


def application_routes(records: Mapping[str, ApplicationRecord], observed: Observed) -> Routes:
    """All applications that routers may know of, by name."""
    claims = {r.route_prefix: r.name for r in records.values() if r.route_prefix and not r.is_deleting}
    routes = {}
    for name in sorted(records):
        route = (
            _leaving(records[name], observed)
            if records[name].is_deleting
            else _staying(records[name], observed)
        )
        if route is None:
            continue
        if route.route_prefix is not None and claims.get(route.route_prefix, name) != name:
            # A new config gives this prefix to another application; whoever has the newest order holds it.
            route = ApplicationRoute(
                name, None, route.ingress_deployment, route.deployments, route.unavailable
            )
        routes[name] = route
    return routes


def is_routable(deployment: ObservedDeployment) -> bool:
    """At least one replica may get requests."""
    return any(r.state is ReplicaState.RUNNING and r.has_lease for r in deployment.replicas.values())


def _staying(record: ApplicationRecord, observed: Observed) -> ApplicationRoute | None:
    by_name = {i.name: observed[i] for i in record.deployment_ids() if i in observed}
    ingress = serving_ingress(record, observed)
    serving = by_name.get(ingress)
    if record.spec is None:
        has_failed = application_condition(record, by_name).status is ApplicationStatus.DEPLOY_FAILED
        return (
            ApplicationRoute(record.name, record.route_prefix, "", {}, unavailable=True)
            if has_failed
            else None
        )
    condition = deployments_condition(record.spec, by_name)
    has_failed = condition.status is ApplicationStatus.DEPLOY_FAILED and not (
        serving and is_routable(serving)
    )
    is_ready = has_failed or (serving is not None and (serving.has_served or serving.may_be_at_zero))
    return ApplicationRoute(
        name=record.name,
        route_prefix=record.spec.route_prefix if is_ready else None,
        ingress_deployment=ingress,
        deployments={
            spec.name: _deployment(record.name, spec, by_name.get(spec.name))
            for spec in (*record.spec.deployments, *record.retiring)
        },
        unavailable=has_failed,
    )


def _leaving(record: ApplicationRecord, observed: Observed) -> ApplicationRoute | None:
    """Of an application that is being deleted only what its last requests may still call."""
    needed = {i.name: d for i, d in wanted_deployments(record, observed).items() if d is not None}
    if record.spec is None or not needed:
        return None
    ingress = DeploymentRoute(DeploymentId(record.name, record.spec.ingress_deployment), unavailable=True)
    deployments = {
        name: _deployment(record.name, desired.spec, observed.get(desired.id))
        for name, desired in needed.items()
    }
    return ApplicationRoute(record.name, None, ingress.id.name, {ingress.id.name: ingress, **deployments})


def _deployment(app_name: str, spec: DeploymentSpec, observed: ObservedDeployment | None) -> DeploymentRoute:
    able = [
        r
        for r in (observed.replicas.values() if observed else ())
        if r.state is ReplicaState.RUNNING and r.has_lease
    ]
    # One that has not passed its first health check yet gets requests only if there is no other.
    replicas = tuple(
        ReplicaRoute(r.replica_id, r.address, r.node_id, r.max_ongoing_requests, model_ids=r.model_ids)
        for r in ([r for r in able if not r.awaits_check] or able)
    )
    has_failed = observed is not None and observed.status is DeploymentStatus.DEPLOY_FAILED
    return DeploymentRoute(
        id=DeploymentId(app_name, spec.name),
        max_ongoing_requests=spec.max_ongoing_requests,
        max_queued_requests=spec.max_queued_requests,
        backpressure_status_code=spec.backpressure_status_code,
        backpressure_retry_after_s=spec.backpressure_retry_after_s,
        replicas=replicas,
        unavailable=has_failed and not replicas,
        autoscaled=spec.autoscaling is not None,
    )
