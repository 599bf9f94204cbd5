"""Deploy, redeploy, scale, check and delete: what users, clients and handlers see of it. What changes in
place stands in test_deploy_config.py.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from slipknot import serve
from slipknot._api import RunTarget, run_many
from slipknot.serve.exceptions import SlipknotServeException
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


def held(text: str, journal: Journal, gate: Gate, **options: Any) -> serve.Application:
    """An application whose handler waits at the gate."""
    pen = journal.pen

    @serve.deployment(name="Held", **options)
    class Held:
        async def __call__(self) -> str:
            pen.note("in")
            await gate.passed()
            return text

        async def other(self) -> str:
            return text

    return Held.bind()


# --- Redeploy ---


def test_a_redeploy_under_load_loses_no_request(serve_app: ServeApp) -> None:
    app = serve_app(Says.options(num_replicas=2).bind("one"))
    with Load(app.url, clients=4) as load:
        serve_app(Says.options(num_replicas=2).bind("two"))
        done_s = time.monotonic()
        load.wait_for_more(20)
    assert load.failures == []
    assert {answer.text for answer in load.answers} == {"one", "two"}
    assert {answer.text for answer in load.since(done_s)} == {"two"}


def test_a_single_replica_is_replaced_without_a_failed_request(serve_app: ServeApp) -> None:
    app = serve_app(Says.bind("one"))
    with Load(app.url) as load:
        serve_app(Says.bind("two"))
        serve_app(Says.bind("three"))
        load.wait_for_more(5)
    assert load.failures == []
    assert load.answers[-1].text == "three"


def test_a_request_in_flight_survives_a_redeploy(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate, aside: ThreadPoolExecutor
) -> None:
    gate = make_gate()
    app = serve_app(held("old", journal, gate))
    response = aside.submit(app.client.get, "/")
    journal.wait_for("in")
    new = serve_app(Says.options(name="Held").bind("new"))
    assert new.client.get("/").text == "new"
    gate.open()
    assert (response.result().status_code, response.result().text) == (200, "old")


def test_every_run_is_a_new_version(serve_app: ServeApp) -> None:
    """What the code imports may have changed, and nobody could tell."""
    serve_app(Says.options(num_replicas=2).bind("one"))
    before = running_replicas()
    serve_app(Says.options(num_replicas=2).bind("one"))
    wait_until(lambda: len(running_replicas()) == 2)
    assert not before.keys() & running_replicas().keys()


def test_a_deployment_that_is_not_bound_any_more_is_removed(serve_app: ServeApp) -> None:
    @serve.deployment
    class Front:
        def __init__(self, back: Any) -> None:
            self._back = back

        async def __call__(self) -> str:
            return "front and " + await self._back.remote()

    @serve.deployment(name="Front")
    def alone() -> str:
        return "alone"

    app = serve_app(Front.bind(Says.bind("back")))
    assert app.client.get("/").text == "front and back"
    again = serve_app(alone.bind())
    assert [d.name for d in application().deployments] == ["Front"]
    assert again.client.get("/").text == "alone"

    def is_gone() -> bool:
        try:
            serve.get_deployment_handle("Says", "default")
        except KeyError:
            return True
        return False

    wait_until(is_gone)


def test_what_an_update_lets_go_does_not_come_back_with_the_next(
    serve_app: ServeApp, journal: Journal, aside: ThreadPoolExecutor, make_gate: MakeGate
) -> None:
    """The next update may begin while the last one still drains what it replaced."""
    pen, leave, enter = journal.pen, make_gate("leave"), make_gate("enter")

    def version(name: str, *, is_held: bool = False) -> serve.Application:
        @serve.deployment(name=name)
        class Version:
            async def __init__(self) -> None:
                pen.note(name)
                if is_held:
                    await enter.passed()

            async def __call__(self, request: Any = None) -> str:
                if request is None:
                    pen.note("in")
                    await leave.passed()
                return name

        return Version.bind()

    under_way = serve_app(version("First")).handle.remote()
    journal.wait_for("in")
    app = serve_app(version("Second"))
    third = aside.submit(serve_app, version("Third", is_held=True))
    journal.wait_for("Third")
    assert app.client.get("/").text == "Second"
    leave.open()
    assert under_way.result(timeout_s=10) == "First"
    assert app.client.get("/").text == "Second"
    enter.open()
    third.result(20)
    assert app.client.get("/").text == "Third"
    assert journal.notes.count("First") == 1


# --- Scale ---


def test_more_and_fewer_replicas_lose_no_request(serve_app: ServeApp) -> None:
    app = serve_app(Says.bind("here"))
    with Load(app.url) as load:
        for count in (3, 1):
            serve_app(Says.options(num_replicas=count).bind("here"))
            wait_until(lambda count=count: len(running_replicas()) == count)
        load.wait_for_more(5)
    assert load.failures == []


def test_scaling_down_waits_for_requests_in_flight(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate, aside: ThreadPoolExecutor
) -> None:
    gate = make_gate()
    options = {"max_ongoing_requests": 1}
    app = serve_app(held("done", journal, gate, num_replicas=2, **options))
    responses = [aside.submit(app.client.get, "/") for _ in range(2)]
    journal.wait_for("in", 2)
    serve_app(held("done", journal, gate, num_replicas=1, **options))
    wait_until(lambda: len(running_replicas()) == 1)
    gate.open()
    assert [response.result().status_code for response in responses] == [200, 200]


# --- Delete ---


def test_a_request_in_flight_survives_a_delete(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate, aside: ThreadPoolExecutor
) -> None:
    gate = make_gate()
    app = serve_app(held("old", journal, gate))
    response = aside.submit(app.client.get, "/")
    journal.wait_for("in")
    deletion = aside.submit(serve.delete, app.name)
    wait_for_status("DELETING")
    assert not deletion.done()
    gate.open()
    assert (response.result().status_code, response.result().text) == (200, "old")
    deletion.result()
    assert application() is None
    assert app.client.get("/").status_code == 404


def test_a_drain_that_takes_too_long_cancels_what_still_runs(
    serve_app: ServeApp, journal: Journal, aside: ThreadPoolExecutor
) -> None:
    pen = journal.pen

    @serve.deployment(graceful_shutdown_timeout_s=0.05)
    class Endless:
        async def __call__(self) -> str:
            import asyncio

            pen.note("in")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pen.note(f"cancelled {serve.get_request_context().cancel_reason}")
                raise
            return "never"

    app = serve_app(Endless.bind())
    response = aside.submit(app.client.get, "/")
    journal.wait_for("in")
    serve.delete(app.name)
    assert response.result().status_code >= 500
    assert [note.split()[0] for note in journal.notes] == ["in", "cancelled"]
    assert "drain" in journal.notes[1].lower()


def test_deleting_what_is_not_there_is_no_error(serve_app: ServeApp) -> None:
    serve_app(Says.bind("here"))
    serve.delete("nobody")
    assert application().status == "RUNNING"


@pytest.mark.parametrize("is_async", [False, True])
def test_del_runs_when_the_replica_ends(serve_app: ServeApp, journal: Journal, is_async: bool) -> None:
    pen = journal.pen

    class Sync:
        def __call__(self) -> str:
            return "here"

        def __del__(self) -> None:
            pen.note("deleted")

    class Async:
        def __call__(self) -> str:
            return "here"

        async def __del__(self) -> None:
            pen.note("deleted")

    app = serve_app(serve.deployment(Async if is_async else Sync).bind())
    assert journal.notes == []
    serve.delete(app.name)
    assert journal.notes == ["deleted"]


def test_del_runs_even_if_the_constructor_hangs(serve_app: ServeApp, journal: Journal) -> None:
    pen = journal.pen

    @serve.deployment
    class Hangs:
        async def __init__(self) -> None:
            import asyncio

            pen.note("constructing")
            await asyncio.Event().wait()

        def __del__(self) -> None:
            pen.note("deleted")

    run_many([RunTarget(Hangs.bind())], wait_for_applications_running=False)
    journal.wait_for("constructing")
    serve.delete("default")
    journal.wait_for("deleted")


# --- Routes ---


def test_two_applications_cannot_have_the_same_prefix(serve_app: ServeApp) -> None:
    app = serve_app(Says.bind("first"), name="first", route_prefix="/same")
    with pytest.raises(SlipknotServeException, match="/same"):
        serve_app(Says.bind("second"), name="second", route_prefix="/same")
    assert app.client.get("/").text == "first"
    assert application("second") is None


def test_a_prefix_is_free_again_after_its_application_was_deleted(serve_app: ServeApp) -> None:
    serve_app(Says.bind("first"), name="first", route_prefix="/same")
    serve.delete("first")
    assert (
        serve_app(Says.bind("second"), name="second", route_prefix="/same").client.get("/").text == "second"
    )


def test_an_application_can_move_to_another_prefix(serve_app: ServeApp) -> None:
    old = serve_app(Says.bind("moved"), route_prefix="/old")
    new = serve_app(Says.bind("moved"), route_prefix="/new")
    assert (old.client.get("/").status_code, new.client.get("/").text) == (404, "moved")


def test_an_application_without_a_prefix_is_reached_by_handle_only(serve_app: ServeApp) -> None:
    app = serve_app(Says.bind("hidden"), route_prefix=None)
    assert app.handle.remote().result() == "hidden"
    assert app.client.get("/").status_code == 404
    assert "hidden" not in app.client.get("/-/routes").text


def test_several_applications_are_deployed_together(serve_app: ServeApp) -> None:
    app = serve_app(Says.bind("one"), name="one", route_prefix="/one")
    try:
        run_many(
            [RunTarget(Says.bind("two"), "two", "/two"), RunTarget(Says.bind("three"), "three", "/three")]
        )
        base = app.url.removesuffix("/one")
        assert [app.client.get(f"{base}/{name}").text for name in ("one", "two", "three")] == [
            "one",
            "two",
            "three",
        ]
    finally:
        for name in ("two", "three"):
            serve.delete(name)


@pytest.mark.parametrize(
    ("second", "what"), [(("one", "/two"), "name 'one'"), (("two", "/one"), "route prefix '/one'")]
)
def test_several_applications_must_be_told_apart(
    serve_app: ServeApp, second: tuple[str, str], what: str
) -> None:
    """Two of one name would replace each other, two of one prefix hide: nothing is deployed."""
    serve_app(Says.bind("there"), name="there", route_prefix="/there")
    with pytest.raises(ValueError, match=what):
        run_many([RunTarget(Says.bind("one"), "one", "/one"), RunTarget(Says.bind("two"), *second)])
    assert list(serve.status().applications) == ["there"]


def test_a_refused_deploy_is_an_exception_and_no_more(
    serve_app: ServeApp, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not logged besides, as a controller is that does not accept one's credentials."""
    serve_app(Says.bind("first"), name="first", route_prefix="/same")
    with pytest.raises(SlipknotServeException, match="'/same' is already used"):
        serve.run(Says.bind("second"), name="second", route_prefix="/same")
    assert "refused" not in caplog.text


# --- Changes that meet ---


def test_a_deploy_that_is_overtaken_says_so(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate, aside: ThreadPoolExecutor
) -> None:
    pen, gate = journal.pen, make_gate()

    @serve.deployment(name="Says")
    class Slow:
        async def __init__(self) -> None:
            pen.note("constructing")
            await gate.passed()

        def __call__(self) -> str:
            return "slow"

    first = aside.submit(serve.run, Slow.bind())
    journal.wait_for("constructing")
    app = serve_app(Says.bind("fast"))
    assert isinstance(first.exception(), RuntimeError)
    assert "again" in str(first.exception())
    assert app.client.get("/").text == "fast"


def test_a_deploy_that_is_deleted_meanwhile_ends(
    serve_app: ServeApp, journal: Journal, aside: ThreadPoolExecutor
) -> None:
    pen = journal.pen

    @serve.deployment
    class Hangs:
        async def __init__(self) -> None:
            import asyncio

            pen.note("constructing")
            await asyncio.Event().wait()

        def __call__(self) -> str:
            return "never"

    deploy = aside.submit(serve.run, Hangs.bind())
    journal.wait_for("constructing")
    serve.delete("default")
    assert isinstance(deploy.exception(timeout=10), RuntimeError)
    assert "deleted" in str(deploy.exception())


def test_what_cannot_be_pickled_is_named_before_anything_is_deployed(serve_app: ServeApp) -> None:
    serve_app(Says.bind("here"))
    with pytest.raises(TypeError, match="lock"):
        serve.run(Says.bind(threading.Lock()), name="other", route_prefix="/other")  # type: ignore[arg-type]
    assert application("other") is None
