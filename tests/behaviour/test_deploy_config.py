"""What runs becomes what the config says, and no more is touched than has changed."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from slipknot import _connection, _control
from slipknot.serve.exceptions import SlipknotServeException
from tests.support.cluster_status import application, cluster_status, running_replicas, wait_until
from tests.support.load import Load

from .conftest import RunningCluster

Apply = Callable[..., None]
ROOT = Path(__file__).parents[2]
IMPORT_PATH = "tests.behaviour.config_apps:says"


def says(text: str = "hello", **options: Any) -> dict[str, Any]:
    """An application of a config; options that are not the application's are the deployment's."""
    own: dict[str, Any] = {
        key: options.pop(key) for key in ("name", "route_prefix", "import_path") if key in options
    }
    deployments = [{"name": "Says", **options}] if options else []
    return {"import_path": IMPORT_PATH, "args": {"text": text}, "deployments": deployments, **own}


@pytest.fixture
def apply(cluster: RunningCluster) -> Iterator[Apply]:
    """Apply a config of these applications, and wait until it serves."""

    def apply_config(*applications: dict[str, Any]) -> None:
        connection = _connection.current()
        here = {"runtime_env": {"working_dir": str(ROOT)}}
        connection.run(
            _control.apply_config(connection, json.dumps({"applications": [here | a for a in applications]}))
        )

    yield apply_config
    connection = _connection.current()
    connection.run(_control.delete_all(connection))


def test_an_application_is_built_from_its_import_path(cluster: RunningCluster, apply: Apply) -> None:
    apply(says("built", user_config={"a": 1}))
    assert httpx.get(cluster.url).json() == ["built", {"a": 1}, 1]


def test_an_application_that_is_bound_already_needs_no_arguments(
    cluster: RunningCluster, apply: Apply
) -> None:
    apply({"import_path": "tests.behaviour.config_apps:app"})
    assert httpx.get(cluster.url).json()[0] == "fixed"


def test_the_same_config_again_keeps_all_replicas(cluster: RunningCluster, apply: Apply) -> None:
    apply(says(num_replicas=2))
    before = running_replicas()
    apply(says(num_replicas=2))
    assert running_replicas() == before


def test_num_replicas_is_scaled_and_no_request_is_lost(cluster: RunningCluster, apply: Apply) -> None:
    apply(says(num_replicas=1))
    first = running_replicas()
    with Load(cluster.url) as load:
        apply(says(num_replicas=3))
        three = wait_until(lambda: len(now := running_replicas()) == 3 and now)
        assert first.items() <= three.items()
        apply(says(num_replicas=1))
        one = wait_until(lambda: len(now := running_replicas()) == 1 and now)
        load.wait_for_more(5)
    assert one.items() <= three.items()
    assert load.failures == []


def test_user_config_is_changed_in_place(cluster: RunningCluster, apply: Apply) -> None:
    apply(says(user_config={"threshold": 1}))
    before = running_replicas()
    apply(says(user_config={"threshold": 2}))
    assert httpx.get(cluster.url).json() == ["hello", {"threshold": 2}, 2]
    assert running_replicas() == before


def test_a_user_config_that_is_taken_away_is_forgotten(cluster: RunningCluster, apply: Apply) -> None:
    """A running instance cannot, so another one takes its place; what was once set can be set again."""
    apply(says(user_config={"threshold": 1}))
    apply(says(user_config={"threshold": 2}))
    before = running_replicas()
    apply(says())
    assert httpx.get(cluster.url).json() == ["hello", None, 0]
    after = running_replicas()
    assert not before.items() & after.items()
    apply(says())
    assert running_replicas() == after
    apply(says(user_config={"threshold": 1}))
    assert httpx.get(cluster.url).json() == ["hello", {"threshold": 1}, 1]
    assert running_replicas() == after


def test_other_arguments_are_another_version(cluster: RunningCluster, apply: Apply) -> None:
    apply(says("one"))
    before = running_replicas()
    with Load(cluster.url) as load:
        apply(says("two"))
        load.wait_for_more(5)
    assert load.failures == []
    assert httpx.get(cluster.url).json()[0] == "two"
    assert not before.items() & running_replicas().items()


def test_another_import_path_is_another_version(cluster: RunningCluster, apply: Apply) -> None:
    apply(says("one"))
    apply({"import_path": "tests.behaviour.config_apps:app"})
    assert httpx.get(cluster.url).json()[0] == "fixed"


def test_who_waits_for_a_config_waits_for_its_own_replicas(cluster: RunningCluster, apply: Apply) -> None:
    """While it is built, and while its constructor runs, what was there before does not count."""
    apply(says("one"))
    apply({"import_path": "tests.behaviour.config_apps:slow", "args": {"text": "two"}})
    assert httpx.get(cluster.url).json()[0] == "two"


def test_an_application_that_is_not_in_the_config_is_deleted(cluster: RunningCluster, apply: Apply) -> None:
    apply(says("a", name="a", route_prefix="/a"), says("b", name="b", route_prefix="/b"))
    assert [httpx.get(f"{cluster.url}/{name}").json()[0] for name in "ab"] == ["a", "b"]
    kept = running_replicas("a")
    apply(says("a", name="a", route_prefix="/a"))
    wait_until(lambda: [a.name for a in cluster_status().applications] == ["a"])
    assert httpx.get(f"{cluster.url}/b").status_code == 404
    assert running_replicas("a") == kept


def test_an_application_moves_to_another_prefix_and_keeps_its_replicas(
    cluster: RunningCluster, apply: Apply
) -> None:
    apply(says(route_prefix="/old"))
    before = running_replicas()
    apply(says(route_prefix="/new"))
    assert httpx.get(f"{cluster.url}/old").status_code == 404
    assert httpx.get(f"{cluster.url}/new").json()[0] == "hello"
    assert running_replicas() == before


def test_a_builder_that_fails_fails_the_deploy_with_its_traceback(
    cluster: RunningCluster, apply: Apply
) -> None:
    with pytest.raises(RuntimeError, match="no such application today") as caught:
        apply(says(import_path="tests.behaviour.config_apps:broken"))
    assert "ZeroDivisionError" in str(caught.value)
    assert application().status == "DEPLOY_FAILED"
    apply(says("cured"))
    assert httpx.get(cluster.url).json()[0] == "cured"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"import_path": "tests.behaviour.nowhere:app"}, "nowhere"),
        ({"import_path": "tests.behaviour.config_apps:nothing"}, "nothing"),
        ({"import_path": "tests.behaviour.config_apps:app", "args": {"a": "b"}}, "arg"),
        ({"import_path": IMPORT_PATH, "args": {"text": "x"}, "deployments": [{"name": "Nobody"}]}, "Nobody"),
    ],
)
def test_what_cannot_be_built_is_named(
    cluster: RunningCluster, apply: Apply, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(RuntimeError, match=message):
        apply(wrong)


@pytest.mark.parametrize(
    ("applications", "message"),
    [
        ([says(name="a", route_prefix="/a"), says(name="a", route_prefix="/b")], r"applications\[1\].name"),
        ([says(name="a"), says(name="b")], r"applications\[1\].route_prefix"),
        ([{"name": "a"}], r"applications\[0\].import_path"),
        ([says(name="")], r"applications\[0\]"),
    ],
)
def test_a_config_that_the_controller_cannot_take_changes_nothing(
    cluster: RunningCluster, apply: Apply, applications: list[dict[str, Any]], message: str
) -> None:
    apply(says("before"))
    with pytest.raises(SlipknotServeException, match=message):
        apply(*applications)
    assert httpx.get(cluster.url).json()[0] == "before"
