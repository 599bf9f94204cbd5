"""What fails: constructors, configs and health checks, and what becomes of the deployment then."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from slipknot import serve
from slipknot._api import RunTarget, run_many
from tests.support.cluster_status import application, running_replicas, wait_for_status, wait_until
from tests.support.journal import Gate, Journal
from tests.support.load import Load

from .conftest import ServeApp

MakeGate = Callable[..., Gate]


@serve.deployment
class Says:
    def __init__(self, text: str) -> None:
        self._text = text

    async def __call__(self) -> str:
        return self._text


@pytest.fixture
def aside() -> Iterator[ThreadPoolExecutor]:
    """For what goes on while the test looks at something else."""
    with ThreadPoolExecutor(4) as pool:
        yield pool


# --- Constructors that fail ---


def test_a_constructor_that_fails_is_tried_three_times(serve_app: ServeApp, journal: Journal) -> None:
    pen = journal.pen

    @serve.deployment(name="Says")
    class Broken:
        def __init__(self) -> None:
            pen.note("tried")
            raise ZeroDivisionError("no luck")

        def __call__(self) -> str:
            return "never"

    with pytest.raises(RuntimeError, match="no luck") as caught:
        serve_app(Broken.bind())
    assert "Traceback" in str(caught.value)
    assert "ZeroDivisionError" in str(caught.value)
    found = application()
    assert (found.status, found.deployments[0].status) == ("DEPLOY_FAILED", "DEPLOY_FAILED")
    assert "ZeroDivisionError: no luck" in found.message
    assert "ZeroDivisionError: no luck" in found.deployments[0].message
    assert "ZeroDivisionError: no luck" in serve.status().applications["default"].message
    assert journal.notes == ["tried"] * 3
    assert serve_app(Says.bind("cured")).client.get("/").text == "cured"


class Fails:
    def __init__(self) -> None:
        raise ZeroDivisionError("no luck")


class FailsLater:
    async def __init__(self) -> None:  # type: ignore[misc]
        raise ZeroDivisionError("no luck")


class FailsToConfigure:
    def reconfigure(self, config: object) -> None:
        raise ZeroDivisionError(f"no luck with {config}")


@pytest.mark.parametrize("kind", [Fails, FailsLater, FailsToConfigure])
def test_the_traceback_begins_with_the_users_code(serve_app: ServeApp, kind: type) -> None:
    """How we came to call it tells its author nothing."""
    with pytest.raises(RuntimeError, match="no luck"):
        serve_app(
            serve.deployment(kind).options(user_config={"a": 1} if kind is FailsToConfigure else None).bind()
        )
    _, _, shown = application().deployments[0].message.partition("Traceback (most recent call last):\n")
    assert shown.partition(",")[0].strip() == f'File "{__file__}"'


def test_the_number_of_tries_can_be_chosen(serve_app: ServeApp, journal: Journal) -> None:
    pen = journal.pen

    @serve.deployment(max_constructor_retry_count=1)
    class Broken:
        async def __init__(self) -> None:
            pen.note("tried")
            raise ValueError("once is enough")

        def __call__(self) -> str:
            return "never"

    with pytest.raises(RuntimeError, match="once is enough"):
        serve_app(Broken.bind())
    assert journal.notes == ["tried"]
    serve.delete("default")
    assert application() is None


def test_a_constructor_that_fails_at_first_recovers(serve_app: ServeApp, tmp_path: Path) -> None:
    mark = tmp_path / "tried"

    @serve.deployment
    class Moody:
        def __init__(self) -> None:
            if not mark.exists():
                mark.touch()
                raise ValueError("not today")

        def __call__(self) -> str:
            return "fine"

    assert serve_app(Moody.bind()).client.get("/").text == "fine"
    assert application().deployments[0].status == "HEALTHY"


def test_a_redeploy_that_fails_leaves_the_version_before_in_service(serve_app: ServeApp) -> None:
    @serve.deployment(name="Says")
    class Broken:
        def __init__(self) -> None:
            raise ValueError("worse than before")

        def __call__(self) -> str:
            return "never"

    app = serve_app(Says.bind("one"))
    with Load(app.url) as load:
        with pytest.raises(RuntimeError, match="worse than before"):
            serve.run(Broken.bind())
        load.wait_for_more(5)
        serve_app(Says.bind("two"))
        load.wait_for_more(5)
    assert load.failures == []
    assert {answer.text for answer in load.answers} == {"one", "two"}


def test_an_application_that_failed_answers_503(serve_app: ServeApp) -> None:
    @serve.deployment(max_constructor_retry_count=1)
    class Broken:
        def __init__(self) -> None:
            raise ValueError("secret detail")

        def __call__(self) -> str:
            return "never"

    app = serve_app(Says.bind("x"), name="url", route_prefix="/url")
    with pytest.raises(RuntimeError):
        serve.run(Broken.bind(), name="broken", route_prefix="/broken")
    try:
        response = app.client.get(app.url.removesuffix("/url") + "/broken")
    finally:
        serve.delete("broken")
    assert response.status_code == 503
    assert "secret detail" not in response.text


def test_replicas_start_in_parallel(serve_app: ServeApp, journal: Journal, make_gate: MakeGate) -> None:
    pen, gate = journal.pen, make_gate()

    @serve.deployment(num_replicas=3)
    class Slow:
        async def __init__(self) -> None:
            pen.note("constructing")
            await gate.passed()

        def __call__(self) -> str:
            return "ready"

    run_many([RunTarget(Slow.bind())], wait_for_applications_running=False)
    journal.wait_for("constructing", 3)
    found = application()
    assert (found.status, found.deployments[0].status) == ("DEPLOYING", "UPDATING")
    assert dict(found.deployments[0].replica_states) == {"STARTING": 3}
    gate.open()
    found = wait_for_status("RUNNING")
    assert (found.deployments[0].status, dict(found.deployments[0].replica_states)) == (
        "HEALTHY",
        {"RUNNING": 3},
    )
    serve.delete("default")
    assert "default" not in serve.status().applications


# --- User config ---


@serve.deployment
class Configured:
    def __init__(self) -> None:
        self._config: Any = None
        self._count = 0

    def reconfigure(self, config: Any) -> None:
        if config == "bad":
            raise ValueError("what config is that?")
        self._count += 1
        self._config = config

    def __call__(self) -> Any:
        return [self._config, self._count]


def test_a_reconfigure_that_fails_fails_the_deploy_and_can_be_taken_back(serve_app: ServeApp) -> None:
    app = serve_app(Configured.options(user_config="good").bind())
    with pytest.raises(RuntimeError, match="what config is that") as caught:
        serve.run(Configured.options(user_config="bad").bind())
    assert "Traceback" in str(caught.value)
    assert application().status == "DEPLOY_FAILED"
    serve_app(Configured.options(user_config="good").bind())
    assert app.client.get("/").json()[0] == "good"
    assert application().status == "RUNNING"


def test_a_first_config_that_fails_counts_as_a_failed_constructor(serve_app: ServeApp) -> None:
    with pytest.raises(RuntimeError, match="what config is that"):
        serve_app(Configured.options(user_config="bad").bind())
    assert application().status == "DEPLOY_FAILED"
    serve.delete("default")


def test_a_user_config_without_reconfigure_is_refused(serve_app: ServeApp) -> None:
    with pytest.raises((ValueError, RuntimeError), match="reconfigure"):
        serve_app(Says.options(user_config={"a": 1}, max_constructor_retry_count=1).bind("x"))
    serve.delete("default")


# --- Health ---


def checked(journal: Journal, verdicts: Path, **options: Any) -> serve.Application:
    """An application whose checks fail while the file `verdicts` says so: by replica, or for all."""
    pen = journal.pen

    @serve.deployment(name="Checked", health_check_period_s=0.05, health_check_timeout_s=5, **options)
    class Checked:
        async def __call__(self) -> str:
            return serve.get_replica_context().replica_id

        def check_health(self) -> None:
            import os

            own_id = serve.get_replica_context().replica_id
            text = verdicts.read_text() if verdicts.exists() else ""
            if text in (own_id, "all"):
                pen.note("failed")
                raise RuntimeError("I am ill")
            if text == "once":
                os.unlink(verdicts)
                pen.note("failed")
                raise RuntimeError("a moment of weakness")
            pen.note("passed")

    return Checked.bind()


def test_three_failed_checks_in_a_row_replace_the_replica(
    serve_app: ServeApp, journal: Journal, tmp_path: Path
) -> None:
    verdicts = tmp_path / "verdicts"
    app = serve_app(checked(journal, verdicts))
    ill = app.client.get("/").text
    verdicts.write_text(ill)
    journal.wait_for("failed", 3)
    wait_until(lambda: (now := running_replicas()) and ill not in now)
    wait_for_status("RUNNING")
    response = app.client.get("/")
    assert (response.status_code, response.text != ill) == (200, True)


def test_failed_checks_that_are_not_in_a_row_do_not_count(
    serve_app: ServeApp, journal: Journal, tmp_path: Path
) -> None:
    verdicts = tmp_path / "verdicts"
    app = serve_app(checked(journal, verdicts))
    before = app.client.get("/").text
    for count in range(1, 5):
        verdicts.write_text("once")
        journal.wait_for("failed", count)
        journal.wait_for("passed", journal.notes.count("passed") + 1)
    assert app.client.get("/").text == before
    assert list(running_replicas()) == [before]


def test_checks_that_always_fail_make_the_deployment_unhealthy(
    serve_app: ServeApp, journal: Journal, tmp_path: Path
) -> None:
    verdicts = tmp_path / "verdicts"
    serve_app(checked(journal, verdicts))
    verdicts.write_text("all")
    found = wait_for_status("UNHEALTHY")
    assert found.deployments[0].status == "UNHEALTHY"
    assert "I am ill" in found.message
    verdicts.unlink()
    wait_for_status("RUNNING")


def test_a_check_that_hangs_has_failed(serve_app: ServeApp, journal: Journal, tmp_path: Path) -> None:
    pen, mark = journal.pen, tmp_path / "hang"

    @serve.deployment(health_check_period_s=0.02, health_check_timeout_s=0.05)
    class Hangs:
        def __call__(self) -> str:
            return serve.get_replica_context().replica_id

        def is_ill(self) -> bool:
            return mark.exists() and mark.read_text() == serve.get_replica_context().replica_id

        async def check_health(self) -> None:
            import asyncio

            if self.is_ill():
                pen.note("hanging")
                await asyncio.Event().wait()

    app = serve_app(Hangs.bind())
    ill = app.client.get("/").text
    mark.write_text(ill)
    journal.wait_for("hanging", 3)
    wait_until(lambda: (now := running_replicas()) and ill not in now)


def test_a_long_request_does_not_fail_the_checks(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate, aside: ThreadPoolExecutor
) -> None:
    pen, gate = journal.pen, make_gate()

    @serve.deployment(health_check_period_s=0.02, health_check_timeout_s=5, max_ongoing_requests=1)
    class Busy:
        def __call__(self) -> str:
            pen.note("in")
            gate.wait()
            return "done"

        def check_health(self) -> None:
            pen.note("checked")

    app = serve_app(Busy.bind())
    response = aside.submit(app.client.get, "/")
    journal.wait_for("in")
    journal.wait_for("checked", journal.notes.count("checked") + 5)
    gate.open()
    assert response.result().text == "done"
