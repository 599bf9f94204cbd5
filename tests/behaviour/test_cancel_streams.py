"""Cancellation of streaming responses: the generator is told, or closed, and its cleanup may wait."""

import asyncio
from typing import Any

import pytest

from slipknot.serve.handle import DeploymentHandle
from tests.support.journal import Journal
from tests.support.raw_http import RawClient

from .cancel_apps import MakeGate, connect, has_read_all, is_over
from .cancel_stream_apps import CHUNK, KINDS, app_of
from .conftest import RunningCluster, ServeApp

pytestmark = pytest.mark.anyio

STALLED_S = 0.05


async def begin(cluster: RunningCluster, way: str, first: bytes = b"first", **options: Any) -> RawClient:
    """Ask for a stream and read its first item."""
    client = await connect(cluster, **options)
    client.get(f"/{way}")
    assert (await client.read_head()).status == 200
    if first:
        assert await client.read_chunk() == first
    return client


async def leave(client: RawClient, way: str) -> None:
    """Leave in one of the ways."""
    getattr(client, way)()


def because(journal: Journal) -> list[str]:
    """What the code was told, without the origin."""
    return sorted(note.partition(" at ")[0] for note in journal.notes if " because " in note)


# --- where the generator stands ---


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("how", ["close", "close_writing", "reset"])
async def test_at_an_await(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate, kind: str, how: str
) -> None:
    """It gets CancelledError there, with the reason, and does not run on."""
    serve_app(app_of(kind, journal, make_gate))
    client = await begin(cluster, "stands")
    await journal.wait_for_async("generator begun")
    await leave(client, how)
    await journal.wait_for_async("generator CancelledError")
    make_gate().open()
    await is_over("Plain")
    client.close()
    assert because(journal) == ["generator because CLIENT_DISCONNECTED"]
    assert "generator ran on" not in journal.notes


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("way", ["stands_first", "iterator"])
async def test_before_its_first_item_and_without_a_generator(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate, kind: str, way: str
) -> None:
    """Any async iterator is cancelled where it stands."""
    serve_app(app_of(kind, journal, make_gate))
    client = await begin(cluster, way, b"" if way == "stands_first" else b"first")
    await journal.wait_for_async("generator begun")
    client.close()
    await journal.wait_for_async("generator CancelledError")
    make_gate().open()
    await is_over("Plain")
    assert "generator ran on" not in journal.notes


async def _stalls(handle: DeploymentHandle) -> None:
    """The generator is not resumed any more: all buffers up to the client are full.

    Should it be resumed after all, the tests hold just as well.
    """
    before = -1
    while (count := await _result(handle.count.remote())) != before or count == 0:
        before = count
        await asyncio.sleep(STALLED_S)


async def _result(response: Any) -> Any:
    return await response


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_while_the_response_is_blocked(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate, kind: str, how: str
) -> None:
    """A generator whose item cannot be sent gets CancelledError at its `yield`."""
    app = serve_app(app_of(kind, journal, make_gate, slots=2))
    client = await begin(cluster, "flood", b"", receive_buffer=4096)
    await _stalls(app.handle)
    await leave(client, how)
    await journal.wait_for_async("finally")
    count = await _result(app.handle.count.remote())
    assert journal.notes == ["generator CancelledError", "finally"]
    assert await _result(app.handle.count.remote()) == count


@pytest.mark.parametrize("kind", list(KINDS))
async def test_while_the_client_is_slow(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate, kind: str
) -> None:
    """A client that reads a little now and then, and leaves in the middle of a chunk."""
    serve_app(app_of(kind, journal, make_gate))
    client = await begin(cluster, "flood", b"", receive_buffer=4096)
    for _ in range(5):
        assert await client.reader.readexactly(10_000)
        await has_read_all(cluster)
    client.close()
    await journal.wait_for_async("finally")
    await is_over("Plain")
    assert journal.notes == ["generator CancelledError", "finally", "now"]


@pytest.mark.parametrize("kind", list(KINDS))
async def test_sync_generator(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate, kind: str
) -> None:
    """Nothing interrupts it, but it can ask, and at its next step it is closed."""
    serve_app(app_of(kind, journal, make_gate))
    client = await begin(cluster, "sync")
    await journal.wait_for_async("generator begun")
    client.close()
    await journal.wait_for_async("told")
    make_gate().open()
    await journal.wait_for_async("generator GeneratorExit")
    await is_over("Plain")
    assert journal.notes == ["generator begun", "told", "generator GeneratorExit", "now"]


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_sync_generator_while_the_response_is_blocked(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate, kind: str, how: str
) -> None:
    """One that waits to be resumed is closed where it stands."""
    app = serve_app(app_of(kind, journal, make_gate, slots=2))
    client = await begin(cluster, "sync_flood", b"", receive_buffer=4096)
    await _stalls(app.handle)
    await leave(client, how)
    await journal.wait_for_async("finally")
    assert journal.notes == ["generator GeneratorExit", "finally"]


# --- what comes from another deployment ---


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_downstream_stream_as_body(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate, kind: str, how: str
) -> None:
    """The downstream generator is cancelled with the response that it feeds."""
    serve_app(app_of(kind, journal, make_gate))
    client = await begin(cluster, "handle", b"item")
    await journal.wait_for_async("leaf begun")
    await leave(client, how)
    await journal.wait_for_async("leaf CancelledError")
    make_gate().open()
    await is_over("Plain", "Leaf")
    assert because(journal) == ["leaf because PARENT_CANCELLED"]
    assert "leaf ran on" not in journal.notes


@pytest.mark.parametrize("kind", list(KINDS))
async def test_a_downstream_stream_item_by_item(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate, kind: str
) -> None:
    """Both generators are told with CancelledError."""
    serve_app(app_of(kind, journal, make_gate))
    client = await begin(cluster, "consumes", b"item")
    await journal.wait_for_async("leaf begun")
    client.close()
    await journal.wait_for_async("leaf CancelledError")
    await journal.wait_for_async("generator CancelledError")
    make_gate().open()
    await is_over("Plain", "Leaf")
    assert "leaf ran on" not in journal.notes


# --- cleanup ---


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        ("plain", "cleans_up"),
        ("route", "cleans_up"),
        *((kind, "cleans_up_shielded") for kind in KINDS),
    ],
)
async def test_cleanup_that_waits(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate, kind: str, way: str
) -> None:
    """`finally` may await and call; the slot is taken until it has ended, and the next request waits.

    `BaseHTTPMiddleware` runs the generator in a cancel scope of anyio, which cancels every further `await`
    too: behind it a cleanup that waits must be shielded as anyio wants it.
    """
    serve_app(app_of(kind, journal, make_gate))
    client = await begin(cluster, way)
    await journal.wait_for_async("generator begun")
    client.close()
    await journal.wait_for_async("cleanup got now")
    following = await connect(cluster)
    following.get("/now")
    await has_read_all(cluster)
    assert "now" not in journal.notes
    make_gate("cleanup").open()
    assert (await following.read()).status == 200
    following.close()
    assert journal.notes[-2:] == ["cleanup done", "now"]


@pytest.mark.parametrize("kind", list(KINDS))
async def test_a_generator_that_goes_on(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate, kind: str
) -> None:
    """Nobody takes what it yields after it has swallowed the cancellation: it is closed."""
    serve_app(app_of(kind, journal, make_gate))
    client = await begin(cluster, "swallows")
    await journal.wait_for_async("generator begun")
    client.close()
    await journal.wait_for_async("closed")
    await is_over("Plain")
    assert journal.notes[-3:] == ["swallowed", "closed", "now"]


async def test_its_neighbours(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate
) -> None:
    """Other streams of the same replica go on."""
    serve_app(app_of("plain", journal, make_gate, slots=2))
    leaving, staying = await begin(cluster, "stands"), await begin(cluster, "stands")
    await journal.wait_for_async("generator begun", 2)
    leaving.close()
    await journal.wait_for_async("generator CancelledError")
    make_gate().open()
    assert await staying.read_chunk() == b"second"
    assert await staying.read_chunk() == b""
    staying.close()
    assert journal.notes.count("generator CancelledError") == 1


# --- streams of handle calls ---


@pytest.mark.parametrize("how", ["cancel", "drop"])
@pytest.mark.parametrize(("way", "raised"), [("flood", "CancelledError"), ("sync_flood", "GeneratorExit")])
async def test_a_method_whose_items_nobody_takes(
    cluster: RunningCluster,
    serve_app: ServeApp,
    journal: Journal,
    make_gate: MakeGate,
    way: str,
    raised: str,
    how: str,
) -> None:
    """A generator method that waits for its caller to read is cancelled, or closed, like a response."""
    app = serve_app(app_of("plain", journal, make_gate, slots=2))
    items = getattr(app.handle.options(stream=True), way).remote()
    assert await anext(items) == CHUNK
    await _stalls(app.handle)
    if how == "cancel":
        items.cancel()
    else:
        del items
    await journal.wait_for_async("finally")
    assert journal.notes == [f"generator {raised}", "finally"]


async def test_a_sync_method(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate
) -> None:
    """A sync generator method is told when it asks, and closed at its next step."""
    app = serve_app(app_of("plain", journal, make_gate))
    items: Any = app.handle.options(stream=True).sync.remote()
    assert await anext(items) == b"first"
    await journal.wait_for_async("generator begun")
    items.cancel()
    await journal.wait_for_async("told")
    make_gate().open()
    await journal.wait_for_async("generator GeneratorExit")
    await is_over("Plain")
    assert journal.notes[-2:] == ["generator GeneratorExit", "now"]
