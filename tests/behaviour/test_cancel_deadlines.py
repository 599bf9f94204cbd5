"""A request whose time is over is cancelled like one whose client has left, everywhere it runs."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse

from slipknot import serve
from slipknot.serve.handle import DeploymentHandle
from tests.support.journal import Gate, Journal, Pen

from .cancel_apps import Leaf, MakeGate, Watcher, connect, graph, is_over
from .conftest import RunningCluster, ServeApp

TIMEOUT_HEADER = "x-request-timeout-seconds"
SHORT = {TIMEOUT_HEADER: "0.4", "x-request-id": "r1"}
TIMED_OUT = "Request r1 timed out after 0.4s."
LONG_S = 60.0
LONG = {TIMEOUT_HEADER: str(LONG_S)}
ROUNDING_S = 1e-3

DEADLINE_OR_PARENT = {"DEADLINE_EXCEEDED", "PARENT_CANCELLED"}


def reason_of(name: str, journal: Journal) -> str:
    """Why a piece of code was cancelled."""
    (note,) = [note for note in journal.notes if note.startswith(f"{name} because ")]
    return note.split(" ")[2]


def test_three_deep(serve_app: ServeApp, journal: Journal, make_gate: MakeGate) -> None:
    """408 for the client, CancelledError at each level, and nothing runs on."""
    app = serve_app(graph(journal, make_gate, leaf_slots=1))
    response = app.client.get("/deep", headers=SHORT)
    assert (response.status_code, response.text) == (408, TIMED_OUT)
    for name in ("top", "middle", "leaf"):
        journal.wait_for(f"{name} CancelledError")
    make_gate().open()
    asyncio.run(is_over("Top", "Middle", "Leaf"))
    assert reason_of("top", journal) == "DEADLINE_EXCEEDED"
    # The children have the same deadline: they hear of theirs, or of their parent's.
    assert {reason_of("middle", journal), reason_of("leaf", journal)} <= DEADLINE_OR_PARENT
    assert not [note for note in journal.notes if note.endswith("ran on")]


@pytest.mark.parametrize(
    ("way", "children"), [("unawaited", ["leaf"]), ("gather", ["one", "two"]), ("shielded_handle", ["leaf"])]
)
def test_children(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate, way: str, children: list[str]
) -> None:
    """Every call made in the request ends with it, awaited or not."""
    app = serve_app(graph(journal, make_gate))
    assert app.client.get(f"/{way}", headers=SHORT).status_code == 408
    for name in ("top", *children):
        journal.wait_for(f"{name} CancelledError")
    make_gate().open()
    asyncio.run(is_over("Top", "Leaf"))
    assert not [note for note in journal.notes if note.endswith("ran on")]


def test_queued_child(serve_app: ServeApp, journal: Journal, make_gate: MakeGate) -> None:
    """A child call that waits for a slot when the time is over never starts."""
    app = serve_app(graph(journal, make_gate, leaf_slots=1))
    leaf = serve.get_deployment_handle("Leaf", "default")
    busy = leaf.stand.remote("busy")
    journal.wait_for("busy begun")
    response = app.client.get("/unawaited", headers=SHORT)
    assert (response.status_code, response.text) == (408, TIMED_OUT)
    journal.wait_for("top CancelledError")
    make_gate().open()
    assert busy.result() == "busy"
    asyncio.run(is_over("Top", "Leaf"))
    assert "leaf begun" not in journal.notes


def test_queued(serve_app: ServeApp, journal: Journal, make_gate: MakeGate) -> None:
    """A request whose time is over in the queue never starts; the one behind it does."""
    app = serve_app(Leaf.bind(journal.pen, make_gate()))
    busy = app.handle.stand.remote("busy")
    journal.wait_for("busy begun")
    assert app.client.get("/?late", headers=SHORT).text == TIMED_OUT
    make_gate().open()
    assert app.client.get("/?behind", headers=LONG).text == "behind"
    assert busy.result() == "busy"
    assert [note for note in journal.notes if note.endswith("begun")] == ["busy begun", "behind begun"]


def test_swallowed(serve_app: ServeApp, journal: Journal, make_gate: MakeGate) -> None:
    """The client is told 408 whatever the handler makes of it; its cleanup has time, and may call."""
    app = serve_app(graph(journal, make_gate))
    response = app.client.get("/swallow", headers=SHORT)
    assert (response.status_code, response.text) == (408, TIMED_OUT)
    journal.wait_for("cleanup got now")
    make_gate("cleanup").open()
    journal.wait_for("cleanup done")
    asyncio.run(is_over("Top"))


@pytest.mark.parametrize(("way", "survivor"), [("detached", "leaf"), ("task", "task")])
def test_what_survives(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate, way: str, survivor: str
) -> None:
    """The deadline is the request's: detached calls and tasks of the user's own have none."""
    app = serve_app(graph(journal, make_gate))
    assert app.client.get(f"/{way}", headers=SHORT).status_code == 408
    journal.wait_for("top CancelledError")
    asyncio.run(is_over("Top"))
    make_gate().open()
    journal.wait_for(f"{survivor} ran on")
    assert f"{survivor} CancelledError" not in journal.notes


# --- what is left of it ---


@serve.deployment
class Last:
    """Says how much time is left."""

    async def left(self) -> list[float | None]:
        """Here."""
        return [serve.get_request_context().remaining_s]


@serve.deployment
class Between:
    """Says how much time is left here, and there."""

    def __init__(self, below: DeploymentHandle, is_detached: bool = False) -> None:
        self._below = below.options(detached=is_detached)

    async def left(self) -> list[float | None]:
        """Here, and below."""
        here = serve.get_request_context().remaining_s
        return [here, *await self._below.left.remote()]

    async def __call__(self) -> list[float | None]:
        return await self.left()


def test_what_is_left_is_inherited(serve_app: ServeApp) -> None:
    """Each hop has what the one above had left, never more."""
    app = serve_app(Between.bind(Between.options(name="Second").bind(Last.bind())))
    left = app.client.get("/", headers=LONG).json()
    assert len(left) == 3
    assert 0 < left[2] <= left[1] + ROUNDING_S <= left[0] + 2 * ROUNDING_S <= LONG_S + 3 * ROUNDING_S
    assert app.client.get("/").json() == [None, None, None]


def test_a_detached_call_has_no_deadline(serve_app: ServeApp) -> None:
    """It belongs to nobody, and nobody's time is its own."""
    app = serve_app(Between.bind(Last.bind(), True))
    here, there = app.client.get("/", headers=LONG).json()
    assert 0 < here <= LONG_S and there is None


# --- streams ---


@serve.deployment(max_ongoing_requests=1)
class Streams:
    """Streams what the leaf gives, or something of its own."""

    def __init__(self, pen: Pen, gate: Gate, leaf: DeploymentHandle) -> None:
        self._watcher, self._leaf = Watcher(pen, gate), leaf

    async def __call__(self, request: Request) -> StreamingResponse:
        if request.url.path.endswith("/handle"):
            items: Any = self._leaf.options(stream=True).items.remote()
            return StreamingResponse(items)
        return StreamingResponse(self._items())

    async def _items(self) -> AsyncIterator[str]:
        yield "item"
        await self._watcher.stand("leaf")

    async def now(self) -> str:
        """Answer at once."""
        return "now"


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/own", "/handle"])
async def test_in_the_middle_of_a_stream(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate, path: str
) -> None:
    """The status has gone out already: the connection is cut, the end of the body is missing."""
    serve_app(Streams.bind(journal.pen, make_gate(), Leaf.bind(journal.pen, make_gate())))
    client = await connect(cluster)
    client.get(path, **{TIMEOUT_HEADER.replace("-", "_"): SHORT[TIMEOUT_HEADER]})
    response = await client.read()
    assert (response.status, response.chunks, response.complete) == (200, [b"item"], False)
    client.close()
    await journal.wait_for_async("leaf CancelledError")
    make_gate().open()
    await is_over("Streams", "Leaf")
    assert reason_of("leaf", journal) in DEADLINE_OR_PARENT
    assert "leaf ran on" not in journal.notes


# --- errors that only look alike ---


@serve.deployment(max_ongoing_requests=1)
class TimesOut:
    """Raises TimeoutError of its own."""

    def __init__(self, leaf: DeploymentHandle) -> None:
        self._leaf = leaf

    async def __call__(self, request: Request) -> Any:
        match request.url.path.rpartition("/")[2]:
            case "raise":
                raise TimeoutError("mine")
            case "timeout":
                async with asyncio.timeout(0.01):
                    await asyncio.Event().wait()
            case "wait_for":
                await asyncio.wait_for(self._leaf.stand.remote(), 0.01)
        return None

    async def now(self) -> str:
        """Answer at once."""
        return "now"


@pytest.mark.parametrize("headers", [{}, LONG], ids=["no deadline", "a later deadline"])
@pytest.mark.parametrize("path", ["/raise", "/timeout", "/wait_for"])
def test_a_timeout_of_the_handlers_own(
    serve_app: ServeApp, journal: Journal, make_gate: MakeGate, path: str, headers: dict[str, str]
) -> None:
    """It is an error like any other: 500. What it waited for has been cancelled."""
    app = serve_app(TimesOut.bind(Leaf.bind(journal.pen, make_gate())))
    response = app.client.get(path, headers=headers)
    assert (response.status_code, response.text) == (500, "Internal Server Error")
    make_gate().open()
    asyncio.run(is_over("TimesOut", "Leaf"))
    assert "leaf ran on" not in journal.notes


# --- sync handlers ---


@serve.deployment(max_ongoing_requests=1)
class Threaded:
    """Goes on until it is told."""

    def __init__(self, pen: Pen) -> None:
        self._pen = pen

    def __call__(self) -> str:
        while not serve.cancelled():
            time.sleep(0.001)
        context = serve.get_request_context()
        self._pen.note(f"told {context.cancel_reason} with {context.remaining_s:.1f} s left")
        return "discarded"

    def now(self) -> str:
        """Answer at once."""
        return "now"


def test_sync_handler(serve_app: ServeApp, journal: Journal) -> None:
    """Nothing interrupts it, but it can ask; the client does not wait for it."""
    app = serve_app(Threaded.bind(journal.pen))
    response = app.client.get("/", headers=SHORT)
    assert (response.status_code, response.text) == (408, TIMED_OUT)
    asyncio.run(is_over("Threaded"))
    (note,) = journal.notes
    assert note.startswith("told DEADLINE_EXCEEDED with 0.0 s left")
