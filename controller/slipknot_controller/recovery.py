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
    """Nobody is missing who is wanted: a controller that has just started need not wait for more."""
    for record in records.values():
        for spec in record.spec.deployments if record.spec else ():
            found = observed.get(DeploymentId(record.name, spec.name), ObservedDeployment())
            if sum(r.has_lease for r in found.replicas.values()) < spec.num_replicas:
                return False
            if spec.num_replicas > 0 and not is_routable(found):
                return False
    return True


def was_replaced(registration: Registration, spec: DeploymentSpec, observed: ObservedDeployment) -> bool:
    """A replica that nobody has been waiting for comes, as when its node was cut off, and its version is not
    wanted any more. While a controller recovers, it waits for everybody.
    """
    return registration.replica_id not in observed.replicas and registration.version != spec.version
