"""The quickstart: a greeting, a slow answer to walk away from, and a stream, behind one FastAPI application.

make serve                                    # or: python examples/quickstart.py
curl "http://127.0.0.1:8000/hello?name=Ada"
curl -N http://127.0.0.1:8000/count           # press Ctrl-C: the replica says that it stopped counting
"""

import asyncio
import signal
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from slipknot import serve

api = FastAPI(title="slipknot quickstart")


@serve.deployment
class Greeter:
    """Makes greetings; called by handle, not over HTTP."""

    def __init__(self, greeting: str) -> None:
        self._greeting = greeting

    async def greet(self, name: str) -> str:
        """Greet `name`."""
        return f"{self._greeting}, {name}!"


@serve.deployment(max_ongoing_requests=100)
@serve.ingress(api)
class Quickstart:
    """What clients talk to."""

    def __init__(self, greeter: serve.handle.DeploymentHandle) -> None:
        self._greeter = greeter

    @api.get("/hello")
    async def hello(self, name: str = "world") -> str:
        """Greet by way of another deployment."""
        greeting: str = await self._greeter.greet.remote(name)
        return greeting

    @api.get("/count")
    async def count(self) -> StreamingResponse:
        """Count for ever, or until the client leaves."""
        return StreamingResponse(self._numbers(), media_type="text/plain")

    async def _numbers(self) -> AsyncIterator[str]:
        number = 0
        try:
            while True:
                yield f"{number}\n"
                number += 1
                await asyncio.sleep(0.5)
        except asyncio.CancelledError:
            print(f"the client left; stopped counting at {number}")
            raise


app = Quickstart.bind(Greeter.bind("Hello"))

if __name__ == "__main__":
    serve.run(app)
    print("Serving at http://127.0.0.1:8000 - try this, and stop with Ctrl-C:")
    print('  curl "http://127.0.0.1:8000/hello?name=Ada"', flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        serve.shutdown()
