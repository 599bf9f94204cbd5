"""When a new version has failed, and what is stored then. Pure.

A record keeps the spec that was last HEALTHY as a whole until the newer one is. If a deployment that the new
spec changes fails meanwhile (its replicas cannot be constructed, crash young, or do not pass their health
checks), the whole application returns to that spec: it becomes the desired state again, so that its replicas
are replaced when they crash, like any others. The record keeps the reason, which stands in the status until
the next deploy.
"""

from collections.abc import Mapping

from slipknot_core.ids import DeploymentId
from slipknot_core.spec import DeploymentSpec

from .condition import start_failure_message
from .desired import ApplicationRecord, Desired
from .observed import ObservedDeployment
from .plan import has_failed_to_start, start_failure_limit

Observed = Mapping[DeploymentId, ObservedDeployment]


def after_failure(record: ApplicationRecord, observed: Observed) -> ApplicationRecord | None:
    """The record after the return to the version before; None: nothing has failed, or there is none."""
    if record.spec is None or record.previous is None or record.is_deleting:
        return None
    before = {d.name: d.version for d in record.previous.deployments}
    for spec in record.spec.deployments:
        found = observed.get(DeploymentId(record.name, spec.name))
        if before.get(spec.name) == spec.version or found is None or found.wanted is None:
            continue
        failure = _failure(found.wanted, found) if found.wanted.spec.version == spec.version else ""
        if failure:
            return record.rolled_back(
                f"Rolled back to the version that ran before, since the new one failed.\n{failure}"
            )
    return None


def loss_limit(spec: DeploymentSpec) -> int:
    """Replicas of a new version that may crash young or fall ill in a row."""
    return max(1, spec.max_constructor_attempts)


def _failure(desired: Desired, observed: ObservedDeployment) -> str:
    limit = start_failure_limit(desired, observed)
    if has_failed_to_start(desired, observed) or observed.failed_starts >= limit:
        return start_failure_message(desired, observed)
    if observed.young_losses >= loss_limit(desired.spec):
        count = observed.young_losses
        return (
            f"Deployment {desired.spec.name!r}: {count} replicas in a row did not stay healthy."
            f" The last error was:\n{observed.last_error}"
        )
    return ""
