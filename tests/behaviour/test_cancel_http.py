"""Cancellation of HTTP requests: where the handler stood, and that nothing ran on."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response

from slipknot import serve
from tests.support.journal import Gate, Journal, Pen

from .cancel_apps import Leaf, MakeGate, Watcher, connect, graph, has_read_all, is_over
from .conftest import RunningCluster, ServeApp

pytestmark = pytest.mark.anyio

DISCONNECTED = "because CLIENT_DISCONNECTED at "
PARENT = "because PARENT_CANCELLED at "


def reasons(journal: Journal) -> list[str]:
    """What the handlers were told, without the origin's own name."""
    return sorted(note.partition(" at ")[0] for note in journal.notes if " because " in note)


def origins(journal: Journal) -> set[str]:
    """Where they were told that it began."""
    return {note.partition(" at ")[2] for note in journal.notes if " because " in note}


async def begin(cluster: RunningCluster, journal: Journal, path: str, *begun: str) -> Any:
    """Send a request and wait until code has begun."""
    client = await connect(cluster)
    client.get(path)
    for name in begun:
        await journal.wait_for_async(f"{name} begun")
    return client


@pytest.mark.parametrize("way", ["close", "close_writing", "reset"])
async def test_during_execution(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate, way: str
) -> None:
    """The handler is cancelled where it stands, and told why; nothing of it runs on."""
    serve_app(Leaf.bind(journal.pen, make_gate()))
    client = await begin(cluster, journal, "/?one", "one")
    getattr(client, way)()
    await journal.wait_for_async("one CancelledError")
    make_gate().open()
    await is_over("Leaf")
    client.close()
    assert [note.partition(" at ")[0] for note in journal.notes] == [
        "one begun",
        "one CancelledError",
        "one because CLIENT_DISCONNECTED",
    ]
    (origin,) = origins(journal)
    assert origin.startswith("proxy"), origin


async def test_only_the_request_whose_client_left(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate
) -> None:
    """Its neighbour in the same replica goes on."""
    serve_app(Leaf.options(max_ongoing_requests=2).bind(journal.pen, make_gate()))
    staying = await begin(cluster, journal, "/?staying", "staying")
    leaving = await begin(cluster, journal, "/?leaving", "leaving")
    leaving.close()
    await journal.wait_for_async("leaving CancelledError")
    make_gate().open()
    assert (await staying.read()).body == b"staying"
    staying.close()
    assert "staying CancelledError" not in journal.notes


async def test_queued(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate
) -> None:
    """A request whose client leaves while it waits for a slot never starts."""
    serve_app(Leaf.bind(journal.pen, make_gate()))
    first = await begin(cluster, journal, "/?first", "first")
    second = await connect(cluster)
    second.get("/?second")
    await has_read_all(cluster)
    second.close()
    await has_read_all(cluster)
    make_gate().open()
    assert (await first.read()).body == b"first"
    await is_over("Leaf")
    first.close()
    assert journal.notes == ["first begun", "first ran on"]


async def test_queued_child(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate
) -> None:
    """A child call that waits for a slot when its parent's client leaves never starts."""
    serve_app(graph(journal, make_gate, leaf_slots=1))
    leaf = serve.get_deployment_handle("Leaf", "default")
    busy = leaf.stand.remote("busy")
    await journal.wait_for_async("busy begun")
    client = await begin(cluster, journal, "/unawaited", "top")
    client.close()
    await journal.wait_for_async("top CancelledError")
    await is_over("Top")
    make_gate().open()
    assert await asyncio.to_thread(busy.result) == "busy"
    await is_over("Leaf")
    assert "leaf begun" not in journal.notes


async def test_three_deep(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate
) -> None:
    """Each level sees CancelledError, its reason, and where it began."""
    serve_app(graph(journal, make_gate, leaf_slots=1))
    client = await begin(cluster, journal, "/deep", "leaf")
    client.close()
    for name in ("top", "middle", "leaf"):
        await journal.wait_for_async(f"{name} CancelledError")
    make_gate().open()
    await is_over("Top", "Middle", "Leaf")
    assert reasons(journal) == [
        "leaf because PARENT_CANCELLED",
        "middle because PARENT_CANCELLED",
        "top because CLIENT_DISCONNECTED",
    ]
    (origin,) = origins(journal)
    assert origin.startswith("proxy")
    assert not [note for note in journal.notes if note.endswith("ran on")]


@pytest.mark.parametrize(
    ("way", "children"),
    [
        ("unawaited", ["leaf"]),
        ("gather", ["one", "two"]),
        ("shielded_handle", ["leaf"]),
        ("shielded_wrapper", ["leaf"]),
    ],
)
async def test_children(
    cluster: RunningCluster,
    serve_app: ServeApp,
    journal: Journal,
    make_gate: MakeGate,
    way: str,
    children: list[str],
) -> None:
    """Every call made in the request is cancelled with it, however it is awaited, or not at all."""
    serve_app(graph(journal, make_gate))
    client = await begin(cluster, journal, f"/{way}", "top", *children)
    client.close()
    for name in ("top", *children):
        await journal.wait_for_async(f"{name} CancelledError")
    make_gate().open()
    await is_over("Top", "Leaf")
    assert not [note for note in journal.notes if note.endswith("ran on")]


@pytest.mark.parametrize(
    ("way", "survivor"), [("shielded_local", "inner"), ("detached", "leaf"), ("task", "task")]
)
async def test_what_survives(
    cluster: RunningCluster,
    serve_app: ServeApp,
    journal: Journal,
    make_gate: MakeGate,
    way: str,
    survivor: str,
) -> None:
    """Shielded coroutines of one's own, detached calls and tasks are left alone."""
    serve_app(graph(journal, make_gate))
    client = await begin(cluster, journal, f"/{way}", "top", survivor)
    client.close()
    await journal.wait_for_async("top CancelledError")
    await is_over("Top")
    make_gate().open()
    await journal.wait_for_async(f"{survivor} ran on")
    assert f"{survivor} CancelledError" not in journal.notes


async def test_swallowed(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate
) -> None:
    """Cleanup may await and call; the slot is taken until it has ended, and the next request waits."""
    serve_app(graph(journal, make_gate))
    client = await begin(cluster, journal, "/swallow", "top")
    client.close()
    await journal.wait_for_async("cleanup got now")
    following = await connect(cluster)
    following.get("/now")
    await has_read_all(cluster)
    assert "now" not in journal.notes
    make_gate("cleanup").open()
    assert (await following.read()).body == b"now"
    following.close()
    assert journal.notes[-2:] == ["cleanup done", "now"]


@pytest.mark.parametrize("way", ["raise_it", "cancels_its_own_task"])
async def test_a_cancellation_of_its_own(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate, way: str
) -> None:
    """CancelledError without a cancellation is an error of the handler's, and never a hang."""
    app = serve_app(graph(journal, make_gate))
    response = await asyncio.to_thread(app.client.get, f"/{way}")
    assert (response.status_code, response.text) == (500, "Internal Server Error")
    await is_over("Top")


# --- sync handlers ---


@serve.deployment(max_ongoing_requests=1)
class Blocking:
    """Asks whether it was cancelled, and holds its slot until the gate opens."""

    def __init__(self, pen: Pen, gate: Gate) -> None:
        self._pen, self._gate = pen, gate

    def __call__(self) -> str:
        self._pen.note("begun")
        while not serve.cancelled():
            time.sleep(0.001)
        self._pen.note(f"told {serve.get_request_context().cancel_reason}")
        self._gate.wait()
        self._pen.note("ended")
        return "discarded"

    def now(self) -> str:
        """Answer at once."""
        self._pen.note("now")
        return "now"


async def test_sync_handler(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate
) -> None:
    """Nothing interrupts it, but it can ask; its slot is taken until it returns."""
    app = serve_app(Blocking.bind(journal.pen, make_gate()))
    client = await begin(cluster, journal, "/")
    await journal.wait_for_async("begun")
    client.close()
    await journal.wait_for_async("told CLIENT_DISCONNECTED")
    following = app.handle.now.remote()
    make_gate().open()
    assert await asyncio.to_thread(following.result) == "now"
    assert journal.notes == ["begun", "told CLIENT_DISCONNECTED", "ended", "now"]


# --- bodies ---


@serve.deployment(max_ongoing_requests=1)
class Takes:
    """Reads the body or not, as the path says, and stands."""

    def __init__(self, pen: Pen, gate: Gate) -> None:
        self._watcher = Watcher(pen, gate)

    async def __call__(self, request: Request) -> str:
        name = request.url.path.rpartition("/")[2]
        return await self._watcher.stand(name, request.body() if name == "reads" else None)

    async def now(self) -> str:
        """Answer at once."""
        return "now"


@pytest.mark.parametrize("way", ["close", "close_writing", "reset"])
@pytest.mark.parametrize(
    ("path", "declared", "sent"),
    [
        ("unread", 10, 10),
        ("unread", 300_000, 300_000),
        ("unread", 5_000_000, 5_000_000),
        ("unread", 300_000, 150_000),
        ("reads", 300_000, 150_000),
    ],
    ids=["unread", "over 64 KiB", "over the credit", "half", "half, being read"],
)
async def test_with_a_body(
    cluster: RunningCluster,
    serve_app: ServeApp,
    journal: Journal,
    make_gate: MakeGate,
    path: str,
    declared: int,
    sent: int,
    way: str,
) -> None:
    """Bytes that nobody has read do not hide that the client has left."""
    serve_app(Takes.bind(journal.pen, make_gate()))
    client = await connect(cluster)
    client.request("POST", f"/{path}", None, content_length=str(declared))
    client.send(b"x" * sent)
    await journal.wait_for_async(f"{path} begun")
    await client.flush()
    getattr(client, way)()
    await journal.wait_for_async(f"{path} CancelledError")
    make_gate().open()
    await is_over("Takes")
    client.close()
    assert f"{path} ran on" not in journal.notes


@pytest.mark.parametrize("way", ["close", "reset"])
async def test_with_a_second_request_pipelined(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate, way: str
) -> None:
    """The first is cancelled although the next one lies behind it; the next one never starts."""
    serve_app(Leaf.bind(journal.pen, make_gate()))
    client = await connect(cluster)
    client.get("/?first")
    client.get("/?second")
    await journal.wait_for_async("first begun")
    getattr(client, way)()
    await journal.wait_for_async("first CancelledError")
    make_gate().open()
    await is_over("Leaf")
    assert not [note for note in journal.notes if note.startswith("second")]


# --- middleware ---


def _layered(pen: Pen, gate: Gate) -> FastAPI:
    app = FastAPI()

    class Layer(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Callable[..., Awaitable[Response]]) -> Response:
            return await call_next(request)

    for _ in range(3):
        app.add_middleware(Layer)
    watcher = Watcher(pen, gate)

    @app.get("/stand")
    async def stand() -> str:
        return await watcher.stand("endpoint")

    @app.get("/now")
    async def now() -> str:
        return "now"

    return app


async def test_behind_three_layers_of_middleware(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate
) -> None:
    """`BaseHTTPMiddleware` runs the endpoint in tasks of its own; it is cancelled all the same."""
    pen, gate = journal.pen, make_gate()

    @serve.deployment(max_ongoing_requests=1)
    @serve.ingress(lambda: _layered(pen, gate))
    class Layered:
        pass

    app = serve_app(Layered.bind())
    client = await begin(cluster, journal, "/stand", "endpoint")
    client.close()
    await journal.wait_for_async("endpoint CancelledError")
    make_gate().open()
    assert (await asyncio.to_thread(app.client.get, "/now")).json() == "now"
    assert reasons(journal) == ["endpoint because CLIENT_DISCONNECTED"]


# --- logs ---


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def kept() -> Iterator[_Kept]:
    """What is logged in this process."""
    handler, logger = _Kept(), logging.getLogger("slipknot.serve")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.setLevel(level)
    logger.removeHandler(handler)


async def test_the_access_log(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate, kept: _Kept
) -> None:
    """The proxy logs 499, the replicas CANCELLED, both at INFO; there is no traceback and no warning."""
    if cluster.mode == "embedded":
        pytest.skip("the roles log in their own processes; here their records can be looked at")
    serve_app(graph(journal, make_gate))
    kept.records.clear()
    client = await begin(cluster, journal, "/deep", "leaf")
    client.close()
    await journal.wait_for_async("leaf CancelledError")
    await is_over("Top", "Middle", "Leaf")
    await has_read_all(cluster)
    messages = [record.getMessage() for record in kept.records]
    assert [message for message in messages if " 499 " in message], messages
    assert len([message for message in messages if "CANCELLED" in message]) >= 3, messages
    assert not [record for record in kept.records if record.levelno > logging.INFO or record.exc_info]
