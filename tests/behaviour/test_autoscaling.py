"""The number of replicas follows the load, down to none and back, and no request is lost on the way."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from slipknot import serve
from tests.support.cluster_status import application, wait_until
from tests.support.journal import Gate, Journal
from tests.support.load import Load

from .conftest import RunningCluster, ServeApp
from .test_rolling_updates import Says, scale

pytestmark = pytest.mark.timeout(60)
"""Replicas start many times over, which takes its time on a busy machine."""

MakeGate = Callable[..., Gate]

QUICK = {
    "target_ongoing_requests": 1,
    "look_back_period_s": 0.2,
    "upscale_delay_s": 0,
    "downscale_delay_s": 0.2,
    "min_replicas": 1,
    "max_replicas": 3,
}
"""Follows the load within a second or so."""


@pytest.fixture
def aside() -> Iterator[ThreadPoolExecutor]:
    """For what goes on while the test looks at something else."""
    with ThreadPoolExecutor(16) as pool:
        yield pool


def held(journal: Journal, gate: Gate, *, text: str = "done", **options: Any) -> serve.Application:
    """An application whose handler waits at the gate."""
    pen = journal.pen

    @serve.deployment(name="Held", **options)
    class Held:
        async def __call__(self) -> str:
            pen.note("in")
            await gate.passed()
            return text

    return Held.bind()


def deployment(index: int = 0) -> Any:
    return application().deployments[index]


def settled(number: int) -> bool:
    now = deployment()
    return (
        now.status == "HEALTHY"
        and now.target_num_replicas == number
        and dict(now.replica_states) == ({"RUNNING": number} if number else {})
    )


def test_replicas_come_and_go_with_the_load(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate, aside: ThreadPoolExecutor
) -> None:
    """Ongoing and queued requests count; what leaves finishes what it has."""
    gate = make_gate()
    app = serve_app(held(journal, gate, autoscaling_config=QUICK, max_ongoing_requests=1))
    assert settled(1)
    answers = [aside.submit(httpx.get, app.url, timeout=30) for _ in range(6)]
    journal.wait_for("in", 3)  # one at a time each: so there are three replicas
    found = wait_until(lambda: settled(3) and application())
    assert (found.status, found.deployments[0].status_trigger) == ("RUNNING", "UPSCALE_COMPLETED")
    gate.open()
    assert [answer.result().status_code for answer in answers] == [200] * 6
    wait_until(lambda: settled(1))
    assert deployment().status_trigger == "DOWNSCALE_COMPLETED"
    assert serve.status().applications["default"].deployments["Held"].target_num_replicas == 1


def test_an_idle_application_has_no_replica_and_the_first_request_brings_one(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate, cluster: RunningCluster
) -> None:
    gate = make_gate()
    gate.open()
    to_zero = QUICK | {"min_replicas": 0, "downscale_to_zero_delay_s": 0.1}
    app = serve_app(held(journal, gate, autoscaling_config=to_zero))
    assert settled(0)  # it begins with none
    for _ in range(2):
        assert app.client.get("/").text == "done"
        wait_until(lambda: settled(0))
        assert application().status == "RUNNING"
        assert httpx.get(cluster.url + "/-/healthz").status_code == 200
        assert httpx.get(cluster.url + "/-/routes").json() == {"/": "default"}
    assert app.handle.remote().result() == "done"  # a driver's queue counts as well


def test_a_deployment_behind_a_handle_is_woken(serve_app: ServeApp) -> None:
    """Replicas report what waits for the deployments that they call."""

    @serve.deployment(autoscaling_config=QUICK | {"min_replicas": 0, "downscale_to_zero_delay_s": 60})
    class Back:
        async def __call__(self) -> str:
            return "back"

    @serve.deployment
    class Front:
        def __init__(self, back: Any) -> None:
            self._back = back

        async def __call__(self) -> str:
            return f"front {await self._back.remote()}"

    app = serve_app(Front.bind(Back.bind()))
    assert app.client.get("/").text == "front back"


def test_no_request_fails_while_replicas_come_and_go(serve_app: ServeApp) -> None:
    @serve.deployment(
        autoscaling_config=QUICK | {"min_replicas": 0, "downscale_to_zero_delay_s": 0, "downscale_delay_s": 0}
    )
    class Brief:
        async def __call__(self) -> str:
            return "brief"

    app = serve_app(Brief.bind())
    counts = set()
    for _ in range(2):
        with Load(app.url, clients=6) as load:
            load.wait_for_more(30)
            counts.add(deployment().target_num_replicas)
        assert load.failures == []
        wait_until(lambda: settled(0))
    assert counts - {0}


def test_a_redeploy_keeps_the_number_within_the_new_bounds(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate, aside: ThreadPoolExecutor
) -> None:
    """And it updates replica by replica, under the load that brought them."""
    gate = make_gate()
    slow_down = QUICK | {"downscale_delay_s": 600}
    app = serve_app(held(journal, gate, autoscaling_config=slow_down, max_ongoing_requests=1))
    answers = [aside.submit(httpx.get, app.url, timeout=30) for _ in range(3)]
    wait_until(lambda: settled(3))
    gate.open()
    serve_app(held(journal, gate, text="new", autoscaling_config=slow_down | {"max_replicas": 5}))
    assert deployment().target_num_replicas == 3
    serve_app(held(journal, gate, text="new", autoscaling_config=slow_down | {"max_replicas": 2}))
    assert deployment().target_num_replicas == 2
    assert [answer.result().text for answer in answers] == ["done"] * 3


def test_scaling_by_hand_is_refused(serve_app: ServeApp) -> None:
    serve_app(Says.options(num_replicas="auto").bind("x"))
    with pytest.raises(Exception, match="autoscaling decides"):
        scale("Says", 2)
    assert deployment().target_num_replicas == 1


def test_a_version_that_cannot_start_from_zero_fails_the_requests(serve_app: ServeApp) -> None:
    @serve.deployment(autoscaling_config=QUICK | {"min_replicas": 0}, max_constructor_retry_count=1)
    class Broken:
        def __init__(self) -> None:
            raise ValueError("not even once")

        async def __call__(self) -> str:
            return "never"

    app = serve_app(Broken.bind())
    assert app.client.get("/").status_code == 503
    assert application().status == "DEPLOY_FAILED"


def test_a_policy_of_the_users_decides(serve_app: ServeApp) -> None:
    """It is called on a node with what it needs to know, keeps a state, and is clipped to the bounds."""
    app = serve_app(
        Says.options(autoscaling_config=QUICK | {"policy": policy("one_more", up_to=5)}).bind("x")
    )
    wait_until(lambda: settled(3))  # the most that is allowed
    assert app.client.get("/").text == "x"
    assert deployment().message == ""


@pytest.mark.parametrize("name", ["broken", "missing"])
def test_a_policy_that_fails_changes_nothing(serve_app: ServeApp, name: str) -> None:
    """And the status says why."""
    serve_app(Says.options(autoscaling_config=QUICK | {"policy": policy(name)}).bind("x"))
    found = wait_until(lambda: deployment().message and deployment())
    assert (found.status, found.target_num_replicas) == ("HEALTHY", 1)
    expected = {"broken": "ZeroDivisionError", "missing": "no attribute"}
    assert expected[name] in found.message and "slipknot_replica" not in found.message


def policy(name: str, **kwargs: Any) -> dict[str, Any]:
    return {"policy_function": f"tests.behaviour.scaling_policies:{name}", "policy_kwargs": kwargs}
