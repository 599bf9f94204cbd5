"""Which deployments of an application are wanted right now: the order of replacing and deleting. Pure.

Nothing may be taken from under a request that still runs:
- A deployment that the new spec has no more keeps serving until all new ones do and no replica of an old
  version is left that might call it. A former ingress deployment then goes first, since it calls the others.
- Of a deleted application the ingress deployment drains first; the others stay until it has finished.
"""

from collections.abc import Mapping
from dataclasses import replace

from slipknot_core.ids import DeploymentId
from slipknot_core.spec import DeploymentSpec

from .condition import DELETING
from .desired import ApplicationRecord, Desired
from .lifecycle import DeploymentStatus
from .observed import ObservedDeployment

Observed = Mapping[DeploymentId, ObservedDeployment]


def wanted_deployments(record: ApplicationRecord, observed: Observed) -> dict[DeploymentId, Desired | None]:
    """What each deployment of the application should be now; None: it should have no replica."""
    if record.is_deleting:
        return _wanted_while_deleting(record, observed)
    wanted: dict[DeploymentId, Desired | None] = {}
    for spec in record.spec.deployments if record.spec else ():
        desired = _desired(record, spec)
        wanted[desired.id] = desired
    for spec in record.retiring:
        desired = _desired(record, spec)
        wanted[desired.id] = desired if _is_still_needed(record, spec.name, observed) else None
    return wanted


def is_deleted(record: ApplicationRecord, observed: Observed) -> bool:
    """The application is being deleted and nothing of it is left."""
    return record.is_deleting and not any(_has_replicas(i, observed) for i in record.deployment_ids())


def after_rollout(record: ApplicationRecord, observed: Observed) -> ApplicationRecord | None:
    """The record after the next step of a rollout: its spec is good, or nothing of an old version is left, or
    all that retires is gone. None: nothing changes yet.
    """
    if record.is_deleting or record.spec is None:
        return None
    if not record.is_good and _is_healthy(record, observed):
        return replace(record, is_good=True, previous=None)
    if not (record.retiring or record.previous_ingress) or not _is_replaced(record, observed):
        return None
    if not record.is_through:
        return replace(record, is_through=True)
    if any(_has_replicas(DeploymentId(record.name, d.name), observed) for d in record.retiring):
        return None
    return replace(record, retiring=(), previous_ingress="", is_through=False)


def serving_ingress(record: ApplicationRecord, observed: Observed) -> str:
    """The deployment that gets HTTP requests now: a former one until the spec's own has once run, or needs no
    replica to be called.
    """
    if record.spec is None:
        return ""
    current = observed.get(DeploymentId(record.name, record.spec.ingress_deployment))
    if record.previous_ingress and not (current and (current.has_run or current.may_be_at_zero)):
        return record.previous_ingress
    return record.spec.ingress_deployment


def _wanted_while_deleting(
    record: ApplicationRecord, observed: Observed
) -> dict[DeploymentId, Desired | None]:
    ingress_names = {record.previous_ingress, record.spec.ingress_deployment if record.spec else ""}
    ingress_left = any(_has_replicas(DeploymentId(record.name, name), observed) for name in ingress_names)
    wanted: dict[DeploymentId, Desired | None] = {}
    for spec in (*(record.spec.deployments if record.spec else ()), *record.retiring):
        desired = replace(_desired(record, spec), may_start=False)
        wanted[desired.id] = desired if ingress_left and spec.name not in ingress_names else None
    return wanted


def _desired(record: ApplicationRecord, spec: DeploymentSpec) -> Desired:
    ingress = record.spec.ingress_deployment if record.spec else ""
    return Desired(
        id=DeploymentId(record.name, spec.name),
        spec=spec,
        generation=record.generation,
        is_ingress=spec.name in (ingress, record.previous_ingress),
        route_prefix=record.spec.route_prefix if record.spec else None,
    )


def _is_still_needed(record: ApplicationRecord, name: str, observed: Observed) -> bool:
    found = observed.get(DeploymentId(record.name, name))
    if found is not None and found.trigger == DELETING:
        return False  # an earlier update let it go: this one must not start it again
    if not (record.is_through or _is_replaced(record, observed)):
        return True
    if name == record.previous_ingress:
        return False
    return _has_replicas(DeploymentId(record.name, record.previous_ingress), observed) and (
        record.previous_ingress in {d.name for d in record.retiring}
    )


def _is_healthy(record: ApplicationRecord, observed: Observed) -> bool:
    """The spec serves as a whole; replicas of an old version may still finish what they have."""
    return all(_serves(found, spec) for spec, found in _found(record, observed))


def _is_replaced(record: ApplicationRecord, observed: Observed) -> bool:
    """And no replica of an old version is left."""
    return all(
        found is not None
        and _serves(found, spec)
        and all(r.version == spec.version for r in found.replicas.values())
        for spec, found in _found(record, observed)
    )


def _found(
    record: ApplicationRecord, observed: Observed
) -> list[tuple[DeploymentSpec, ObservedDeployment | None]]:
    specs = record.spec.deployments if record.spec else ()
    return [(spec, observed.get(DeploymentId(record.name, spec.name))) for spec in specs]


def _serves(observed: ObservedDeployment | None, spec: DeploymentSpec) -> bool:
    return (
        observed is not None
        and observed.status is DeploymentStatus.HEALTHY
        and observed.wanted is not None
        and observed.wanted.spec == spec
    )


def _has_replicas(deployment_id: DeploymentId, observed: Observed) -> bool:
    found = observed.get(deployment_id)
    return found is not None and bool(found.replicas)
