"""The FastAPI application of every system: a no-op, echoes, streams, a WebSocket, a request that hangs."""

import asyncio
import time
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.responses import StreamingResponse
from starlette.websockets import WebSocketDisconnect

from . import journal

api = FastAPI()

HANG_S = 4.0
"""How long a request that nobody cancels hangs."""


async def hang(hop: int, request: str, seconds: float = HANG_S) -> None:
    """Wait, and note whether it was to the end."""
    journal.note("began", hop, request)
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        journal.note("cancelled", hop, request)
        raise
    journal.note("completed", hop, request)


@api.get("/")
async def noop() -> str:
    """Answer."""
    return "ok"


@api.post("/echo")
async def echo(request: Request) -> Response:
    """Send back the body."""
    return Response(await request.body(), media_type="application/octet-stream")


@api.get("/stream")
async def stream(chunks: int) -> StreamingResponse:
    """Chunks as fast as they go; each ends with the only `~` in it."""
    return StreamingResponse(_tokens(chunks), media_type="text/plain")


async def _tokens(chunks: int) -> AsyncIterator[bytes]:
    for number in range(chunks):
        yield b"token %d~" % number


@api.get("/paced")
async def paced(ticks: int, interval_ms: float) -> StreamingResponse:
    """A chunk every `interval_ms` that tells its number and the moment at which it was made."""
    return StreamingResponse(_ticks(ticks, interval_ms / 1000), media_type="text/plain")


async def _ticks(ticks: int, interval_s: float) -> AsyncIterator[bytes]:
    begun_s = time.monotonic()
    for number in range(ticks):
        await asyncio.sleep(max(0.0, begun_s + number * interval_s - time.monotonic()))
        yield b"%d %.6f~" % (number, time.monotonic())


@api.websocket("/ws")
async def socket(socket: WebSocket) -> None:
    """Send back each message."""
    await socket.accept()
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        pass


@api.get("/hang")
async def hang_here(request: str) -> str:
    """Hang in the handler that the client talks to."""
    await hang(0, request)
    return "ok"
