"""What a deployment that an update has no more is wanted for, and until when."""

from collections.abc import Mapping

from slipknot_controller.desired import ApplicationRecord
from slipknot_controller.lifecycle import DeploymentStatus
from slipknot_controller.observed import ObservedDeployment, Registration
from slipknot_controller.rollout import after_rollout, wanted_deployments
from slipknot_core.ids import DeploymentId
from slipknot_core.spec import CodeSource, DeploymentSpec
from tests.support.updated_records import spec, updated

FRONT, BACK, NEW = (DeploymentId("app", name) for name in ("Front", "Back", "New"))


def running(record: ApplicationRecord, deployment_id: DeploymentId) -> ObservedDeployment:
    """One replica of what is wanted."""
    found, wanted = ObservedDeployment(), wanted_deployments(record, {})[deployment_id]
    assert wanted is not None
    found.want(wanted)
    name = f"r-{deployment_id.name}"
    found.launched(name, wanted.spec, 0.0)
    found.joined(Registration(name, wanted.spec.version, f"unix:{name}"), 0.0)
    found.running(name, 0.0)
    found.set_status("", DeploymentStatus.HEALTHY, "", "")
    return found


def stepped(
    record: ApplicationRecord, observed: Mapping[DeploymentId, ObservedDeployment]
) -> ApplicationRecord:
    """After all steps that can be taken."""
    while (after := after_rollout(record, observed)) is not None:
        record = after
    return record


def test_it_serves_until_the_new_ones_do() -> None:
    record = updated("Front")
    assert wanted_deployments(record, {})[BACK] is not None
    assert wanted_deployments(record, {FRONT: running(record, FRONT)})[BACK] is None


def test_a_controller_that_takes_over_does_not_start_again_what_was_let_go() -> None:
    """It knows that from the record, before it has made up its mind about what runs."""
    record = updated("Front")
    back = ObservedDeployment()
    back.launched("r-Back", DeploymentSpec("Back", CodeSource(), version="v1"), 0.0)
    through = stepped(record, {FRONT: running(record, FRONT), BACK: back})
    assert through.is_through and [d.name for d in through.retiring] == ["Back"]
    assert wanted_deployments(through, {})[BACK] is None
    again = through.with_spec(spec("Front", version="v3"), 3, 0.0)
    assert not again.is_through


def test_a_version_is_good_while_the_old_one_still_finishes() -> None:
    """If the next one fails, it is the one to return to; but what it has no more may still be called."""
    record = updated("Front")
    front = running(record, FRONT)
    front.launched("r-old", DeploymentSpec("Front", CodeSource(), version="v1"), 0.0)
    good = stepped(record, {FRONT: front})
    assert (good.is_good, good.is_through) == (True, False)
    assert wanted_deployments(good, {FRONT: front})[BACK] is not None
    failing = good.with_spec(spec("Front", version="v3"), 3, 0.0)
    assert failing.previous is not None and failing.previous.deployments[0].version == "v2"


def test_what_a_former_ingress_may_still_call_stays_as_long_as_that() -> None:
    record = updated("New")
    old = running(record, FRONT)
    now = {NEW: running(record, NEW), FRONT: old}
    through = stepped(record, now)
    assert through.is_through and through.previous_ingress == "Front"
    for seen in (now, {FRONT: old}):  # the second is what the next controller sees at first
        assert wanted_deployments(through, seen)[FRONT] is None
        assert wanted_deployments(through, seen)[BACK] is not None
    assert wanted_deployments(through, {NEW: now[NEW]})[BACK] is None
    gone = stepped(through, {NEW: now[NEW]})
    assert (gone.retiring, gone.previous_ingress, gone.is_through) == ((), "", False)
