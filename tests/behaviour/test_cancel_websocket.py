"""WebSockets whose client leaves: `receive` says so; nothing is cancelled but what the handler cancels."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import websockets
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from slipknot import serve
from slipknot.serve.exceptions import RequestCancelledError
from slipknot.serve.handle import DeploymentHandle
from tests.support.journal import Gate, Journal, Pen
from tests.support.raw_http import RawClient

from .cancel_apps import Leaf, MakeGate, Watcher, connect, has_read_all, is_over
from .conftest import RunningCluster, ServeApp

pytestmark = pytest.mark.anyio

ABRUPT = ("1005", "1006")
HANDSHAKE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec_websocket_version": "13",
    "sec_websocket_key": "AAAAAAAAAAAAAAAAAAAAAA==",
}

api = FastAPI()


@serve.deployment(max_ongoing_requests=1)
@serve.ingress(api)
class Sockets:
    """One WebSocket at a time."""

    def __init__(self, pen: Pen, gate: Gate, leaf: DeploymentHandle) -> None:
        self._pen, self._gate, self._leaf = pen, gate, leaf
        self._watcher = Watcher(pen, gate)

    @api.websocket("/receive")
    async def receive(self, websocket: WebSocket) -> None:
        """Wait for what comes."""
        await self._accept(websocket)
        message = await websocket.receive()
        self._pen.note(f"{message['type']} {message['code']} {message.get('reason')}")
        self._pen.note(f"reason {serve.get_request_context().cancel_reason}")

    @api.websocket("/receive_text")
    async def receive_text(self, websocket: WebSocket) -> None:
        """The same with the framework's exception."""
        await self._accept(websocket)
        try:
            await websocket.receive_text()
        except WebSocketDisconnect as closed:
            self._pen.note(f"websocket.disconnect {closed.code} {closed.reason}")
        self._pen.note(f"reason {serve.get_request_context().cancel_reason}")

    @api.websocket("/stand")
    async def stand(self, websocket: WebSocket) -> None:
        """Stand without reading, then send until the client has left, then stand, and read at last."""
        await self._accept(websocket)
        await self._send_until_it_fails(websocket)
        self._pen.note("left")
        await self._watcher.stand("handler")
        message = await websocket.receive()
        self._pen.note(f"{message['type']} {message['code']}")

    @api.websocket("/child")
    async def child(self, websocket: WebSocket) -> None:
        """Make a call, and cancel it when the client has left."""
        await self._accept(websocket)
        call: Any = self._leaf.stand.remote("child")
        await websocket.receive()
        call.cancel()
        try:
            await call
        except RequestCancelledError:
            self._pen.note(f"call cancelled {call.cancelled()}")

    @api.websocket("/goes_on")
    async def goes_on(self, websocket: WebSocket) -> None:
        """Make a call when the client has left, and wait for it."""
        await self._accept(websocket)
        await websocket.receive()
        self._pen.note(f"got {await self._leaf.stand.remote('child')}")

    @api.websocket("/whichever")
    async def whichever(self, websocket: WebSocket) -> None:
        """Wait for a call or for the end of the client, whichever comes first."""
        await self._accept(websocket)
        call: Any = self._leaf.stand.remote("child")
        waiting = {asyncio.ensure_future(call), asyncio.ensure_future(websocket.receive())}
        _, left = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in left:
            task.cancel()
        await asyncio.wait(left)
        self._pen.note(f"call cancelled {call.cancelled()}")

    @api.websocket("/echo")
    async def echo(self, websocket: WebSocket) -> None:
        """Answer one message."""
        await self._accept(websocket)
        await websocket.send_text(await websocket.receive_text())

    async def now(self) -> str:
        """Answer at once."""
        return "now"

    async def _accept(self, websocket: WebSocket) -> None:
        await websocket.accept()
        self._pen.note("begun")

    async def _send_until_it_fails(self, websocket: WebSocket) -> None:
        try:
            while True:
                await websocket.send_text("x")
                await asyncio.sleep(0.001)
        except WebSocketDisconnect:
            return


def app_of(journal: Journal, make_gate: MakeGate) -> serve.Application:
    """The WebSockets and their leaf."""
    return Sockets.bind(journal.pen, make_gate(), Leaf.bind(journal.pen, make_gate()))


async def begin(cluster: RunningCluster, journal: Journal, path: str) -> Any:
    """Open a WebSocket and wait for its handler."""
    websocket = await websockets.connect(f"{cluster.websocket_url}/{path}")
    await journal.wait_for_async("begun")
    return websocket


async def leave(websocket: Any, how: str) -> None:
    """Drop the connection, or close it with a code."""
    if how == "abort":
        websocket.transport.abort()
    else:
        code, _, reason = how.partition(" ")
        await websocket.close(int(code), reason)


async def is_answered(cluster: RunningCluster) -> None:
    """The next WebSocket is served."""
    async with websockets.connect(f"{cluster.websocket_url}/echo") as websocket:
        await websocket.send("hello")
        assert await websocket.recv() == "hello"


@pytest.mark.parametrize("path", ["receive", "receive_text"])
async def test_an_abrupt_drop(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate, path: str
) -> None:
    """It is reported as a disconnect without a code; the handler is not cancelled."""
    serve_app(app_of(journal, make_gate))
    websocket = await begin(cluster, journal, path)
    await leave(websocket, "abort")
    await journal.wait_for_async("reason None")
    await is_over("Sockets")
    _, note, _ = journal.notes
    kind, code, *_ = note.split(" ")
    assert kind == "websocket.disconnect" and code in ABRUPT
    await is_answered(cluster)


@pytest.mark.parametrize("path", ["receive", "receive_text"])
@pytest.mark.parametrize("how", ["1000 ", "1001 bye", "4002 why"])
async def test_a_close(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate, path: str, how: str
) -> None:
    """Code and reason are the client's."""
    serve_app(app_of(journal, make_gate))
    websocket = await begin(cluster, journal, path)
    await leave(websocket, how)
    await journal.wait_for_async("reason None")
    assert journal.notes[1] == f"websocket.disconnect {how}"


@pytest.mark.parametrize("how", ["abort", "1001 bye"])
async def test_a_handler_that_does_not_read(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate, how: str
) -> None:
    """It is not cancelled: only `receive`, and a failing `send`, report that the client has left."""
    serve_app(app_of(journal, make_gate))
    websocket = await begin(cluster, journal, "stand")
    await leave(websocket, how)
    await journal.wait_for_async("left")
    await journal.wait_for_async("handler begun")
    await has_read_all(cluster)
    make_gate().open()
    await journal.wait_for_async("handler ran on")
    await is_over("Sockets")
    assert "handler CancelledError" not in journal.notes
    kind, code = journal.notes[-1].split(" ")
    assert kind == "websocket.disconnect"
    assert code in (ABRUPT if how == "abort" else ("1001",))


@pytest.mark.parametrize("how", ["abort", "1001 bye"])
@pytest.mark.parametrize("path", ["child", "whichever"])
async def test_a_child_that_the_handler_cancels(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate, path: str, how: str
) -> None:
    """The handler decides what becomes of its calls."""
    serve_app(app_of(journal, make_gate))
    websocket = await begin(cluster, journal, path)
    await journal.wait_for_async("child begun")
    await leave(websocket, how)
    await journal.wait_for_async("child CancelledError")
    await journal.wait_for_async("call cancelled True")
    make_gate().open()
    await is_over("Sockets", "Leaf")
    (note,) = [note for note in journal.notes if " because " in note]
    assert note.startswith("child because REQUESTED at replica:default/Sockets")
    assert "child ran on" not in journal.notes


@pytest.mark.parametrize("how", ["abort", "1001 bye"])
async def test_a_call_made_after_the_client_has_left(
    cluster: RunningCluster, serve_app: ServeApp, journal: Journal, make_gate: MakeGate, how: str
) -> None:
    """The handler goes on, and so do its calls; its slot is taken until it returns."""
    serve_app(app_of(journal, make_gate))
    websocket = await begin(cluster, journal, "goes_on")
    await leave(websocket, how)
    await journal.wait_for_async("child begun")
    following = asyncio.create_task(is_answered(cluster))
    await has_read_all(cluster)
    make_gate().open()
    await following
    assert journal.notes == ["begun", "child begun", "child ran on", "got child", "begun"]


@pytest.fixture
async def impatient(cluster: RunningCluster) -> AsyncIterator[RawClient]:
    """A client that will not wait for the end of a handshake."""
    client = await connect(cluster)
    yield client
    client.close()


async def test_while_the_handshake_is_queued(
    cluster: RunningCluster,
    serve_app: ServeApp,
    journal: Journal,
    make_gate: MakeGate,
    impatient: RawClient,
) -> None:
    """A WebSocket whose client leaves before there is a slot for it never starts."""
    serve_app(app_of(journal, make_gate))
    first = await begin(cluster, journal, "receive")
    impatient.get("/receive_text", **HANDSHAKE)
    await has_read_all(cluster)
    impatient.close()
    await has_read_all(cluster)
    await first.close(1000)
    await journal.wait_for_async("reason None")
    await is_answered(cluster)
    assert journal.notes == ["begun", "websocket.disconnect 1000 ", "reason None", "begun"]
