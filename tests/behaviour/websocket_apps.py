"""Deployments that treat WebSockets in every way there is."""

import asyncio
from contextlib import suppress

from fastapi import Depends, FastAPI, Header, WebSocket
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.websockets import WebSocketDisconnect

from slipknot import serve
from slipknot.serve.exceptions import BackPressureError
from slipknot.serve.handle import DeploymentHandle
from tests.support.journal import Gate, Pen

api = FastAPI()


def shouted(word: str = "nothing") -> str:
    """A dependency with a query parameter."""
    return word.upper()


@serve.deployment
class Doubler:
    """What the sockets ask."""

    async def __call__(self, text: str) -> str:
        return text * 2


@serve.deployment(max_ongoing_requests=20)
@serve.ingress(api)
class Sockets:
    """Every way to treat a WebSocket, beside ordinary routes."""

    def __init__(self, pen: Pen, gate: Gate, doubler: DeploymentHandle) -> None:
        self.pen = pen
        self.gate = gate
        self.doubler = doubler

    @api.websocket("/echo/{name}")
    async def echo(self, websocket: WebSocket, name: str) -> None:
        await websocket.accept()
        while (message := await websocket.receive())["type"] == "websocket.receive":
            if message.get("text") is not None:
                await websocket.send_text(message["text"])
            else:
                await websocket.send_bytes(message["bytes"])
        if name != "quiet":  # a journal that nobody reads is full soon
            self.pen.note(f"{name} left {message['code']} {message['reason']!r}")

    @api.websocket("/reader/{name}")
    async def reader(self, websocket: WebSocket, name: str) -> None:
        await websocket.accept()
        try:
            await websocket.receive_text()
        except WebSocketDisconnect as error:
            self.pen.note(f"{name} disconnected {error.code} {error.reason!r}")
            raise

    @api.websocket("/too-much")
    async def too_much(self, websocket: WebSocket) -> None:
        await websocket.accept()
        raise BackPressureError("Request dropped due to backpressure: as a handle call would raise it")

    @api.websocket("/chorus")
    async def chorus(self, websocket: WebSocket) -> None:
        await websocket.accept()
        async with asyncio.TaskGroup() as voices:
            for letter in "abcde":
                voices.create_task(websocket.send_text(letter * 200_000))
                voices.create_task(websocket.send_text(letter))

    @api.websocket("/thinks-better-of-it")
    async def thinks_better_of_it(self, websocket: WebSocket) -> None:
        await websocket.accept()
        sending = asyncio.create_task(websocket.send_bytes(bytes(20_000_000)))
        for _ in range(3):
            await asyncio.sleep(0)  # the first pieces are under way, and there are hundreds
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
        await websocket.send_text("instead" if sending.cancelled() else "too late")

    @api.websocket("/close/{code}")
    async def close(self, websocket: WebSocket, code: int, reason: str = "") -> None:
        await websocket.accept()
        await websocket.close(code, reason)
        end = await websocket.receive()
        self.pen.note(f"closed {end['code']} {end['reason']!r}")

    @api.websocket("/crash")
    async def crash(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("before")
        raise ZeroDivisionError("a secret of the server")

    @api.websocket("/return")
    async def return_(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("last words")

    @api.websocket("/refuse")
    async def refuse(self, websocket: WebSocket) -> None:
        await websocket.close(4001, "not today")

    @api.websocket("/deny")
    async def deny(self, websocket: WebSocket) -> None:
        response = PlainTextResponse("pay first", 402, {"x-price": "3"})
        await websocket.send_denial_response(response)

    @api.websocket("/crash-early")
    async def crash_early(self, websocket: WebSocket) -> None:
        raise ZeroDivisionError("a secret of the server")

    @api.websocket("/forget")
    async def forget(self, websocket: WebSocket) -> None:
        """Neither accepts nor refuses."""

    @api.websocket("/number/{number}")
    async def number(self, websocket: WebSocket, number: int) -> None:
        await websocket.accept()
        await websocket.send_json(number)

    @api.websocket("/agree")
    async def agree(self, websocket: WebSocket) -> None:
        offered = websocket.scope["subprotocols"]
        chosen = offered[-1] if offered else None
        await websocket.accept(chosen, headers=[(b"x-mine", b"1"), (b"x-mine", b"2")])
        await websocket.close()

    @api.websocket("/describe/{item}")
    async def describe(
        self,
        websocket: WebSocket,
        item: str,
        limit: int = 3,
        word: str = Depends(shouted),
        x_mine: str = Header(),
    ) -> None:
        await websocket.accept()
        scope = websocket.scope
        await websocket.send_json(
            {
                "request_id": websocket.headers.get("x-request-id"),
                "item": item,
                "limit": limit,
                "word": word,
                "x_mine": x_mine,
                "path": scope["path"],
                "root_path": scope["root_path"],
                "scheme": scope["scheme"],
                "cookie": websocket.cookies.get("tasty"),
                "url": str(websocket.url_for("close", code=3)),
            }
        )

    @api.websocket("/busy/{name}")
    async def busy(self, websocket: WebSocket, name: str) -> None:
        await websocket.accept()
        self.pen.note(f"{name} began")
        await self.gate.passed()
        self.pen.note(f"{name} ended {(await websocket.receive())['code']}")

    @api.websocket("/talk/{name}")
    async def talk(self, websocket: WebSocket, name: str) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text("x" * 10_000)
        except WebSocketDisconnect as error:
            self.pen.note(f"{name} stopped {error.code}")

    @api.websocket("/numbers")
    async def numbers(self, websocket: WebSocket, count: int, size: int) -> None:
        await websocket.accept()
        for number in range(count):
            await websocket.send_bytes(number.to_bytes(4, "big") * (size // 4))

    @api.websocket("/double")
    async def double(self, websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_text(await self.doubler.remote(await websocket.receive_text()))

    @api.get("/unary")
    async def unary(self) -> str:
        return "one"

    @api.get("/stream")
    async def stream(self) -> StreamingResponse:
        return StreamingResponse(iter(["a", "b"]))


@serve.deployment
def plain(request: Request) -> str:
    """Knows nothing of WebSockets."""
    return request.method
