"""Deployments that tell what they know of their trace."""

import asyncio

from fastapi import FastAPI, Request, WebSocket

from slipknot import serve
from slipknot.serve.handle import DeploymentHandle
from tests.support.journal import Gate, Pen

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
HEADERS = {"traceparent": TRACEPARENT, "tracestate": "vendor=1"}

api = FastAPI()


def _context() -> list[str]:
    context = serve.get_request_context()
    return [context.traceparent, context.tracestate]


@serve.deployment
class Leaf:
    def __init__(self, pen: Pen | None = None, gate: Gate | None = None) -> None:
        self.pen, self.gate = pen, gate

    async def __call__(self) -> list[str]:
        return _context()

    async def stand(self) -> None:
        assert self.pen is not None and self.gate is not None
        self.pen.note("begun")
        try:
            await self.gate.passed()
        except asyncio.CancelledError:
            self.pen.note("cancelled")
            raise

    async def fail(self) -> None:
        raise ValueError("no")


@serve.deployment
@serve.ingress(api)
class Root:
    def __init__(self, leaf: DeploymentHandle) -> None:
        self.leaf = leaf

    @api.get("/deep/{name}")
    async def deep(self, name: str) -> list[list[str]]:
        return [_context(), await self.leaf.remote()]

    @api.get("/headers")
    async def headers(self, request: Request) -> list[list[str]]:
        return [_context(), [request.headers["traceparent"], request.headers["tracestate"]]]

    @api.websocket("/headers")
    async def socket(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json([_context(), [websocket.headers["traceparent"], ""]])
        await websocket.close()

    @api.get("/stand")
    async def stand(self) -> None:
        await self.leaf.stand.remote()

    @api.get("/fail")
    async def fail(self) -> None:
        await self.leaf.fail.remote()
