"""When an application returns to the version before, and what its record says then."""

from dataclasses import replace

import pytest

from slipknot_controller.desired import ApplicationRecord, Build, Desired, carried_over, renewed
from slipknot_controller.lifecycle import DeploymentStatus
from slipknot_controller.observed import ObservedDeployment, Registration
from slipknot_controller.rollback import after_failure
from slipknot_controller.rollout import after_rollout
from slipknot_core.autoscaling_spec import AutoscalingSpec, PolicySpec
from slipknot_core.ids import DeploymentId
from slipknot_core.spec import ApplicationSpec, CodeSource, DeploymentSpec, ImportSource

MODEL = DeploymentId("app", "Model")


def spec(version: str, *, names: tuple[str, ...] = ("Model",), **options: object) -> ApplicationSpec:
    deployments = [DeploymentSpec(name, CodeSource(), version=version) for name in names]
    return ApplicationSpec("app", names[0], tuple(replace(d, **options) for d in deployments))  # type: ignore[arg-type]


def deployed(*versions: str) -> ApplicationRecord:
    """A record after deploys, each of which but the last became good."""
    record = ApplicationRecord("app", 0, 0.0)
    for generation, version in enumerate(versions, 1):
        record = replace(record, is_good=record.spec is not None, previous=None)
        record = record.with_spec(spec(version), generation, 0.0)
    return record


def observed(record: ApplicationRecord) -> ObservedDeployment:
    assert record.spec is not None
    found = ObservedDeployment()
    found.want(Desired(MODEL, record.spec.deployments[0], record.generation))
    return found


def start(found: ObservedDeployment, name: str) -> None:
    assert found.wanted is not None
    found.launched(name, found.wanted.spec, 0.0)
    found.joined(Registration(name, found.wanted.spec.version, f"unix:{name}"), 0.0)


def test_failed_starts_return_to_the_version_before() -> None:
    record = deployed("v1", "v2")
    found = observed(record)
    for number in range(3):
        assert after_failure(record, {MODEL: found}) is None
        start(found, f"r{number}")
        found.start_failed(f"r{number}", "Traceback: no", 0.0)
        found.gone(f"r{number}", "", 0.0)
    after = after_failure(record, {MODEL: found})
    assert after is not None
    assert (after.spec, after.previous, after.is_good) == (spec("v1"), None, True)
    assert after.failure.startswith("Rolled back") and "Traceback: no" in after.failure
    assert after_failure(after, {MODEL: found}) is None


def test_replicas_that_crash_young_return_to_the_version_before() -> None:
    record = deployed("v1", "v2")
    found = observed(record)
    for number in range(3):
        assert after_failure(record, {MODEL: found}) is None
        start(found, f"r{number}")
        found.running(f"r{number}", 1.0)
        found.gone(f"r{number}", "killed by signal 11", 2.0)
    after = after_failure(record, {MODEL: found})
    assert after is not None and "killed by signal 11" in after.failure


def test_a_first_version_has_nothing_to_return_to() -> None:
    record = deployed("v1")
    found = observed(record)
    found.failed_starts = 10
    assert after_failure(record, {MODEL: found}) is None


def test_what_fails_without_having_changed_is_no_reason() -> None:
    """A deployment that the deploy did not touch may be ill for any reason."""
    record = deployed("v1").with_spec(spec("v1"), 2, 0.0)
    record = replace(record, previous=spec("v1"))
    found = observed(record)
    found.young_losses = 10
    assert after_failure(record, {MODEL: found}) is None


def test_the_last_good_version_is_kept_over_several_deploys() -> None:
    record = deployed("v1", "v2").with_spec(spec("v3"), 3, 0.0)
    assert record.previous == spec("v1")
    assert record.rolled_back("why").spec == spec("v1")


def test_a_deployment_that_only_the_failed_version_has_retires() -> None:
    record = deployed("v1").with_spec(spec("v1"), 1, 0.0)
    record = replace(record, is_good=True).with_spec(spec("v2", names=("New", "Model")), 2, 0.0)
    after = record.rolled_back("why")
    assert [d.name for d in after.retiring] == ["New"]
    assert (after.previous_ingress, after.generation) == ("", 2)


def test_a_build_that_is_wanted_survives_the_return() -> None:
    build = Build(ImportSource("module:app"))
    record = replace(deployed("v1", "v2"), build=build)
    assert record.rolled_back("why").build is build


def test_a_version_is_good_once_all_of_it_is_healthy() -> None:
    record = deployed("v1", "v2")
    found = observed(record)
    assert after_rollout(record, {MODEL: found}) is None
    start(found, "r1")
    found.running("r1", 1.0)
    found.set_status("Model", DeploymentStatus.HEALTHY, "", "")
    after = after_rollout(record, {MODEL: found})
    assert after is not None and (after.is_good, after.previous) == (True, None)
    assert after_rollout(after, {MODEL: found}) is None


POLICY = PolicySpec("scaling:together", {"share": 0.5})
BUILT = Build(ImportSource("module:app"), "/", autoscaling_policy=POLICY)


@pytest.mark.parametrize(
    "record",
    [
        deployed("v1"),
        deployed("v1", "v2"),
        deployed("v1", "v2").rolled_back("why"),
        replace(deployed("v1"), build=BUILT),
        deployed("v1").with_spec(replace(spec("v2"), autoscaling_policy=POLICY), 2, 0.0),
    ],
)
def test_records_survive_the_store(record: ApplicationRecord) -> None:
    assert ApplicationRecord.from_bytes(record.to_bytes()) == record


@pytest.mark.parametrize(
    ("before", "bounds", "expected"),
    [
        (None, (0, 5, None), 0),
        (None, (2, 5, None), 2),
        (None, (0, 5, 3), 3),
        (4, (1, 5, None), 4),
        (4, (1, 3, None), 3),
        (4, (6, 9, None), 6),
        (0, (1, 3, None), 1),
        (4, (1, 5, 2), 2),  # the config is new and says what to begin with
    ],
)
def test_a_redeploy_keeps_the_number_within_the_bounds(
    before: int | None, bounds: tuple[int, int, int | None], expected: int
) -> None:
    scaling = AutoscalingSpec(min_replicas=bounds[0], max_replicas=bounds[1], initial_replicas=bounds[2])
    plain = DeploymentSpec("Model", CodeSource(), num_replicas=before or 0)
    after = carried_over(
        replace(plain, num_replicas=1, autoscaling=scaling), None if before is None else plain
    )
    assert after.num_replicas == expected
    assert carried_over(replace(plain, autoscaling=scaling), after).num_replicas == expected


def test_initial_replicas_of_the_same_config_count_once() -> None:
    scaling = AutoscalingSpec(min_replicas=0, max_replicas=5, initial_replicas=2)
    before = DeploymentSpec("Model", CodeSource(), num_replicas=4, autoscaling=scaling)
    assert carried_over(replace(before, num_replicas=2), before).num_replicas == 4


def test_a_user_config_that_is_taken_away_makes_another_version() -> None:
    """A replica cannot forget it; every other change of it is made in place."""
    without = DeploymentSpec("Model", CodeSource(), version="v1")
    one, two = replace(without, user_config_json="1"), replace(without, user_config_json="2")
    assert renewed(without, None).version == renewed(without, without).version == "v1"
    assert renewed(one, without).version == renewed(two, one).version == "v1"
    forgetful = renewed(without, two)
    assert forgetful.version not in ("v1", renewed(without, renewed(one, forgetful)).version)
    assert renewed(without, forgetful) == forgetful
    assert renewed(one, forgetful).version == forgetful.version
    assert renewed(replace(without, version="v2"), forgetful).version == "v2"
