"""Three hops, ingress -> middle -> leaf, each wherever the cluster has room for it.

slipknot run demo:app --app-dir examples/demo  # on this machine; `docker compose up`: on several nodes

curl http://127.0.0.1:8000/            # who answered, hop by hop
curl -N http://127.0.0.1:8000/count    # a stream that begins in the leaf
curl http://127.0.0.1:8000/hang        # press Ctrl-C: each hop says where it stood when it was cancelled
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse

from slipknot import serve

api = FastAPI(title="slipknot demo")
LIGHT = {"num_cpus": 0.1}
"""Each replica waits most of the time, so many fit on a node."""


@contextlib.asynccontextmanager
async def told(hop: str, doing: str) -> AsyncIterator[None]:
    """Say where this hop stands, and what becomes of it."""
    request_id = serve.get_request_context().request_id
    say(f"{request_id}: {hop} {doing}")
    try:
        yield
    except asyncio.CancelledError:
        reason = serve.get_request_context().cancel_reason
        say(f"{request_id}: {hop} was cancelled while it {doing} ({reason})")
        raise
    say(f"{request_id}: {hop} is done")


def say(text: str) -> None:
    """One line in the log of this node."""
    print(f"[{socket.gethostname()}] {text}", flush=True)


@serve.deployment(max_ongoing_requests=1000, ray_actor_options=LIGHT)
class Leaf:
    """Where the work is."""

    async def path(self) -> list[str]:
        """Who takes part from here on."""
        return [f"leaf on {socket.gethostname()}"]

    async def hang(self) -> None:
        """Work for ever, or until nobody waits for it."""
        async with told("leaf", "waited for ever"):
            await asyncio.Event().wait()

    async def count(self, up_to: int, pause_s: float) -> AsyncIterator[int]:
        """Count slowly."""
        async with told("leaf", "counted"):
            for number in range(up_to):
                yield number
                await asyncio.sleep(pause_s)


@serve.deployment(max_ongoing_requests=1000, ray_actor_options=LIGHT)
class Middle:
    """Passes on what it is asked."""

    def __init__(self, leaf: serve.handle.DeploymentHandle) -> None:
        self._leaf = leaf

    async def path(self) -> list[str]:
        """Who takes part from here on."""
        return [f"middle on {socket.gethostname()}", *await self._leaf.path.remote()]

    async def hang(self) -> None:
        """Wait for a leaf that never answers."""
        async with told("middle", "waited for the leaf"):
            await self._leaf.hang.remote()

    async def count(self, up_to: int, pause_s: float) -> AsyncIterator[int]:
        """What the leaf counts."""
        async for number in self._leaf.options(stream=True).count.remote(up_to, pause_s):
            yield number


@serve.deployment(max_ongoing_requests=1000, ray_actor_options=LIGHT)
@serve.ingress(api)
class Ingress:
    """What clients talk to."""

    def __init__(self, middle: serve.handle.DeploymentHandle) -> None:
        self._middle = middle

    @api.get("/")
    async def path(self) -> list[str]:
        """Who answered, hop by hop."""
        return [f"ingress on {socket.gethostname()}", *await self._middle.path.remote()]

    @api.get("/hang")
    async def hang(self) -> None:
        """Never answer. Leave, and see the logs."""
        async with told("ingress", "waited for the middle"):
            await self._middle.hang.remote()

    @api.get("/count")
    async def count(self, up_to: int = 1_000_000, pause_s: float = 0.5) -> StreamingResponse:
        """A slow stream of numbers."""
        numbers = self._middle.options(stream=True).count.remote(up_to, pause_s)
        return StreamingResponse((f"{n}\n" async for n in numbers), media_type="text/plain")

    @api.websocket("/echo")
    async def echo(self, websocket: WebSocket) -> None:
        """Send back what is received."""
        await websocket.accept()
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await websocket.send_text(await websocket.receive_text())


app = Ingress.bind(Middle.bind(Leaf.bind()))

if __name__ == "__main__":
    serve.run(app, blocking=True)
