"""Who is who after a controller has started, or a node has come back: whom a new controller waits for, who is
too late. Pure.
"""

from collections.abc import Mapping

from slipknot_core.ids import DeploymentId
from slipknot_core.spec import DeploymentSpec

from .desired import ApplicationRecord
from .observed import ObservedDeployment, Registration
from .rollout import Observed
from .routes import is_routable


def has_recovered(records: Mapping[str, ApplicationRecord], observed: Observed) -> bool:
    """Nobody is missing who is wanted: a controller that has just started need not wait for more.

    A replica of an old version stands in for nobody: the one that replaces it may still be coming.
    """
    for record in records.values():
        for spec in record.spec.deployments if record.spec else ():
            found = observed.get(DeploymentId(record.name, spec.name), ObservedDeployment())
            wanted = [r for r in found.replicas.values() if r.version == spec.version]
            if sum(r.has_lease for r in wanted) < spec.num_replicas:
                return False
            if spec.num_replicas > 0 and not is_routable(found):
                return False
    return True


def was_replaced(registration: Registration, spec: DeploymentSpec, observed: ObservedDeployment) -> bool:
    """A replica that nobody has been waiting for comes, as when its node was cut off, and its version is not
    wanted any more. While a controller recovers, it waits for everybody.
    """
    return registration.replica_id not in observed.replicas and registration.version != spec.version


def was_let_go(registration: Registration, name: str, record: ApplicationRecord, observed: Observed) -> bool:
    """A replica that nobody has been waiting for comes, of a deployment that an update has let go: the record
    may be about to forget the deployment, and with it whoever is taken in now.
    """
    found = observed.get(DeploymentId(record.name, name), ObservedDeployment())
    is_wanted = record.spec is not None and any(d.name == name for d in record.spec.deployments)
    return record.is_through and not is_wanted and registration.replica_id not in found.replicas
