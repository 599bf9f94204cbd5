"""How a deployment and an application do, in words for people. Pure.

A deployment keeps the status of what it was last asked for (UPDATING, UPSCALING, DOWNSCALING) until that is
reached or has failed. One that was HEALTHY and lost a replica is UNHEALTHY until all its replicas run again,
and, if a health check brought it there, until the new ones have passed one.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from slipknot_core.spec import ApplicationSpec

from .desired import ApplicationRecord, Desired, options_hash
from .lifecycle import ApplicationStatus, DeploymentStatus, ReplicaState
from .observed import ObservedDeployment, Replica
from .plan import has_failed_to_start, start_failure_limit

CONFIG_UPDATE_STARTED = "CONFIG_UPDATE_STARTED"
MANUAL_SCALING = "MANUAL_SCALING"
AUTOSCALING = "AUTOSCALING"
HEALTH_CHECK_FAILED = "HEALTH_CHECK_FAILED"
REPLICA_STARTUP_FAILED = "REPLICA_STARTUP_FAILED"
DELETING = "DELETING"

_COMPLETED = {
    DeploymentStatus.UPDATING: "CONFIG_UPDATE_COMPLETED",
    DeploymentStatus.UPSCALING: "UPSCALE_COMPLETED",
    DeploymentStatus.DOWNSCALING: "DOWNSCALE_COMPLETED",
}
_ASKED_FOR = frozenset(_COMPLETED)


class Condition(NamedTuple):
    """Status of a deployment, what brought it about, and details."""

    status: DeploymentStatus
    trigger: str
    message: str


class ApplicationCondition(NamedTuple):
    """Status of an application and details."""

    status: ApplicationStatus
    message: str


def after_order(before: Desired | None, wanted: Desired, so_far: Condition) -> Condition:
    """The condition right after `wanted` took the place of `before`."""
    if before is None or _is_other_code_or_options(before, wanted):
        return Condition(DeploymentStatus.UPDATING, CONFIG_UPDATE_STARTED, "")
    trigger = _trigger(before, wanted)
    is_busy = so_far.status not in (
        DeploymentStatus.HEALTHY,
        DeploymentStatus.UPSCALING,
        DeploymentStatus.DOWNSCALING,
    )
    if before.is_autoscaled_to(wanted) and is_busy:
        return so_far
    if wanted.spec.num_replicas > before.spec.num_replicas:
        return Condition(DeploymentStatus.UPSCALING, trigger, "")
    if wanted.spec.num_replicas < before.spec.num_replicas:
        return Condition(DeploymentStatus.DOWNSCALING, trigger, "")
    return Condition(DeploymentStatus.UPDATING, trigger, "")


def _trigger(before: Desired, wanted: Desired) -> str:
    if before.generation != wanted.generation:
        return CONFIG_UPDATE_STARTED
    return AUTOSCALING if before.is_autoscaled_to(wanted) else MANUAL_SCALING


def deployment_condition(desired: Desired | None, observed: ObservedDeployment, now_s: float) -> Condition:
    """The condition that follows from the state and the condition so far."""
    if desired is None:
        return Condition(DeploymentStatus.UPDATING, DELETING, "")
    if any(_refused_what_is_wanted(desired, r) for r in observed.replicas.values()):
        name, error = desired.spec.name, observed.reconfigure_error
        message = f"Reconfiguring a replica of deployment {name!r} failed:\n{error}"
        return Condition(DeploymentStatus.DEPLOY_FAILED, REPLICA_STARTUP_FAILED, message)
    if has_failed_to_start(desired, observed):
        return Condition(
            DeploymentStatus.DEPLOY_FAILED, REPLICA_STARTUP_FAILED, start_failure_message(desired, observed)
        )
    if is_settled(desired, observed, now_s):
        return _settled(observed)
    if observed.failed_starts >= start_failure_limit(desired, observed):
        return Condition(
            DeploymentStatus.UNHEALTHY, REPLICA_STARTUP_FAILED, start_failure_message(desired, observed)
        )
    if observed.status in _ASKED_FOR:
        return Condition(observed.status, observed.trigger, _progress(observed))
    if observed.status is DeploymentStatus.DEPLOY_FAILED:
        # A replica that could not be reconfigured is being replaced.
        return Condition(DeploymentStatus.UPDATING, CONFIG_UPDATE_STARTED, _progress(observed))
    waiting = _progress(observed) if observed.no_room else ""
    message = "\n".join(filter(None, (waiting, observed.last_error))) or _progress(observed)
    return Condition(DeploymentStatus.UNHEALTHY, HEALTH_CHECK_FAILED, message)


def is_settled(desired: Desired, observed: ObservedDeployment, now_s: float) -> bool:
    """All that is wanted runs, and nothing else stays."""
    staying = [r for r in observed.replicas.values() if r.is_staying]
    if len(staying) != desired.spec.num_replicas:
        return False
    if observed.status is DeploymentStatus.DOWNSCALING and len(staying) != len(observed.replicas):
        return False
    return all(_serves_as_wanted(desired, r, now_s, must_pass=observed.must_pass_check) for r in staying)


def application_condition(
    record: ApplicationRecord, observed: Mapping[str, ObservedDeployment]
) -> ApplicationCondition:
    """Judge an application by its deployments.

    Args:
        record: The application.
        observed: Its deployments by name; those of the spec count.
    """
    if record.is_deleting:
        return ApplicationCondition(ApplicationStatus.DELETING, "")
    if record.build is not None and record.build.error:
        message = (
            f"Building the application from {record.build.source.import_path!r} failed:\n{record.build.error}"
        )
        return ApplicationCondition(ApplicationStatus.DEPLOY_FAILED, message)
    if record.build is not None:
        message = f"Building the application from {record.build.source.import_path!r}."
        return ApplicationCondition(ApplicationStatus.DEPLOYING, message)
    if record.spec is None:
        return ApplicationCondition(ApplicationStatus.NOT_STARTED, "")
    now = deployments_condition(record.spec, observed)
    if record.failure:
        message = f"{record.failure}\n{now.message}".rstrip()
        return ApplicationCondition(ApplicationStatus.DEPLOY_FAILED, message)
    return now


def deployments_condition(
    spec: ApplicationSpec, observed: Mapping[str, ObservedDeployment]
) -> ApplicationCondition:
    """Judge what runs, whatever was asked for last.

    Args:
        spec: What is wanted now.
        observed: Its deployments by name.
    """
    return _worst({d.name: observed.get(d.name) or ObservedDeployment() for d in spec.deployments})


def _worst(deployments: Mapping[str, ObservedDeployment]) -> ApplicationCondition:
    def named(*statuses: DeploymentStatus) -> list[str]:
        return [name for name, d in deployments.items() if d.status in statuses]

    failed = named(DeploymentStatus.DEPLOY_FAILED)
    if failed:
        return ApplicationCondition(
            ApplicationStatus.DEPLOY_FAILED, _messages("failed to deploy", failed, deployments)
        )
    unhealthy = named(DeploymentStatus.UNHEALTHY)
    if unhealthy:
        return ApplicationCondition(
            ApplicationStatus.UNHEALTHY, _messages("unhealthy", unhealthy, deployments)
        )
    # Scaling does not make an application that serves less deployed.
    updating = [
        name for name in named(*_ASKED_FOR) if deployments[name].trigger not in (MANUAL_SCALING, AUTOSCALING)
    ]
    if updating:
        pending = [name for name in updating if deployments[name].no_room]
        message = _messages("without room", pending, deployments) if pending else ""
        return ApplicationCondition(ApplicationStatus.DEPLOYING, message)
    return ApplicationCondition(ApplicationStatus.RUNNING, "")


def _messages(word: str, names: Collection[str], deployments: Mapping[str, ObservedDeployment]) -> str:
    details = "\n".join(deployments[name].message for name in names if deployments[name].message)
    return f"Deployments {word}: {', '.join(names)}.\n{details}".rstrip()


def _is_other_code_or_options(before: Desired, wanted: Desired) -> bool:
    return before.spec.version != wanted.spec.version or options_hash(before.spec) != options_hash(
        wanted.spec
    )


def _refused_what_is_wanted(desired: Desired, replica: Replica) -> bool:
    return (
        replica.is_staying
        and replica.version == desired.spec.version
        and replica.failed_options_hash == options_hash(desired.spec)
    )


def _serves_as_wanted(desired: Desired, replica: Replica, now_s: float, *, must_pass: bool) -> bool:
    return (
        replica.state is ReplicaState.RUNNING
        and replica.version == desired.spec.version
        and replica.options_hash == options_hash(desired.spec)
        and replica.pending_options is None
        and not replica.is_unhealthy(desired.spec, now_s)
        and not (must_pass and replica.has_health_check and replica.passed_checks == 0)
    )


def _settled(observed: ObservedDeployment) -> Condition:
    if observed.status is DeploymentStatus.HEALTHY:
        return Condition(DeploymentStatus.HEALTHY, observed.trigger, "")
    return Condition(DeploymentStatus.HEALTHY, _COMPLETED.get(observed.status, "CONFIG_UPDATE_COMPLETED"), "")


def start_failure_message(desired: Desired, observed: ObservedDeployment) -> str:
    """That the replicas of a deployment cannot be started, with the last traceback."""
    return (
        f"Deployment {desired.spec.name!r} failed to start a replica {observed.failed_starts} times in a row."
        f" The last error was:\n{observed.last_error}"
    )


def _progress(observed: ObservedDeployment) -> str:
    if observed.no_room:
        return f"Waiting for room: {observed.no_room}."
    if observed.failed_starts:
        return f"The last attempt to start a replica failed:\n{observed.last_error}"
    return ""
