"""Whom a controller that has just started waits for, and who comes too late."""

from dataclasses import replace

from slipknot_controller.observed import ObservedDeployment, Registration
from slipknot_controller.recovery import has_recovered, was_let_go
from slipknot_core.ids import DeploymentId
from slipknot_core.spec import CodeSource, DeploymentSpec
from tests.support.updated_records import updated

FRONT, BACK = (DeploymentId("app", name) for name in ("Front", "Back"))


def _adopted(*versions: str) -> ObservedDeployment:
    found = ObservedDeployment()
    for version in versions:
        registration = Registration(f"r-{version}", version, f"unix:{version}")
        found.adopted(registration, DeploymentSpec("Front", CodeSource(), version="v2"), 0.0)
        found.running(registration.replica_id, 0.0)
    return found


def test_an_old_version_does_not_end_the_wait() -> None:
    """Else what is wanted would be started a second time, and what the update let go once more."""
    records = {"app": updated("Front")}
    assert not has_recovered(records, {FRONT: _adopted("v1")})
    assert has_recovered(records, {FRONT: _adopted("v1", "v2")})


def test_a_late_one_of_a_deployment_that_was_let_go() -> None:
    """The update is through and may be forgotten at any moment; before, the replica is still needed."""
    late = Registration("r-Back", "v1", "unix:r-Back")
    record = updated("Front")
    assert not was_let_go(late, "Back", record, {})
    assert was_let_go(late, "Back", replace(record, is_through=True), {})


def test_a_known_one_of_a_deployment_that_was_let_go() -> None:
    """It has only lost its connection, and is told to drain on the next one."""
    known = Registration("r-v1", "v1", "unix:r-v1")
    record = replace(updated("Front"), is_through=True)
    assert not was_let_go(known, "Back", record, {BACK: _adopted("v1")})


def test_a_late_one_of_a_deployment_that_is_wanted() -> None:
    """It is taken in, whatever else the update does."""
    late = Registration("r-v2", "v2", "unix:r-v2")
    assert not was_let_go(late, "Front", replace(updated("Front"), is_through=True), {})
