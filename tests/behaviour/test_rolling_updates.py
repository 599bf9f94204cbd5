"""Updates replica by replica under load, and the return to the version before when the new one fails."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, WebSocket
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from slipknot import _connection, serve
from slipknot._api import RunTarget, run_many
from slipknot_proto.v1 import controller_pb2
from tests.support.cluster_status import application, running_replicas, wait_for_status, wait_until
from tests.support.journal import Gate, Journal
from tests.support.load import Load

from .conftest import ServeApp

pytestmark = pytest.mark.timeout(60)
"""Replicas start many times over, which takes its time on a busy machine."""

api = FastAPI()


@serve.deployment
class Says:
    def __init__(self, text: str) -> None:
        self._text = text

    async def __call__(self) -> str:
        return self._text


@serve.deployment(name="Says", max_constructor_retry_count=1)
class Broken:
    def __init__(self) -> None:
        raise ValueError("worse than before")

    async def __call__(self) -> str:
        return "never"


def scale(deployment: str, number: int) -> None:
    """As `slipknot` clients do."""
    connection = _connection.current()
    request = controller_pb2.ScaleDeploymentRequest(
        app_name="default", deployment_name=deployment, num_replicas=number
    )

    async def call() -> None:
        await connection.controller.ScaleDeployment(request, timeout=10)

    connection.run(call())


def test_replicas_are_replaced_one_by_one_by_default(serve_app: ServeApp) -> None:
    """Never fewer than three serve, and never more than one above three exists."""
    app = serve_app(Says.options(num_replicas=3).bind("one"))
    counts: list[dict[str, int]] = []
    with Load(app.url, clients=3) as load:
        done = threading.Event()

        def look() -> None:
            while not done.is_set():
                counts.append(dict(application().deployments[0].replica_states))

        looking = threading.Thread(target=look)
        looking.start()
        try:
            serve_app(Says.options(num_replicas=3).bind("two"))
        finally:
            done.set()
            looking.join()
        load.wait_for_more(5)
    assert load.failures == []
    assert load.answers[-1].text == "two"
    assert min(c.get("RUNNING", 0) for c in counts) >= 3
    assert max(c.get("RUNNING", 0) + c.get("STARTING", 0) for c in counts) == 4


def test_a_version_that_cannot_start_is_rolled_back(serve_app: ServeApp) -> None:
    app = serve_app(Says.options(num_replicas=2).bind("one"))
    with Load(app.url) as load:
        with pytest.raises(RuntimeError, match="worse than before"):
            serve.run(Broken.options(num_replicas=2).bind())
        found = wait_until(lambda: (now := application()).message.startswith("Rolled back") and now)
        assert (found.status, found.deployments[0].status) == ("DEPLOY_FAILED", "HEALTHY")
        assert "Traceback" in found.message and "worse than before" in found.message
        scale("Says", 3)  # what is wanted is the version before, so that it can also be scaled
        wait_until(lambda: len(running_replicas()) == 3)
        load.wait_for_more(10)
        assert {answer.text for answer in load.answers} == {"one"}
        assert application().status == "DEPLOY_FAILED"
        serve_app(Says.bind("two"))
        assert (application().status, application().message) == ("RUNNING", "")
        load.wait_for_more(5)
    assert load.failures == []


def test_the_application_is_rolled_back_as_a_whole(serve_app: ServeApp) -> None:
    @serve.deployment
    class Front:
        def __init__(self, text: str, back: Any) -> None:
            self._text, self._back = text, back

        async def __call__(self) -> str:
            return f"{self._text} {await self._back.remote()}"

    app = serve_app(Front.bind("one", Says.bind("one")))
    with Load(app.url) as load:
        with pytest.raises(RuntimeError, match="worse than before"):
            serve.run(Front.bind("two", Broken.bind()))
        wait_until(
            lambda: (
                (now := application()).message.startswith("Rolled back")
                and all(d.status == "HEALTHY" for d in now.deployments)
            )
        )
        load.wait_for_more(5)
        assert app.client.get("/").text == "one one"
    assert load.failures == []


@serve.deployment(name="Says", health_check_period_s=0.05, health_check_timeout_s=5)
class Ill:
    async def __call__(self) -> str:
        return "never"

    def check_health(self) -> None:
        raise RuntimeError("ill from the beginning")


def test_a_version_that_never_passes_its_health_check_is_rolled_back(serve_app: ServeApp) -> None:
    """Its replicas get no requests: those of the version before stay until a check has been passed."""
    app = serve_app(Says.bind("one"))
    with Load(app.url) as load:
        with pytest.raises(RuntimeError, match="did not stay healthy") as caught:
            serve.run(Ill.bind())
        assert "ill from the beginning" in str(caught.value)
        load.wait_for_more(5)
        assert application().deployments[0].status == "HEALTHY"
    assert load.failures == []
    assert {answer.text for answer in load.answers} == {"one"}


def test_an_update_of_an_update_that_failed_returns_to_the_last_good_version(serve_app: ServeApp) -> None:
    serve_app(Says.bind("one"))
    run_many(
        [RunTarget(Broken.options(max_constructor_retry_count=20).bind())],
        wait_for_applications_running=False,
    )
    run_many([RunTarget(Broken.bind())], wait_for_applications_running=False)
    wait_until(lambda: application().message.startswith("Rolled back"))
    assert serve.get_app_handle("default").remote().result() == "one"
    wait_for_status("DEPLOY_FAILED")


def test_a_version_that_serves_is_the_one_to_return_to_while_the_one_before_still_drains(
    serve_app: ServeApp, journal: Journal, make_gate: Callable[..., Gate]
) -> None:
    pen, gate = journal.pen, make_gate()

    @serve.deployment(name="Says")
    class Held:
        async def __call__(self) -> str:
            pen.note("in")
            await gate.passed()
            return "one"

    app = serve_app(Held.bind())
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(httpx.get, app.url, timeout=30)
        journal.wait_for("in")
        serve_app(Says.bind("two"))
        with pytest.raises(RuntimeError, match="worse than before"):
            serve.run(Broken.bind())
        wait_until(lambda: application().message.startswith("Rolled back"))
        assert app.client.get("/").text == "two"
        gate.open()
        assert held.result().text == "one"


def test_a_replica_that_is_stopped_while_it_is_being_started_ends(serve_app: ServeApp) -> None:
    """Stopping it is not forgotten because its process is not there yet."""
    for _ in range(3):
        run_many([RunTarget(Says.options(num_replicas=2).bind("x"))], wait_for_applications_running=False)
        wait_until(lambda: application() and application().deployments[0].replicas)
        serve.delete("default")
        assert application() is None


@serve.deployment(name="Echo", graceful_shutdown_timeout_s=0.1, max_ongoing_requests=100)
@serve.ingress(api)
class Echo:
    @api.websocket("/ws")
    async def echo(self, websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_text(await websocket.receive_text())


def test_every_websocket_of_a_replica_that_goes_hears_of_it(serve_app: ServeApp) -> None:
    """The last word of each is delivered before the process ends."""
    app = serve_app(Echo.bind())
    for _ in range(4):
        with ExitStack() as stack:
            sockets = [stack.enter_context(connect(app.websocket_url + "/ws")) for _ in range(25)]
            for socket in sockets:
                socket.send("here")
                assert socket.recv(timeout=15) == "here"
            serve.run(Echo.bind())
            codes = []
            for socket in sockets:
                with pytest.raises(ConnectionClosed) as closed:
                    socket.recv(timeout=15)
                codes.append(closed.value.rcvd.code if closed.value.rcvd else 1006)
            assert codes == [1001] * len(sockets)
