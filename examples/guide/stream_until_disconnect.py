"""Stream for ever; when the client leaves, the async generator sees CancelledError."""

import asyncio
import time
from collections.abc import AsyncGenerator

import requests
from starlette.requests import Request
from starlette.responses import StreamingResponse

from slipknot import serve


@serve.deployment
class StreamingResponder:
    async def generate_forever(self) -> AsyncGenerator[str, None]:
        try:
            i = 0
            while True:
                yield str(i)
                i += 1
                await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            print("Cancelled! Exiting.")

    def __call__(self, request: Request) -> StreamingResponse:
        gen = self.generate_forever()
        return StreamingResponse(gen, status_code=200, media_type="text/plain")


app = StreamingResponder.bind()

if __name__ == "__main__":
    serve.run(app)
    response = requests.get("http://localhost:8000", stream=True, timeout=10)
    start = time.time()
    response.raise_for_status()
    for i, chunk in enumerate(response.iter_content(chunk_size=None, decode_unicode=True)):
        print(f"Got result {round(time.time() - start, 1)}s after start: '{chunk}'")
        if i == 10:
            print("Client disconnecting")
            response.close()
            break
    time.sleep(0.5)  # let the replica's words reach this console
